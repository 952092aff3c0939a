/** A guest made by hand: a card that keeps what it gets, and as much IP as tests need. */
import { network } from '#host';
import type { HostNetwork } from '../host/network.ts';
import { HostClock } from '../machine/clock.ts';
import { NO_OFFLOADS, type Offloads, type PacketBackend, type PacketOffload } from '../machine/interfaces.ts';
import { formatIp, type IpAddress, parseIp } from './address.ts';
import { addBytes, finish, fold, pseudoSum } from './checksum.ts';
import { ETH_SIZE, get16, get32, put16, put32, TYPE_ARP, TYPE_IPV4, TYPE_IPV6 } from './layout.ts';
import type { UserPlan } from '../machine/network-config.ts';
import { UserNetwork } from './user/user-network.ts';

export const ip = (text: string): IpAddress => parseIp(text)!;
export const GUEST_MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
export const GATEWAY = ip('10.0.2.2');
export const GUEST = ip('10.0.2.15');
export const GATEWAY6 = ip('fec0::2');
export const GUEST6 = ip('fec0::5054:ff:fe12:3456');

export const DEFAULT_PLAN: UserPlan = {
  ipv4: { network: ip('10.0.2.0'), prefix: 24, host: GATEWAY, dns: ip('10.0.2.3'), dhcpStart: GUEST },
  ipv6: { network: ip('fec0::'), prefix: 64, host: GATEWAY6, dns: ip('fec0::3') },
  restrict: false,
  hostname: null,
  domainName: null,
  dnsSearch: [],
  bootFile: null,
  tftpServerName: null,
  tftp: null,
  hostForwards: [],
  guestForwards: [],
};

/** Numbers that look random and are the same in each run. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return (x ^ (x >>> 14)) >>> 0;
  };
}

/** A clock that runs, `speed` times as fast as the host's, and fires its timers. */
export function runningClock(speed = 1): { clock: HostClock; stop: () => void } {
  const clock = new HostClock(() => performance.now() * 1e6 * speed);
  clock.resume();
  const timer = setInterval(() => clock.runTimers(), 1);
  return { clock, stop: () => clearInterval(timer) };
}

/** A packet as tests look at it. */
export interface Seen {
  readonly frame: Uint8Array;
  readonly offload: PacketOffload | null;
  readonly type: number;
  readonly protocol: number;
  readonly source: string;
  readonly destination: string;
  /** After the IP header. */
  readonly payload: Uint8Array;
}

export function see(frame: Uint8Array, offload: PacketOffload | null): Seen {
  const type = get16(frame, 12);
  const base = { frame, offload, type };
  if (type === TYPE_IPV4) {
    return {
      ...base,
      protocol: frame[23]!,
      source: formatIp(frame.subarray(26, 30)),
      destination: formatIp(frame.subarray(30, 34)),
      payload: frame.subarray(ETH_SIZE + 4 * (frame[14]! & 15), ETH_SIZE + get16(frame, 16)),
    };
  }
  if (type === TYPE_IPV6) {
    return {
      ...base,
      protocol: frame[20]!,
      source: formatIp(frame.subarray(22, 38)),
      destination: formatIp(frame.subarray(38, 54)),
      payload: frame.subarray(54, 54 + get16(frame, 18)),
    };
  }
  return { ...base, protocol: 0, source: '', destination: '', payload: frame.subarray(ETH_SIZE) };
}

export interface CardOptions {
  readonly accepts?: Offloads;
  /** What happens to frames on their way, in each direction. @returns the frames that arrive */
  readonly wire?: (frame: Uint8Array, toGuest: boolean) => readonly Uint8Array[];
}

/** The guest's card, and the lower half of its IP. */
export class TestGuest {
  readonly backend: PacketBackend;
  /** Everything that came in. */
  readonly seen: Seen[] = [];
  /** The card has no room when false. */
  listening = true;
  private readonly wire: NonNullable<CardOptions['wire']>;
  private readonly takers = new Set<(packet: Seen) => void>();

  constructor(backend: PacketBackend, options: CardOptions = {}) {
    this.backend = backend;
    this.wire = options.wire ?? ((frame) => [frame]);
    backend.accepts = options.accepts ?? NO_OFFLOADS;
    backend.onReceive = (frame, offload) => {
      if (!this.listening) return false;
      for (const one of this.wire(frame.slice(), true)) this.receive(one, offload);
      return true;
    };
  }

