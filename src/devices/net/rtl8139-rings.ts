/** Rings of descriptors of the RTL8139C+: datasheet 1.6, chapter 9.2. */
import type { GuestMemory, NetworkPort, PacketOffload } from '../../machine/interfaces.ts';
import { canCut, finishFrame, type OffloadContext, Rest, segmentCount, segmentOf, type Work } from './offload.ts';
import { FCS, HEADER, isBroadcast, isGroup, LARGEST_FRAME } from './frame.ts';
import { headersOf, putPseudoSum } from './ip-headers.ts';
import { AT, CAUSE, COMMAND, PLUS } from './rtl8139-registers.ts';

/*
 * 16 bytes: what and how long 32, VLAN 32, address 64.
 *
 *   to send     31 owned  30 ring's end  29 first  28 last  27 large send   26:16 size of segments | 18:16 checksums   15:0 length
 *   to receive  31 owned  30 ring's end  12:0 length of the buffer
 *   received    29 first  28 last  27 group  26 own  25 broadcast  18:17 protocol  13:0 length with FCS
 */
const DESCRIPTOR = 16;
const FLAG = { owned: 0x80000000, end: 1 << 30, first: 1 << 29, last: 1 << 28, large: 1 << 27 } as const;
const CHECKSUM = { ip: 1 << 18, udp: 1 << 17, tcp: 1 << 16 } as const;
const LENGTH = 0xffff;
const SEGMENT_SHIFT = 16;
const SEGMENT_MASK = 0x7ff;
const TO = { group: 1 << 27, own: 1 << 26, broadcast: 1 << 25 } as const;
const PROTOCOL = { tcp: 1 << 17, udp: 2 << 17, ip: 3 << 17 } as const;
const BUFFER_MASK = 0x1fff;
const SEND_TAG = 1 << 17;
const RECEIVED_TAG = 1 << 16;
const TAG_TYPE = 0x8100;
const TAG_AT = 12;
const TAG = 4;
/** Descriptors of a ring at most (9.2.1): a guest's mark of the end may be missing. */
const MAX_DESCRIPTORS = 64;
/** Frames until the guest has its turn. */
const AT_ONCE = 256;
/** Statistics (6.3): where two of them stand, bytes of all. */
const TALLY = { size: 64, sent: 0, received: 8 } as const;
const TALLY_ADDRESS_MASK = ~63;

export const plusPowerOn = () => ({
  sendIndex: 0,
  priorityIndex: 0,
  receiveIndex: 0,
  /** The driver has told of frames that are not all sent. */
  pollsOrdinary: false,
  pollsPriority: false,
  /** Segments of the next frame that the network has taken already. */
  segmentsSent: 0,
  framesSent: 0,
  framesReceived: 0,
});
export type PlusState = ReturnType<typeof plusPowerOn>;

/** What the rings need of the card. */
export interface PlusCard {
  readonly memory: GuestMemory;
  readonly backend: NetworkPort | null;
  readonly isMaster: boolean;
  get32(at: number): number;
  has(at: number, bit: number): boolean;
  raise(cause: number): void;
  pass(frame: Uint8Array, rest: PacketOffload | null): boolean;
  continueSending(): void;
}

/** @returns where in RAM a descriptor lies, or -1 */
function place(card: PlusCard, ring: number, index: number): number {
  const base = card.get32(ring + 4) * 2 ** 32 + card.get32(ring);
  return card.isMaster ? card.memory.ramOffset(base + DESCRIPTOR * index, DESCRIPTOR) : -1;
}

const wordAt = (ram: Uint8Array, at: number): number =>
  (ram[at]! | (ram[at + 1]! << 8) | (ram[at + 2]! << 16) | (ram[at + 3]! << 24)) >>> 0;

function putWord(ram: Uint8Array, at: number, value: number): void {
  for (let i = 0; i < 4; i++) ram[at + i] = value >>> (8 * i);
}

const addressAt = (ram: Uint8Array, at: number): number => wordAt(ram, at + 12) * 2 ** 32 + wordAt(ram, at + 8);
const nextIndex = (index: number, flags: number): number => ((flags & FLAG.end) !== 0 ? 0 : (index + 1) % MAX_DESCRIPTORS);

export class PlusSender {
  private readonly card: PlusCard;
  private readonly state: PlusState;
  private readonly rest = new Rest();
  private readonly work: Work = { ipChecksum: false, checksum: false, segments: false };
  private readonly frame = new Uint8Array(LARGEST_FRAME);
  private running = false;

  constructor(card: PlusCard, state: PlusState) {
    this.card = card;
    this.state = state;
  }

  /** The driver has put frames into a ring. */
  poll(priority: boolean): void {
    if (priority) this.state.pollsPriority = true;
    else this.state.pollsOrdinary = true;
    this.run();
  }

