/**
 * One TCP connection: the guest's side of it is played here (RFC 9293, 3.3 and 3.10), the other side is a socket
 * of the host's. What happens to either side happens to the other: refusal, end of data, reset, a full window.
 */
import type { HostStream, NetworkFailure, StreamEvents } from '../../../host/network.ts';
import { GSO_TCP4, GSO_TCP6, type Timer, type VirtualClock } from '../../../machine/interfaces.ts';
import { formatIp, type IpAddress } from '../../address.ts';
import { PROTOCOL_TCP, put16, put32, TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SIZE, TCP_SYN } from '../../layout.ts';
import type { Budget, ByteRing } from '../../byte-ring.ts';
import type { NetworkFlow } from '../flows.ts';
import { type IpLayer, type Obstacle, seal } from '../packet.ts';
import { FIRST_WINDOW, ReceiveSide, type Sink, WINDOW_SCALE } from './receive-side.ts';
import { DEFAULT_MSS, distance, OPTION_MSS, OPTION_NOP, OPTION_SCALE, type Segment } from './segment.ts';
import { SendSide, type SegmentOutput } from './send-side.ts';

/** As in RFC 9293, 3.3.2; `opening` waits for the host's socket before the guest is answered. */
export type TcpState =
  | 'opening'
  | 'syn-sent'
  | 'syn-received'
  | 'established'
  | 'fin-wait-1'
  | 'fin-wait-2'
  | 'close-wait'
  | 'closing'
  | 'last-ack'
  | 'time-wait'
  | 'closed';

/** What a connection needs of the stack. */
export interface TcpContext {
  readonly budget: Budget;
  readonly clock: VirtualClock;
  /** Call `pump` when the card has room again. */
  awaitRoom(connection: Connection): void;
  /** The addresses may be used anew. */
  released(connection: Connection): void;
  /** Nothing of the connection is left. */
  gone(connection: Connection): void;
}

export interface TcpEnds {
  readonly ip: IpLayer;
  readonly guest: IpAddress;
  readonly guestPort: number;
  /** The other side as the guest sees it. */
  readonly peer: IpAddress;
  readonly peerPort: number;
}

/** Nanoseconds. An acknowledgement waits for data to go with, but not so long that anybody would notice. */
const ACK_DELAY = 5e6;
/** Bytes that are given to the host's socket without waiting for more. */
const FLUSH_AT = 1 << 15;
/** Segments that are acknowledged together: at first, and once many have come (fewer interrupts for the guest). */
const ACK_EVERY = 2;
const ACK_EVERY_IN_BULK = 8;
const BULK = 1 << 18;
const HANDSHAKE_RETRY = 1e9;
const HANDSHAKE_RETRIES = 6;
/** Between us and the guest nothing strays: twice the life of a segment is short. */
const TIME_WAIT = 10e9;
const LEAST_MSS = 64;
const SYN_OPTIONS = 8;
/** Data of a segment that is to be cut: with the headers of either IP it is no longer than 65535 bytes. */
const LARGEST = 65535 - 40 - TCP_SIZE;

const OBSTACLES: Record<NetworkFailure, Obstacle | null> = {
  refused: null,
  unreachable: 'network',
  'timed-out': 'host',
  reset: null,
  other: null,
};

export class Connection implements SegmentOutput, StreamEvents {
  readonly ends: TcpEnds;
  state: TcpState;
  readonly sender: SendSide;
  private receiver: ReceiveSide;
  private readonly context: TcpContext;
  private readonly initial: number;
  private stream: HostStream | null = null;
  private paused = false;
  /** The guest's FIN, when it came before what precedes it. */
  private finAt: number | null = null;
  private finReceived = false;
  private endPassedOn = false;
  /** The guest scales its windows, and so do we. */
  private scales = false;
  private guestScale = 0;
  private lastWindow = -1;
  private retries = 0;
  private flushQueued = false;
  private ackDue = false;
  /** The handshake, a delayed acknowledgement, the end of TIME-WAIT. */
  private readonly timer: Timer;
  /** Tells the guest that the host could not be reached. */
  onUnreachable: ((why: Obstacle) => void) | null = null;

  /** @param state `opening` or `syn-sent` */
  constructor(ends: TcpEnds, context: TcpContext, initial: number, state: 'opening' | 'syn-sent') {
    this.ends = ends;
    this.context = context;
    this.initial = initial | 0;
    this.state = state;
    this.sender = new SendSide((initial + 1) | 0, context.budget, context.clock, this);
    this.receiver = new ReceiveSide(0, context.budget);
    this.timer = context.clock.timer(() => this.timerFired());
  }

  attach(stream: HostStream): void {
    this.stream = stream;
  }

  /** The guest wants to connect. @param segment its SYN */
  accept(segment: Segment): void {
    this.setPeer(segment);
  }

