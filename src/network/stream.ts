/**
 * Two networks joined by a stream (`-netdev stream`, `socket,listen=`, `socket,connect=`): each frame comes after
 * its length in four bytes, most significant first.
 */
import type { Accepted, Endpoint, HostNetwork, HostStream, Listener, StreamEvents } from '../host/network.ts';
import { NO_OFFLOADS, type PacketOffload, type Timer, type VirtualClock } from '../machine/interfaces.ts';
import { Backend } from './backend.ts';
import { Budget, ByteRing } from './byte-ring.ts';
import { get32, put32 } from './layout.ts';
import { complete } from './offload.ts';

const LENGTH = 4;
/** Longer frames than any card has mean that the other side does not speak this language. */
const LONGEST = 68 << 10;
/** Bytes on their way out, above which the card has to wait. */
const HIGH = 1 << 18;
const RING = 1 << 20;

export interface StreamOptions {
  readonly server: boolean;
  readonly at: Endpoint;
  /** Seconds until a lost connection is sought again; 0 for never. */
  readonly reconnect: number;
}

export interface StreamOutcome {
  onReady(): void;
  onFailure(error: Error): void;
}

export class StreamBackend extends Backend implements StreamEvents {
  readonly offloads = NO_OFFLOADS;
  private readonly host: HostNetwork;
  private readonly options: StreamOptions;
  private readonly clock: VirtualClock;
  private readonly outcome: StreamOutcome;
  private readonly listener: Listener | null;
  private readonly retry: Timer;
  private readonly out = new ByteRing(RING, new Budget(RING));
  private readonly length = new Uint8Array(LENGTH);
  /** Bytes that the host is taking. */
  private writing = 0;
  private refused = false;
  private stream: HostStream | null = null;
  private connected = false;
  /** A frame, or its length, that has come in part. */
  private readonly partial = new Uint8Array(LENGTH + LONGEST);
  private have = 0;

  constructor(host: HostNetwork, clock: VirtualClock, options: StreamOptions, outcome: StreamOutcome) {
    super();
    this.host = host;
    this.options = options;
    this.clock = clock;
    this.outcome = outcome;
    this.retry = clock.timer(() => this.connect());
    this.listener = options.server ? host.listen(options.at, (accepted) => this.accept(accepted), outcome) : null;
    if (!options.server) this.connect();
  }

  /** The port of a server that was asked for any. */
  get port(): number {
    return this.listener?.port ?? 0;
  }

  send(frame: Uint8Array, offload: PacketOffload | null): boolean {
    if (!this.connected) return true;
    if (this.out.length >= HIGH) {
      this.refused = true;
      return false;
    }
    complete(frame, offload, this.enqueue);
    this.flush();
    return true;
  }

  override close(): void {
    super.close();
    this.listener?.close();
    this.retry.cancel();
    this.stream?.reset();
    this.stream = null;
    this.connected = false;
  }

  onConnect(): void {
    this.connected = true;
    this.outcome.onReady();
  }

  onData(data: Uint8Array): void {
    let at = 0;
    while (at < data.length) {
      // Frames that have come whole need not be copied.
      const length = this.have === 0 && data.length - at >= LENGTH ? get32(data, at) : -1;
      if (length > LONGEST) return this.drop();
      if (length >= 0 && data.length - at - LENGTH >= length) {
        this.deliver(data.subarray(at + LENGTH, at + LENGTH + length));
        at += LENGTH + length;
        continue;
      }
      const taken = this.collect(data, at);
      if (taken < 0) return this.drop();
      at += taken;
    }
    if (this.full) this.stream?.pause();
  }

  onEnd(): void {
    this.drop();
  }

  onDrain(): void {
    this.out.drop(this.writing);
    this.writing = 0;
    this.flush();
    if (!this.refused || this.out.length >= HIGH / 2) return;
    this.refused = false;
    this.onWritable?.();
  }

  onClose(): void {
    this.stream = null;
    this.lost();
  }

  protected override onRoom(): void {
    this.stream?.resume();
  }

  private connect(): void {
    this.stream = this.host.connect(this.options.at, null, this);
  }

  /** One at a time: who comes while somebody is there is turned away. */
  private accept(accepted: Accepted): void {
    if (this.stream !== null) return accepted.refuse();
    this.stream = accepted.start(this);
    this.connected = true;
  }

  private readonly enqueue = (frame: Uint8Array): void => {
    put32(this.length, 0, frame.length);
    // All of a frame or nothing.
    if (!this.out.reserve(this.out.length + LENGTH + frame.length)) return;
    this.out.append(this.length);
    this.out.append(frame);
  };

  private flush(): void {
    while (this.stream !== null && this.writing === 0 && this.out.length > 0) {
      const piece = this.out.front();
      if (this.stream.write(piece)) this.out.drop(piece.length);
      else this.writing = piece.length;
    }
  }

  /** @returns how much of the data belongs to the frame that has come in part, -1 for nonsense */
  private collect(data: Uint8Array, at: number): number {
    const { partial } = this;
    const want = this.have < LENGTH ? LENGTH : LENGTH + get32(partial, 0);
    const count = Math.min(want - this.have, data.length - at);
    partial.set(data.subarray(at, at + count), this.have);
    this.have += count;
    if (this.have < LENGTH) return count;
    const length = get32(partial, 0);
    if (length > LONGEST) return -1;
    if (this.have === LENGTH + length) {
      this.have = 0;
      this.deliver(partial.subarray(LENGTH, LENGTH + length));
    }
    return count;
  }

  private drop(): void {
    this.stream?.reset();
    this.stream = null;
    this.lost();
  }

  private lost(): void {
    this.connected = false;
    this.have = 0;
    this.writing = 0;
    this.out.drop(this.out.length);
    if (this.refused) {
      this.refused = false;
      this.onWritable?.();
    }
    const { server, reconnect } = this.options;
    if (server) return;
    if (reconnect > 0) this.retry.arm(this.clock.now() + reconnect * 1e9);
    else this.outcome.onFailure(new Error('the connection is lost, or could not be made'));
  }
}