  /** Sends for as long as there are frames and the network takes them. */
  run(): void {
    const { state, card } = this;
    if (this.running || !card.has(AT.command, COMMAND.send) || !card.has(AT.plusCommand, PLUS.send)) return;
    this.running = true;
    let budget = AT_ONCE;
    while (state.pollsPriority && budget > 0 && this.sendNext(AT.priorityRing)) budget--;
    while (state.pollsOrdinary && budget > 0 && this.sendNext(AT.sendRing)) budget--;
    this.running = false;
    if (budget === 0) card.continueSending();
  }

  /** Writes statistics where the driver wants them (6.3). */
  dumpTally(): void {
    const { card, state } = this;
    const low = card.get32(AT.tally);
    if ((low & 8) === 0) return;
    const bytes = new DataView(new ArrayBuffer(TALLY.size));
    bytes.setBigUint64(TALLY.sent, BigInt(state.framesSent), true);
    bytes.setBigUint64(TALLY.received, BigInt(state.framesReceived), true);
    const address = card.get32(AT.tally + 4) * 2 ** 32 + ((low & TALLY_ADDRESS_MASK) >>> 0);
    if (card.isMaster) card.memory.writeBytes(address, new Uint8Array(bytes.buffer));
  }

  /** @returns false when there is no whole frame, or the network is full */
  private sendNext(ring: number): boolean {
    const { state, card } = this;
    const priority = ring === AT.priorityRing;
    const gathered = this.gather(ring, priority ? state.priorityIndex : state.sendIndex);
    if (gathered === null) {
      if (priority) state.pollsPriority = false;
      else state.pollsOrdinary = false;
      card.raise(CAUSE.noDescriptor);
      return false;
    }
    const { length, flags, tag, next, places } = gathered;
    if (length >= HEADER && length <= LARGEST_FRAME - TAG && !this.send(length, flags, tag)) return false;
    const { ram } = card.memory;
    for (const at of places) {
      putWord(ram, at, wordAt(ram, at) & ~FLAG.owned);
      card.memory.ramChanged(at, DESCRIPTOR);
    }
    state.segmentsSent = 0;
    state.framesSent++;
    if (priority) state.priorityIndex = next;
    else state.sendIndex = next;
    card.raise(CAUSE.sent);
    return true;
  }

  /** Puts a frame's pieces together. @returns null when its last one is not there yet */
  private gather(
    ring: number,
    first: number,
  ): { length: number; flags: number; tag: number; next: number; places: number[] } | null {
    const { card, frame } = this;
    const { memory } = card;
    const places: number[] = [];
    let [index, length, flags, tag] = [first, 0, 0, 0];
    while (places.length < MAX_DESCRIPTORS) {
      const at = place(card, ring, index);
      if (at < 0) return null;
      const now = wordAt(memory.ram, at);
      if ((now & FLAG.owned) === 0) return null;
      if (places.length === 0) {
        flags = now;
        tag = wordAt(memory.ram, at + 4);
      }
      places.push(at);
      const size = now & LENGTH;
      const from = memory.ramOffset(addressAt(memory.ram, at), size);
      // What lies elsewhere, or is too much, is lost with its frame.
      if (from < 0 || length + size > frame.length) length = Infinity;
      else frame.set(memory.ram.subarray(from, from + size), length);
      length += size;
      index = nextIndex(index, now);
      if ((now & FLAG.last) !== 0) return { length, flags, tag, next: index, places };
    }
    return { length: Infinity, flags, tag, next: index, places };
  }

  private send(length: number, flags: number, tag: number): boolean {
    const frame = this.frame.subarray(0, length);
    const headers = (flags & (FLAG.large | CHECKSUM.ip | CHECKSUM.tcp | CHECKSUM.udp)) === 0 ? null : headersOf(frame);
    const tagged = (tag & SEND_TAG) !== 0 ? tag & 0xffff : -1;
    if (headers === null) return this.pass(frame, tagged, null);
    if ((flags & FLAG.large) !== 0) return this.sendLarge(frame, headers, (flags >>> SEGMENT_SHIFT) & SEGMENT_MASK, tagged);
    return this.sendSummed(frame, headers, flags, tagged);
  }

  private sendSummed(frame: Uint8Array, headers: OffloadContext, flags: number, tag: number): boolean {
    const { work, rest, card } = this;
    work.ipChecksum = (flags & CHECKSUM.ip) !== 0;
    work.checksum = headers.field !== 0 && (flags & (headers.tcp ? CHECKSUM.tcp : CHECKSUM.udp)) !== 0;
    let left = false;
    if (work.checksum) {
      putPseudoSum(frame, headers, transportLength(frame, headers));
      left = tag < 0 && rest.leaveChecksum(headers, frame.length, card.backend?.offloads ?? NOTHING);
      if (left) work.checksum = false;
    }
    // Behind the datagram there may be padding, which does not count.
    const end = headers.start + transportLength(frame, headers) - 1;
    finishFrame(frame, { ...headers, end }, work);
    return this.pass(frame, tag, left ? rest : null);
  }