  /** Somebody outside wants to connect to the guest. */
  connectToGuest(): void {
    this.sendSyn(TCP_SYN);
  }

  // What the host's socket tells.

  onConnect(): void {
    if (this.state !== 'opening') return;
    this.state = 'syn-received';
    this.onUnreachable = null;
    this.sendSyn(TCP_SYN | TCP_ACK);
  }

  onData(data: Uint8Array): void {
    if (this.state === 'closed') return;
    this.sender.push(data);
    if (this.sender.full && !this.paused) {
      this.paused = true;
      this.stream?.pause();
    }
    if (this.canSend) this.sender.pump();
  }

  onEnd(): void {
    this.sender.finish();
    if (this.canSend) this.sender.pump();
  }

  onDrain(): void {
    this.receiver.drained();
    this.flush();
    if (this.receiver.worthTelling(this.sender.mss) && this.canReceive) this.ackNow();
    if (this.state === 'closed' && this.receiver.flushed) this.finishClosing();
  }

  onClose(failure: NetworkFailure | null): void {
    this.stream = null;
    if (this.state === 'closed') return this.finishClosing();
    if (this.state === 'opening') return this.refused(failure ?? 'other');
    if (failure !== null || !this.receiver.flushed || !this.endPassedOn) return this.abort();
  }

  // What the guest sends.

  input(segment: Segment): void {
    if (this.state === 'opening') {
      if ((segment.flags & TCP_RST) !== 0) this.destroy();
      return;
    }
    if (this.state === 'syn-sent') return this.inputSynSent(segment);
    if (!this.acceptable(segment)) return;
    if (this.state === 'syn-received' && !this.becomeEstablished(segment)) return;
    if (!this.inputAcknowledgement(segment)) return;
    if (this.state === 'time-wait' || this.state === 'closed') return;
    this.inputData(segment);
    this.sender.pump();
    this.resumeHost();
    this.answer(segment);
  }

  /** Whether a new SYN of the guest's may take this connection's place. */
  givesWayTo(segment: Segment): boolean {
    return this.state === 'time-wait' && distance(segment.sequence, this.receiver.nxt) > 0;
  }

  /** The card has room again. */
  pump(): void {
    if (this.canSend) this.sender.pump();
  }

  /** Gives back memory that is not in use. */
  relax(): void {
    this.sender.relax();
    this.receiver.relax();
  }

  flow(): NetworkFlow {
    const { guest, guestPort, peer, peerPort } = this.ends;
    return {
      protocol: 'TCP',
      state: this.state.toUpperCase().replaceAll('-', '_'),
      source: [formatIp(guest), guestPort],
      destination: [formatIp(peer), peerPort],
      toHost: this.receiver.pending,
      toGuest: this.sender.pending,
    };
  }

  /** Ends both sides at once. */
  abort(): void {
    if (this.state === 'closed') return;
    if (this.state !== 'opening' && this.state !== 'time-wait') this.emit(this.sender.nxt, TCP_RST | TCP_ACK, 0, 0);
    this.destroy();
  }

  /** Drops everything without telling the guest. */
  destroy(): void {
    this.release();
    this.stream?.reset();
    this.finishClosing();
  }

  // SegmentOutput.

  get blocked(): boolean {
    return this.ends.ip.link.blocked;
  }

  /** A card whose driver cuts segments gets them whole. */
  get largest(): number {
    const { ip } = this.ends;
    const { accepts } = ip.link;
    const { mss } = this.sender;
    const whole = accepts.checksum && (ip.family === 4 ? accepts.tso4 : accepts.tso6);
    return whole ? LARGEST - (LARGEST % mss) : mss;
  }

  awaitRoom(): void {
    this.context.awaitRoom(this);
  }

  segment(sequence: number, flags: number, ring: ByteRing, offset: number, length: number): void {
    const { link, payloadAt } = this.ends.ip;
    if (length > 0) ring.copyTo(offset, link.frame, payloadAt + TCP_SIZE, length);
    this.emit(sequence, flags, 0, length);
  }

  gaveUp(): void {
    this.abort();
  }

  finSent(): void {
    if (this.state === 'established') this.state = 'fin-wait-1';
    else if (this.state === 'close-wait') this.state = 'last-ack';
  }

  private get canSend(): boolean {
    return this.state !== 'opening' && this.state !== 'syn-sent' && this.state !== 'syn-received' && this.state !== 'closed';
  }

  private get canReceive(): boolean {
    return this.state === 'established' || this.state === 'fin-wait-1' || this.state === 'fin-wait-2';
  }

