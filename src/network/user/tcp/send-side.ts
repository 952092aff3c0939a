/**
 * Host to guest: bytes wait here until the guest has acknowledged them. Window, congestion control and
 * recovery (RFC 9293, 3.8; RFC 5681; RFC 6582; RFC 6298).
 *
 *         una            nxt                    una + ring.length
 *     -----|-- in flight --|-- not yet sent -------|
 *          |------- ring --------------------------|
 */
import type { Timer, VirtualClock } from '../../../machine/interfaces.ts';
import { TCP_ACK, TCP_FIN, TCP_PSH } from '../../layout.ts';
import { type Budget, ByteRing } from '../../byte-ring.ts';
import { RoundTrip } from './round-trip.ts';
import { distance } from './segment.ts';

/** From so many bytes on the host is asked to wait, and up to so many it may go on. */
const HIGH = 1 << 20;
const LOW = HIGH / 2;
const HIGH_WHEN_SCARCE = 1 << 14;
/** The host gives what it has read already even after it was asked to wait. */
const RING = 2 * HIGH;
/**
 * Bytes that may be in flight at first. There is no queue between us and the guest that could overflow: a card
 * that has no room says so, and the frame waits. So this is more than RFC 6928 has for the Internet.
 */
const FIRST_WINDOW = 65535;
const MOST_WINDOW = 4 * HIGH;
const DUPLICATES = 3;
/** Timeouts without an answer, after which the guest is taken for gone. */
const MAX_RETRIES = 12;

/** What sends segments, with the connection's addresses, acknowledgement and window. */
export interface SegmentOutput {
  /** Frames have to wait for room. */
  readonly blocked: boolean;
  /** Bytes that one segment may have, a multiple of the guest's segment size: more than one of those is cut later. */
  readonly largest: number;
  /** Call `pump` when there is room again. */
  awaitRoom(): void;
  /** @param data from `ring`, at this offset and so long */
  segment(sequence: number, flags: number, ring: ByteRing, offset: number, length: number): void;
  /** The guest does not answer. */
  gaveUp(): void;
  /** Of the states, only where a FIN is acknowledged matters here. */
  finSent(): void;
}

export class SendSide {
  /** Sequence numbers: the first that is not acknowledged, the next to be sent, the end of all that was ever sent. */
  una: number;
  nxt: number;
  private most: number;
  /** The guest's segment size. */
  mss = 536;
  window = 0;
  /** Everything has been sent and acknowledged, the FIN, too. */
  finAcknowledged = false;
  private largestWindow = 0;
  private windowSequence = 0;
  private windowAcknowledged = 0;
  private congestion = FIRST_WINDOW;
  private threshold = MOST_WINDOW;
  private duplicates = 0;
  /** Recovery ends when this is acknowledged. */
  private recover: number;
  private recovering = false;
  private finQueued = false;
  private retries = 0;
  /** The segment whose round trip is being timed: its end, and when it left; NaN for none. */
  private timedEnd = 0;
  private timedSince = NaN;
  private readonly roundTrip = new RoundTrip();
  private readonly ring: ByteRing;
  /** Data that the ring had no memory for. */
  private spilled: Uint8Array[] = [];
  private readonly budget: Budget;
  private readonly clock: VirtualClock;
  private readonly output: SegmentOutput;
  private readonly timer: Timer;

  /** @param first sequence number of the first byte */
  constructor(first: number, budget: Budget, clock: VirtualClock, output: SegmentOutput) {
    this.una = this.nxt = this.most = this.recover = first;
    this.budget = budget;
    this.ring = new ByteRing(RING, budget);
    this.clock = clock;
    this.output = output;
    this.timer = clock.timer(() => this.timeout());
  }

  /** Bytes that the guest has not acknowledged. */
  get pending(): number {
    return this.ring.length;
  }