  private sendLarge(frame: Uint8Array, headers: OffloadContext, segmentSize: number, tag: number): boolean {
    const { work, rest, card, state } = this;
    const context = { ...headers, segmentSize };
    if (!headers.tcp || !canCut(context, frame.length)) return true;
    Object.assign(work, { ipChecksum: true, checksum: true, segments: true });
    putPseudoSum(frame, context, 0);
    if (tag < 0 && rest.leaveSegments(frame, context, card.backend?.offloads ?? NOTHING)) return this.pass(frame, tag, rest);
    const count = segmentCount(context, frame.length);
    for (; state.segmentsSent < count; state.segmentsSent++) {
      if (!this.pass(segmentOf(frame, context, work, state.segmentsSent), tag, null)) return false;
    }
    return true;
  }

  /** @param tag in network order, put before the frame's type, or -1 */
  private pass(frame: Uint8Array, tag: number, rest: PacketOffload | null): boolean {
    if (tag < 0) return this.card.pass(frame, rest);
    const whole = new Uint8Array(frame.length + TAG);
    whole.set(frame.subarray(0, TAG_AT));
    whole.set([TAG_TYPE >> 8, TAG_TYPE & 0xff, tag & 0xff, tag >> 8], TAG_AT);
    whole.set(frame.subarray(TAG_AT), TAG_AT + TAG);
    return this.card.pass(whole, rest);
  }
}

const NOTHING = { checksum: false, tso4: false, tso6: false, ufo: false, uso: false } as const;

/** What IP says of it, as far as the frame has that. */
function transportLength(frame: Uint8Array, { ipStart, start }: OffloadContext): number {
  const total = (frame[ipStart + 2]! << 8) | frame[ipStart + 3]!;
  return Math.max(0, Math.min(ipStart + total, frame.length) - start);
}

export class PlusReceiver {
  private readonly card: PlusCard;
  private readonly state: PlusState;

  constructor(card: PlusCard, state: PlusState) {
    this.card = card;
    this.state = state;
  }

  /** Puts a frame into the next buffer. @returns false when there is none */
  take(given: Uint8Array): boolean {
    const { card, state } = this;
    const { memory } = card;
    const at = place(card, AT.receiveRing, state.receiveIndex);
    const flags = at < 0 ? 0 : wordAt(memory.ram, at);
    if (at < 0 || (flags & FLAG.owned) === 0) return false;
    const { frame, tag } = this.detag(given);
    const room = flags & BUFFER_MASK;
    const part = frame.subarray(0, Math.min(frame.length, room));
    const to = memory.ramOffset(addressAt(memory.ram, at), part.length);
    if (to >= 0) {
      memory.ram.set(part, to);
      memory.ramChanged(to, part.length);
    }
    const kind = isBroadcast(frame) ? TO.broadcast : isGroup(frame) ? TO.group : TO.own;
    const length = Math.min(frame.length + FCS, BUFFER_MASK);
    putWord(memory.ram, at, ((flags & FLAG.end) | FLAG.first | FLAG.last | kind | this.protocol(frame) | length) >>> 0);
    putWord(memory.ram, at + 4, tag < 0 ? 0 : RECEIVED_TAG | tag);
    memory.ramChanged(at, DESCRIPTOR);
    state.receiveIndex = nextIndex(state.receiveIndex, flags);
    state.framesReceived++;
    return true;
  }

  /** Checksums that were there are right: nothing on the way changes them. */
  private protocol(frame: Uint8Array): number {
    if (!this.card.has(AT.plusCommand, PLUS.checksums)) return 0;
    const headers = headersOf(frame);
    if (headers === null) return 0;
    return headers.field === 0 ? PROTOCOL.ip : headers.tcp ? PROTOCOL.tcp : PROTOCOL.udp;
  }

  private detag(frame: Uint8Array): { frame: Uint8Array; tag: number } {
    const tagged = ((frame[TAG_AT]! << 8) | frame[TAG_AT + 1]!) === TAG_TYPE && frame.length >= HEADER + TAG;
    if (!tagged || !this.card.has(AT.plusCommand, PLUS.detag)) return { frame, tag: -1 };
    const short = new Uint8Array(frame.length - TAG);
    short.set(frame.subarray(0, TAG_AT));
    short.set(frame.subarray(TAG_AT + TAG), TAG_AT);
    return { frame: short, tag: frame[TAG_AT + 2]! | (frame[TAG_AT + 3]! << 8) };
  }
}