  private setPeer(segment: Segment): void {
    const { ip } = this.ends;
    const { sender } = this;
    sender.mss = Math.max(LEAST_MSS, Math.min(segment.mss || DEFAULT_MSS[ip.family], ip.room - TCP_SIZE));
    this.scales = segment.scale >= 0;
    this.guestScale = Math.max(0, segment.scale);
    this.receiver = new ReceiveSide((segment.sequence + 1) | 0, this.context.budget);
    if (this.scales) this.receiver.setScale(WINDOW_SCALE);
  }

  private inputSynSent(segment: Segment): void {
    const { flags } = segment;
    const answers = (flags & TCP_ACK) !== 0 && segment.acknowledged === ((this.initial + 1) | 0);
    if ((flags & TCP_RST) !== 0) {
      if (answers) this.destroy();
      return;
    }
    if (!answers || (flags & TCP_SYN) === 0) return;
    this.setPeer(segment);
    this.established(segment, segment.window);
    this.ackNow();
    this.sender.pump();
  }

  private becomeEstablished(segment: Segment): boolean {
    if (segment.acknowledged !== this.sender.una) {
      this.emit(segment.acknowledged, TCP_RST, 0, 0);
      return false;
    }
    this.established(segment, segment.window << this.guestScale);
    return true;
  }

  private established(segment: Segment, window: number): void {
    this.timer.cancel();
    this.state = 'established';
    this.sender.begin(segment.sequence, segment.acknowledged, window);
    this.lastWindow = window;
  }

  /** RFC 9293, 3.10.7.4 up to the acknowledgement; RFC 5961 for resets and SYNs. */
  private acceptable(segment: Segment): boolean {
    const { receiver } = this;
    const { flags, sequence, length } = segment;
    if ((flags & TCP_RST) !== 0) {
      if (sequence === receiver.nxt) this.destroy();
      else if (receiver.inWindow(sequence)) this.ackNow();
      return false;
    }
    if ((flags & TCP_SYN) !== 0) {
      if (this.state === 'syn-received') this.sendSyn(TCP_SYN | TCP_ACK);
      else this.ackNow();
      return false;
    }
    if ((flags & TCP_ACK) === 0) return false;
    const end = (sequence + length + (flags & TCP_FIN)) | 0;
    const isOld = distance(end, receiver.nxt) <= 0 && distance(sequence, receiver.nxt) < 0;
    if (isOld) {
      // A retransmission, or a probe whether we are there: its acknowledgement is still good.
      this.ackDue = true;
      return true;
    }
    if (distance(sequence, receiver.nxt) <= 0 || receiver.inWindow(sequence)) return true;
    this.ackNow();
    return false;
  }

  /** @returns false when the segment is to be dropped */
  private inputAcknowledgement(segment: Segment): boolean {
    const { sender } = this;
    const window = segment.window << this.guestScale;
    const repeats = segment.length === 0 && (segment.flags & TCP_FIN) === 0 && window === this.lastWindow;
    if (!sender.acknowledge(segment.acknowledged, repeats)) {
      this.ackNow();
      return false;
    }
    this.lastWindow = window;
    sender.updateWindow(segment.sequence, segment.acknowledged, window);
    if (!sender.finAcknowledged) return true;
    if (this.state === 'fin-wait-1') this.state = 'fin-wait-2';
    else if (this.state === 'closing') this.waitAWhile();
    else if (this.state === 'last-ack') this.close();
    else if (this.state === 'time-wait' && (segment.flags & TCP_FIN) !== 0) {
      this.ackNow();
      this.waitAWhile();
    }
    return true;
  }

  private inputData(segment: Segment): void {
    const { receiver } = this;
    const { sequence, length, flags } = segment;
    if (length > 0) {
      if (this.finReceived || !receiver.accept(sequence, segment.bytes, segment.dataAt, length)) this.ackDue = true;
      else this.flushSoon((flags & TCP_PSH) !== 0);
    }
    if ((flags & TCP_FIN) !== 0) this.finAt = (sequence + length) | 0;
    if (this.finAt === receiver.nxt && !this.finReceived) this.inputFin();
  }

  private inputFin(): void {
    this.finReceived = true;
    this.receiver.skipFin();
    this.ackDue = true;
    if (this.state === 'established') this.state = 'close-wait';
    else if (this.state === 'fin-wait-1') this.state = 'closing';
    else if (this.state === 'fin-wait-2') this.waitAWhile();
    this.flush();
  }

  private readonly sink: Sink = (data) => this.stream?.write(data) ?? true;

  /** A system call for each small segment would cost more than all else: those that come together go together. */
  private flushSoon(pushed: boolean): void {
    if (pushed || this.receiver.pending >= FLUSH_AT) return this.flush();
    if (this.flushQueued) return;
    this.flushQueued = true;
    queueMicrotask(this.flushQueue);
  }

  private readonly flushQueue = (): void => {
    this.flushQueued = false;
    if (this.state !== 'closed') this.flush();
  };