  /** Whether the host should wait before it sends more. */
  get full(): boolean {
    return this.spilled.length > 0 || this.ring.length >= (this.budget.scarce ? HIGH_WHEN_SCARCE : HIGH);
  }

  /** Whether the host, once asked to wait, may go on. */
  get roomy(): boolean {
    return this.spilled.length === 0 && this.ring.length <= (this.budget.scarce ? HIGH_WHEN_SCARCE / 2 : LOW);
  }

  /** Takes all of it. */
  push(data: Uint8Array): void {
    if (this.spilled.length > 0 || !this.ring.append(data)) this.spilled.push(data.slice());
  }

  /** Nothing more comes from the host. */
  finish(): void {
    this.finQueued = true;
  }

  /** Sends what window and link allow. */
  pump(): void {
    const { ring, output } = this;
    const { largest } = output;
    for (;;) {
      const flight = distance(this.nxt, this.una);
      const left = ring.length - flight;
      if (left < 0 || (left === 0 && !this.finDue)) break;
      if (output.blocked) {
        output.awaitRoom();
        return;
      }
      const count = this.sendable(left, flight, largest);
      if (count < 0) break;
      this.send(flight, count, count === left);
    }
    if (this.nxt !== this.una || ring.length > 0) this.startTimer();
    else this.timer.cancel();
  }

  /** @param scaled the guest's window in bytes */
  updateWindow(sequence: number, acknowledged: number, scaled: number): void {
    const newer = distance(sequence, this.windowSequence);
    if (newer < 0 || (newer === 0 && distance(acknowledged, this.windowAcknowledged) < 0)) return;
    if (this.window === 0 && scaled > 0) {
      // What was timed were the probes.
      this.timer.cancel();
      this.roundTrip.recovered();
    }
    this.window = scaled;
    this.largestWindow = Math.max(this.largestWindow, scaled);
    this.windowSequence = sequence;
    this.windowAcknowledged = acknowledged;
  }

  /** @returns false for an acknowledgement of what was never sent */
  acknowledge(acknowledged: number, repeatsLast: boolean): boolean {
    if (distance(acknowledged, this.most) > 0) return false;
    // Whoever answers is there, even with a window that stays shut.
    this.retries = 0;
    const advance = distance(acknowledged, this.una);
    if (advance > 0) this.advance(acknowledged, advance);
    else if (advance === 0 && repeatsLast && this.nxt !== this.una) this.duplicate();
    return true;
  }

  /** A window that was told with the handshake. */
  begin(sequence: number, acknowledged: number, scaled: number): void {
    this.windowSequence = sequence;
    this.windowAcknowledged = acknowledged;
    this.window = this.largestWindow = scaled;
    this.congestion = Math.max(FIRST_WINDOW, 4 * this.mss);
  }

  /** Gives back memory that is not in use. */
  relax(): void {
    if (this.una === this.nxt) this.ring.trim();
  }

  close(): void {
    this.timer.cancel();
    this.spilled = [];
    this.ring.drop(this.ring.length);
    this.ring.trim();
  }

  /** The FIN is next, after all data. */
  private get finDue(): boolean {
    return this.finQueued && !this.finAcknowledged && this.spilled.length === 0;
  }

  /** @returns bytes to send now, 0 for a FIN alone, -1 for nothing */
  private sendable(left: number, flight: number, largest: number): number {
    if (left === 0) return 0;
    const allowed = Math.min(this.window, this.congestion) - flight;
    const count = Math.min(left, allowed, largest);
    if (count <= 0) return -1;
    if (count < left && count < this.mss && count < this.largestWindow / 2) return -1;
    return count > this.mss && count < left ? count - (count % this.mss) : count;
  }