  /** @returns a function that takes the taker away again */
  take(taker: (packet: Seen) => void): () => void {
    this.takers.add(taker);
    return () => this.takers.delete(taker);
  }

  /** A packet that has come, or is going to come. */
  async next(wanted: (packet: Seen) => boolean, what = 'a packet'): Promise<Seen> {
    const there = this.seen.find(wanted);
    if (there !== undefined) return there;
    return new Promise((resolve, reject) => {
      const limit = setTimeout(() => reject(new Error(`${what} has not come`)), 5000);
      const leave = this.take((packet) => {
        if (!wanted(packet)) return;
        clearTimeout(limit);
        leave();
        resolve(packet);
      });
    });
  }

  sendFrame(frame: Uint8Array, offload: PacketOffload | null = null): void {
    for (const one of this.wire(frame, false)) {
      // Cards hand over guest memory as it is: shared, and written over as soon as they have it back.
      const shared = new Uint8Array(new SharedArrayBuffer(one.length));
      shared.set(one);
      this.backend.send(shared, offload);
      shared.fill(0xaa);
    }
  }

  arp(target: IpAddress): void {
    const frame = new Uint8Array(42);
    frame.fill(0xff, 0, 6);
    frame.set(GUEST_MAC, 6);
    put16(frame, 12, TYPE_ARP);
    frame.set([0, 1, 8, 0, 6, 4, 0, 1, ...GUEST_MAC, ...GUEST, 0, 0, 0, 0, 0, 0, ...target], 14);
    this.sendFrame(frame);
  }

  /** @param checksum where in the payload the transport's checksum is, or -1 */
  send(
    source: IpAddress,
    destination: IpAddress,
    protocol: number,
    payload: Uint8Array,
    checksum = -1,
    offload: PacketOffload | null = null,
    hops = 64,
  ): void {
    this.sendFrame(packet(source, destination, protocol, payload, checksum, hops), offload);
  }

  udp(destination: IpAddress, from: number, to: number, data: Uint8Array, source: IpAddress | null = null): void {
    const payload = new Uint8Array(8 + data.length);
    put16(payload, 0, from);
    put16(payload, 2, to);
    put16(payload, 4, payload.length);
    payload.set(data, 8);
    this.send(source ?? (destination.length === 4 ? GUEST : GUEST6), destination, 17, payload, 6);
  }

  private receive(frame: Uint8Array, offload: PacketOffload | null): void {
    const type = get16(frame, 12);
    if (type === TYPE_ARP && get16(frame, 20) === 1) this.answerArp(frame);
    if (type === TYPE_IPV6 && frame[54] === 135) this.answerSolicitation(frame);
    const packet = see(frame, offload && { ...offload });
    this.seen.push(packet);
    if (this.seen.length > 1000) this.seen.shift();
    for (const taker of [...this.takers]) taker(packet);
  }

  private answerArp(request: Uint8Array): void {
    if (formatIp(request.subarray(38, 42)) !== formatIp(GUEST)) return;
    const frame = request.slice(0, 42);
    frame.set(request.subarray(6, 12), 0);
    frame.set(GUEST_MAC, 6);
    put16(frame, 20, 2);
    frame.set(GUEST_MAC, 22);
    frame.set(GUEST, 28);
    frame.set(request.subarray(22, 32), 32);
    queueMicrotask(() => this.sendFrame(frame));
  }

  private answerSolicitation(request: Uint8Array): void {
    const target = request.subarray(62, 78);
    if (formatIp(target) !== formatIp(GUEST6)) return;
    const payload = new Uint8Array(32);
    payload.set([136, 0, 0, 0, 0x60]);
    payload.set(target, 8);
    payload.set([2, 1, ...GUEST_MAC], 24);
    const source = request.slice(22, 38);
    queueMicrotask(() => this.send(GUEST6, source, 58, payload, 2, null, 255));
  }
}

