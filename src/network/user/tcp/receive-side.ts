/**
 * Guest to host: bytes wait here until the host's socket has taken them; what comes out of order waits in its
 * place.
 *
 *                       nxt        out of order          edge (promised to the guest)
 *     --|-- ring.length --|......####......####............|
 */
import { type Budget, ByteRing } from '../../byte-ring.ts';
import { distance } from './segment.ts';

/** Bytes that the guest may be ahead of the host. */
const LIMIT = 1 << 20;
const LIMIT_WHEN_SCARCE = 1 << 14;
/** Shift of our window (RFC 7323): the limit fits 16 bits with it. */
export const WINDOW_SCALE = 5;
/** What the handshake promises, where windows are not scaled. */
export const FIRST_WINDOW = 65535;
/** Holes that are kept account of; more are left to retransmission. */
const MAX_PIECES = 32;

type Piece = { start: number; end: number };

/** The host's socket. @returns whether the data has been taken; otherwise `drained` follows */
export type Sink = (data: Uint8Array) => boolean;

export class ReceiveSide {
  /** The next sequence number that is expected. */
  nxt: number;
  /** Bytes that have come since the last acknowledgement. */
  unacknowledged = 0;
  /** Bytes that have come in all. */
  total = 0;
  /** The host has been given everything there is. */
  get flushed(): boolean {
    return this.ring.length === 0;
  }
  /** Bytes that the host has not taken. */
  get pending(): number {
    return this.ring.length;
  }
  private edge: number;
  private scale = 0;
  private readonly ring: ByteRing;
  private readonly budget: Budget;
  /** What has come out of order, sorted, without overlaps. */
  private pieces: Piece[] = [];
  /** Bytes that the host is taking. */
  private writing = 0;

  /** @param first sequence number of the first byte */
  constructor(first: number, budget: Budget) {
    this.nxt = first;
    this.edge = (first + FIRST_WINDOW) | 0;
    this.budget = budget;
    this.ring = new ByteRing(2 * LIMIT, budget);
  }

  setScale(scale: number): void {
    this.scale = scale;
  }

  /** Bytes that the guest may be ahead of the host at present. */
  private get most(): number {
    const limit = this.budget.scarce ? LIMIT_WHEN_SCARCE : LIMIT;
    return this.scale === 0 ? Math.min(limit, FIRST_WINDOW) : limit;
  }

  /** The window field of the next segment. @param mss steps smaller than this are not worth telling (RFC 9293, 3.8.6.2.2) */
  window(mss: number): number {
    const { most } = this;
    const edge = (this.nxt + Math.max(0, most - this.ring.length)) | 0;
    if (distance(edge, this.edge) >= Math.min(mss, most / 2)) this.edge = edge;
    return Math.min(65535, Math.max(0, distance(this.edge, this.nxt)) >> this.scale);
  }

  /** Whether a segment begins where data can be taken. */
  inWindow(sequence: number): boolean {
    const offset = distance(sequence, this.nxt);
    return offset >= 0 && offset < Math.max(1, distance(this.edge, this.nxt));
  }

  /** The guest should hear that there is room again. */
  worthTelling(mss: number): boolean {
    const { most } = this;
    const told = distance(this.edge, this.nxt);
    return told < most / 4 && most - this.ring.length - told >= Math.max(mss, most / 4);
  }

  /** @returns whether something new came in order */
  accept(sequence: number, bytes: Uint8Array, at: number, length: number): boolean {
    const old = Math.max(0, distance(this.nxt, sequence));
    const offset = Math.max(0, distance(sequence, this.nxt));
    const room = Math.max(0, distance(this.edge, this.nxt)) - offset;
    const count = Math.min(length - old, room);
    if (count <= 0) return false;
    const place = this.ring.length + offset;
    if (!this.ring.reserve(place + count)) return false;
    const start = (this.nxt + offset) | 0;
    const end = (start + count) | 0;
    if (offset > 0) {
      if (!this.insert({ start, end })) return false;
      this.ring.place(place, bytes.subarray(at + old, at + old + count));
      return false;
    }
    this.ring.place(place, bytes.subarray(at + old, at + old + count));
    this.advanceTo(end);
    return true;
  }

  /** A FIN takes a sequence number, too. */
  skipFin(): void {
    this.nxt = (this.nxt + 1) | 0;
    if (distance(this.edge, this.nxt) < 0) this.edge = this.nxt;
  }

  /** Gives the host what it will take. */
  flush(sink: Sink): void {
    const { ring } = this;
    while (this.writing === 0 && ring.length > 0) {
      const piece = ring.front();
      if (sink(piece)) ring.drop(piece.length);
      else this.writing = piece.length;
    }
  }

  /** The host has taken what it was given. */
  drained(): void {
    this.ring.drop(this.writing);
    this.writing = 0;
  }

  /** Gives back memory that is not in use. */
  relax(): void {
    if (this.pieces.length === 0) this.ring.trim();
  }

  close(): void {
    this.pieces = [];
    this.writing = 0;
    this.ring.drop(this.ring.length);
    this.ring.trim();
  }

  private advanceTo(end: number): void {
    let reached = end;
    while (this.pieces.length > 0 && distance(this.pieces[0]!.start, reached) <= 0) {
      const piece = this.pieces.shift()!;
      if (distance(piece.end, reached) > 0) reached = piece.end;
    }
    const advance = distance(reached, this.nxt);
    this.ring.length += advance;
    this.unacknowledged += advance;
    this.total += advance;
    this.nxt = reached;
  }

  /** @returns false when there are too many holes already */
  private insert(piece: Piece): boolean {
    const apart = this.pieces.filter(({ start, end }) => distance(end, piece.start) < 0 || distance(start, piece.end) > 0);
    if (apart.length === this.pieces.length && apart.length >= MAX_PIECES) return false;
    for (const { start, end } of this.pieces) {
      if (distance(end, piece.start) < 0 || distance(start, piece.end) > 0) continue;
      if (distance(start, piece.start) < 0) piece.start = start;
      if (distance(end, piece.end) > 0) piece.end = end;
    }
    apart.push(piece);
    this.pieces = apart.sort((a, b) => distance(a.start, b.start));
    return true;
  }
}