  private flush(): void {
    this.receiver.flush(this.sink);
    if (!this.finReceived || this.endPassedOn || !this.receiver.flushed) return;
    this.endPassedOn = true;
    this.stream?.end();
  }

  private resumeHost(): void {
    if (!this.paused || !this.sender.roomy) return;
    this.paused = false;
    this.stream?.resume();
  }

  /** Acknowledges what has come, at once where somebody waits for it. */
  private answer(segment: Segment): void {
    const { receiver, sender } = this;
    const every = receiver.total >= BULK ? ACK_EVERY_IN_BULK : ACK_EVERY;
    if (this.ackDue || receiver.unacknowledged >= every * sender.mss) this.ackNow();
    else if (segment.length > 0 && receiver.unacknowledged > 0 && this.timer.deadline === Infinity) {
      this.timer.arm(this.context.clock.now() + ACK_DELAY);
    }
  }

  private ackNow(): void {
    this.emit(this.sender.nxt, TCP_ACK, 0, 0);
  }

  private sendSyn(flags: number): void {
    const { ip } = this.ends;
    const { frame } = ip.link;
    const at = ip.payloadAt + TCP_SIZE;
    frame[at] = OPTION_MSS;
    frame[at + 1] = 4;
    put16(frame, at + 2, ip.room - TCP_SIZE);
    frame[at + 4] = OPTION_NOP;
    frame[at + 5] = OPTION_SCALE;
    frame[at + 6] = 3;
    frame[at + 7] = WINDOW_SCALE;
    // A SYN's answer only scales when the SYN did.
    const scaled = (flags & TCP_ACK) === 0 || this.scales;
    this.emit(this.initial, flags, scaled ? SYN_OPTIONS : SYN_OPTIONS / 2, 0);
    this.timer.arm(this.context.clock.now() + HANDSHAKE_RETRY * 2 ** this.retries);
  }

  /** Sends the segment whose options and data are in place already. */
  private emit(sequence: number, flags: number, options: number, length: number): void {
    const { ip, guest, guestPort, peer, peerPort } = this.ends;
    const { frame, offload } = ip.link;
    const at = ip.payloadAt;
    const { receiver, sender } = this;
    put16(frame, at, peerPort);
    put16(frame, at + 2, guestPort);
    put32(frame, at + 4, sequence);
    put32(frame, at + 8, (flags & TCP_ACK) !== 0 ? receiver.nxt : 0);
    put16(frame, at + 12, ((TCP_SIZE + options) << 10) | flags);
    put16(frame, at + 14, this.windowField(flags));
    put32(frame, at + 16, 0);
    if ((flags & TCP_ACK) !== 0) this.acknowledged();
    const size = TCP_SIZE + options + length;
    const partial = seal(ip, peer, guest, PROTOCOL_TCP, size, 16);
    if (length > sender.mss) {
      offload.gso = ip.family === 4 ? GSO_TCP4 : GSO_TCP6;
      offload.headerLength = at + TCP_SIZE;
      offload.segmentSize = sender.mss;
    }
    ip.output(PROTOCOL_TCP, peer, guest, size, partial);
  }

  private windowField(flags: number): number {
    if ((flags & TCP_RST) !== 0) return 0;
    // Windows of SYNs are never scaled.
    if ((flags & TCP_SYN) !== 0) return FIRST_WINDOW;
    return this.receiver.window(this.sender.mss);
  }

  private acknowledged(): void {
    this.ackDue = false;
    this.receiver.unacknowledged = 0;
    if (this.state !== 'time-wait' && this.state !== 'syn-received') this.timer.cancel();
  }

  private timerFired(): void {
    switch (this.state) {
      case 'time-wait':
        return this.close();
      case 'syn-sent':
      case 'syn-received':
        if (++this.retries > HANDSHAKE_RETRIES) return this.abort();
        return this.sendSyn(this.state === 'syn-sent' ? TCP_SYN : TCP_SYN | TCP_ACK);
      default:
        this.ackNow();
    }
  }

  private refused(failure: NetworkFailure): void {
    const why = OBSTACLES[failure];
    if (why !== null && this.onUnreachable !== null) this.onUnreachable(why);
    else this.emit(0, TCP_RST | TCP_ACK, 0, 0);
    this.destroy();
  }

  private waitAWhile(): void {
    this.state = 'time-wait';
    this.timer.arm(this.context.clock.now() + TIME_WAIT);
  }

  /** The guest's side has ended in order; the host may still be taking what the guest sent. */
  private close(): void {
    this.release();
    if (this.receiver.flushed || this.stream === null) this.finishClosing();
  }

  private release(): void {
    if (this.state === 'closed') return;
    this.state = 'closed';
    this.timer.cancel();
    this.sender.close();
    this.context.released(this);
  }

  private finishClosing(): void {
    this.receiver.close();
    this.context.gone(this);
  }
}