  private send(offset: number, count: number, last: boolean): void {
    const fin = last && this.finDue;
    const flags = TCP_ACK | (last && count > 0 ? TCP_PSH : 0) | (fin ? TCP_FIN : 0);
    this.output.segment(this.nxt, flags, this.ring, offset, count);
    const end = (this.nxt + count + (fin ? 1 : 0)) | 0;
    const fresh = distance(end, this.most) > 0;
    if (fresh && Number.isNaN(this.timedSince) && this.nxt === this.most) {
      this.timedSince = this.clock.now();
      this.timedEnd = end;
    }
    this.nxt = end;
    if (fresh) this.most = end;
    if (fin) this.output.finSent();
  }

  private startTimer(): void {
    if (this.timer.deadline === Infinity) this.timer.arm(this.clock.now() + this.roundTrip.timeout);
  }

  private advance(acknowledged: number, advance: number): void {
    const { ring } = this;
    if (!Number.isNaN(this.timedSince) && distance(acknowledged, this.timedEnd) >= 0) {
      this.roundTrip.measured(this.clock.now() - this.timedSince);
      this.timedSince = NaN;
    }
    // Beyond the data only a FIN can have been acknowledged.
    if (advance > ring.length) this.finAcknowledged = true;
    ring.drop(Math.min(advance, ring.length));
    this.una = acknowledged;
    if (distance(this.nxt, acknowledged) < 0) this.nxt = acknowledged;
    this.roundTrip.recovered();
    this.timer.cancel();
    this.grow(acknowledged, advance);
    this.refill();
  }

  private refill(): void {
    while (this.spilled.length > 0 && this.ring.append(this.spilled[0]!)) this.spilled.shift();
  }

  private grow(acknowledged: number, advance: number): void {
    this.duplicates = 0;
    const { mss } = this;
    if (this.recovering) {
      if (distance(acknowledged, this.recover) >= 0) {
        this.recovering = false;
        this.congestion = this.threshold;
      } else {
        // The next hole (RFC 6582, 3.2, step 3).
        this.retransmitFirst();
        this.congestion = Math.max(mss, this.congestion - advance + mss);
      }
      return;
    }
    const more = this.congestion < this.threshold ? advance : (mss * Math.min(advance, this.congestion)) / this.congestion;
    this.congestion = Math.min(MOST_WINDOW, this.congestion + more);
  }

  private duplicate(): void {
    this.duplicates++;
    if (this.recovering) this.congestion += this.mss;
    else if (this.duplicates === DUPLICATES && distance(this.una, this.recover) >= 0) {
      this.recovering = true;
      this.recover = this.most;
      this.threshold = this.halved();
      this.congestion = this.threshold + DUPLICATES * this.mss;
      this.retransmitFirst();
    }
  }

  private halved(): number {
    return Math.max(distance(this.most, this.una) >> 1, 2 * this.mss);
  }

  private retransmitFirst(): void {
    this.timedSince = NaN;
    const count = Math.min(this.mss, this.ring.length);
    const fin = count === this.ring.length && this.finDue && distance(this.most, this.una) > count;
    this.output.segment(this.una, TCP_ACK | (fin ? TCP_FIN : 0), this.ring, 0, count);
  }

  private timeout(): void {
    if (++this.retries > MAX_RETRIES) {
      this.output.gaveUp();
      return;
    }
    this.roundTrip.backOff();
    this.timedSince = NaN;
    if (this.nxt === this.una || this.window === 0) this.probe();
    else {
      this.threshold = this.halved();
      this.congestion = this.mss;
      this.recovering = false;
      this.recover = this.most;
      this.duplicates = 0;
      this.nxt = this.una;
      this.pump();
    }
    this.startTimer();
  }

  /** Asks for the window with one byte beyond it (RFC 9293, 3.8.6.1). */
  private probe(): void {
    const count = Math.min(1, this.ring.length);
    if (count === 0) {
      this.nxt = this.una;
      this.pump();
      return;
    }
    this.output.segment(this.una, TCP_ACK, this.ring, 0, count);
    const end = (this.una + count) | 0;
    if (distance(end, this.most) > 0) this.most = end;
  }
}