/** A whole frame. @param checksum where in the payload the transport's checksum is, or -1 */
export function packet(
  source: IpAddress,
  destination: IpAddress,
  protocol: number,
  payload: Uint8Array,
  checksum = -1,
  hops = 64,
): Uint8Array {
  const v4 = source.length === 4;
  const start = v4 ? 34 : 54;
  const frame = new Uint8Array(start + payload.length);
  frame.set([0x52, 0x55, 10, 0, 2, 2, ...GUEST_MAC]);
  put16(frame, 12, v4 ? TYPE_IPV4 : TYPE_IPV6);
  frame.set(payload, start);
  if (v4) {
    frame[14] = 0x45;
    put16(frame, 16, 20 + payload.length);
    frame[22] = hops;
    frame[23] = protocol;
    frame.set(source, 26);
    frame.set(destination, 30);
    put16(frame, 24, finish(addBytes(0, frame, 14, 34)));
  } else {
    frame[14] = 0x60;
    put16(frame, 18, payload.length);
    frame[20] = protocol;
    frame[21] = hops;
    frame.set(source, 22);
    frame.set(destination, 38);
  }
  if (checksum >= 0) {
    put16(frame, start + checksum, 0);
    const sum = protocol === 1 ? 0 : pseudoSum(frame, v4 ? 26 : 22, v4 ? 4 : 16, protocol, payload.length);
    put16(frame, start + checksum, finish(addBytes(sum, frame, start, frame.length)) || 0xffff);
  }
  return frame;
}

/** Whether the transport's checksum of a packet that came is right. */
export function intact({ frame, type, protocol, payload }: Seen): boolean {
  const v4 = type === TYPE_IPV4;
  const start = payload.byteOffset - frame.byteOffset;
  const sum = protocol === 1 ? 0 : pseudoSum(frame, v4 ? 26 : 22, v4 ? 4 : 16, protocol, payload.length);
  return fold(addBytes(sum, frame, start, start + payload.length)) === 0xffff;
}

const FIN = 1;
const SYN = 2;
const RST = 4;
const ACK = 16;

/** A TCP client that does what must be done and no more: one timer, no congestion control, acknowledgements at once. */
export class TestTcp {
  state: 'syn-sent' | 'open' | 'reset' = 'syn-sent';
  finReceived = false;
  received: Uint8Array[] = [];
  receivedLength = 0;
  /** What we tell as our window; the guest's program does not read when it is 0. */
  window = 65535;
  peerWindow = 0;
  private readonly guest: TestGuest;
  private readonly to: IpAddress;
  private readonly from: number;
  private readonly port: number;
  private readonly mss: number;
  private nxt: number;
  private una: number;
  private expected = 0;
  private queue: Uint8Array = new Uint8Array(0);
  private finQueued = false;
  private readonly early = new Map<number, Uint8Array>();
  private readonly leave: () => void;
  private readonly timer: ReturnType<typeof setInterval>;
  private changed: (() => void)[] = [];

  constructor(guest: TestGuest, to: IpAddress, from: number, port: number, options: { mss?: number; retryMs?: number } = {}) {
    this.guest = guest;
    this.to = to;
    this.from = from;
    this.port = port;
    this.mss = options.mss ?? 1400;
    this.una = this.nxt = (from * 7919) | 0;
    this.leave = guest.take((seen) => this.input(seen));
    this.timer = setInterval(() => this.retry(), options.retryMs ?? 30);
    this.sendSyn();
  }

  async until(condition: () => boolean, what: string): Promise<void> {
    const limit = Date.now() + 15_000;
    while (!condition()) {
      if (Date.now() > limit) throw new Error(`${what}: has not happened (state ${this.state})`);
      await new Promise<void>((resolve) => {
        this.changed.push(resolve);
        setTimeout(resolve, 50);
      });
    }
  }

  open(): Promise<void> {
    return this.until(() => this.state !== 'syn-sent', 'connected');
  }

  send(data: Uint8Array): void {
    const joined = new Uint8Array(this.queue.length + data.length);
    joined.set(this.queue);
    joined.set(data, this.queue.length);
    this.queue = joined;
    this.pump();
  }

  end(): void {
    this.finQueued = true;
    this.pump();
  }

  reset(): void {
    this.emit(this.nxt, RST, new Uint8Array(0));
  }

  acknowledge(): void {
    this.emit(this.nxt, ACK, new Uint8Array(0));
  }

  get unsent(): number {
    return this.queue.length;
  }

  data(): Buffer {
    return Buffer.concat(this.received);
  }

  close(): void {
    this.leave();
    clearInterval(this.timer);
  }

  private sendSyn(): void {
    this.emit(this.una, SYN, new Uint8Array(0), Uint8Array.of(2, 4, this.mss >> 8, this.mss & 255));
  }

  private input({ protocol, payload, source }: Seen): void {
    if (protocol !== 6 || source !== formatIp(this.to)) return;
    if (get16(payload, 0) !== this.port || get16(payload, 2) !== this.from) return;
    const sequence = get32(payload, 4) | 0;
    const acknowledged = get32(payload, 8) | 0;
    const flags = payload[13]!;
    const data = payload.subarray((payload[12]! >> 4) * 4);
    if ((flags & RST) !== 0) this.state = 'reset';
    else if (this.state === 'syn-sent') this.synReceived(sequence, acknowledged, flags, get16(payload, 14));
    else this.segment(sequence, acknowledged, flags, get16(payload, 14), data);
    for (const one of this.changed.splice(0)) one();
  }

  private synReceived(sequence: number, acknowledged: number, flags: number, window: number): void {
    if ((flags & (SYN | ACK)) !== (SYN | ACK) || acknowledged !== ((this.una + 1) | 0)) return;
    this.state = 'open';
    this.una = this.nxt = acknowledged;
    this.expected = (sequence + 1) | 0;
    this.peerWindow = window;
    this.acknowledge();
    this.pump();
  }

  private segment(sequence: number, acknowledged: number, flags: number, window: number, data: Uint8Array): void {
    const advance = (acknowledged - this.una) | 0;
    if (advance > 0) {
      this.queue = this.queue.subarray(Math.min(advance, this.queue.length));
      this.una = acknowledged;
      if (((this.nxt - acknowledged) | 0) < 0) this.nxt = acknowledged;
    }
    this.peerWindow = window;
    if (data.length > 0 && this.window > 0) this.early.set(sequence, data);
    if ((flags & FIN) !== 0) this.early.set((sequence + data.length) ^ 0x5000_0000, new Uint8Array(0));
    this.inOrder();
    if (data.length > 0 || (flags & (FIN | SYN)) !== 0) this.acknowledge();
    this.pump();
  }

  private inOrder(): void {
    for (const [sequence, data] of [...this.early]) {
      const skip = (this.expected - sequence) | 0;
      if (data.length > 0 && skip >= data.length) this.early.delete(sequence);
      if (data.length === 0 || skip < 0 || skip >= data.length) continue;
      this.early.delete(sequence);
      this.received.push(data.slice(skip));
      this.receivedLength += data.length - skip;
      this.expected = (sequence + data.length) | 0;
      return this.inOrder();
    }
    if (!this.finReceived && this.early.has(this.expected ^ 0x5000_0000)) {
      this.finReceived = true;
      this.expected = (this.expected + 1) | 0;
    }
  }

  private pump(): void {
    if (this.state !== 'open') return;
    for (;;) {
      const offset = (this.nxt - this.una) | 0;
      const count = Math.min(this.mss, this.queue.length - offset, this.peerWindow - offset);
      if (count > 0) {
        this.emit(this.nxt, ACK, this.queue.subarray(offset, offset + count));
        this.nxt = (this.nxt + count) | 0;
      } else {
        if (this.finQueued && offset === this.queue.length) {
          this.emit(this.nxt, ACK | FIN, new Uint8Array(0));
          this.nxt = (this.nxt + 1) | 0;
        }
        return;
      }
    }
  }

  private retry(): void {
    if (this.state === 'syn-sent') this.sendSyn();
    else if (this.state === 'open' && this.nxt !== this.una) {
      this.nxt = this.una;
      this.pump();
    }
  }

  private emit(sequence: number, flags: number, data: Uint8Array, options = new Uint8Array(0)): void {
    const segment = new Uint8Array(20 + options.length + data.length);
    put16(segment, 0, this.from);
    put16(segment, 2, this.port);
    put32(segment, 4, sequence);
    put32(segment, 8, this.expected);
    put16(segment, 12, ((20 + options.length) << 10) | flags);
    put16(segment, 14, this.window);
    segment.set(options, 20);
    segment.set(data, 20 + options.length);
    this.guest.send(this.to.length === 4 ? GUEST : GUEST6, this.to, 6, segment, 16);
  }
}

/** A user network with a guest on it, and what ends both. */
export function userNetwork(plan: Partial<UserPlan> = {}, options: CardOptions & { speed?: number; host?: HostNetwork } = {}) {
  const { clock, stop } = runningClock(options.speed);
  const random = seeded(1);
  const backend = new UserNetwork({ plan: { ...DEFAULT_PLAN, ...plan }, host: options.host ?? network, clock, random });
  const guest = new TestGuest(backend, options);
  return {
    backend,
    guest,
    clock,
    [Symbol.dispose]: () => {
      backend.close();
      stop();
    },
  };
}
