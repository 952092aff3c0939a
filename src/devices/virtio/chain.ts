/** A request: the buffers that one chain of descriptors names, those to read before those to write. */
import type { Pieces } from '../../host/pieces.ts';
import type { PieceList } from '../pieces.ts';

/** Most buffers of one chain, by way of an indirect table, too. */
export const MAX_SEGMENTS = 1024;
const FIRST_SEGMENTS = 16;

/**
 * Buffers as ranges of the host's memory. Chains are reused: what a device gets is its own until it is pushed back.
 *
 *     index       0 .. readableCount - 1     readableCount .. count - 1
 *     buffers     the device reads           the device writes
 */
export class Chain {
  /** What the used ring calls this chain by. */
  id = 0;
  /** Ring slots that it takes, and the first of them (of a packed ring). */
  slots = 1;
  start = 0;
  readableCount = 0;
  count = 0;
  /** Bytes. */
  readable = 0;
  writable = 0;
  /** Offsets in `ram`. */
  offsets = new Float64Array(FIRST_SEGMENTS);
  lengths = new Float64Array(FIRST_SEGMENTS);
  private readonly ram: Uint8Array;
  private readonly changed: (offset: number, length: number) => void;

  /** @param changed is told of what is written to `ram` */
  constructor(ram: Uint8Array, changed: (offset: number, length: number) => void) {
    this.ram = ram;
    this.changed = changed;
  }

  clear(): void {
    this.readableCount = this.count = this.readable = this.writable = 0;
  }

  /** Adds a buffer; one that begins where the last one ends becomes part of it. */
  add(offset: number, length: number, writable: boolean): void {
    if (writable) this.writable += length;
    else this.readable += length;
    const last = this.count - 1;
    const first = writable ? this.readableCount : 0;
    if (last >= first && this.offsets[last]! + this.lengths[last]! === offset) {
      this.lengths[last] = this.lengths[last]! + length;
      return;
    }
    if (this.count === this.offsets.length) this.grow();
    this.offsets[this.count] = offset;
    this.lengths[this.count++] = length;
    if (!writable) this.readableCount++;
  }

  /** Offset in `ram` of a part of what the device reads that lies in one piece, or -1. @param at bytes from its start */
  readableAt(at: number, length: number): number {
    return this.find(0, this.readableCount, at, length);
  }

  /** The same of what the device writes. */
  writableAt(at: number, length: number): number {
    return this.find(this.readableCount, this.count, at, length);
  }

  /** A part of what the device reads, as pieces in place. @param at bytes from its start, and how many there are from there */
  readablePieces(into: PieceList, at: number, length: number): void {
    this.collect(into, 0, this.readableCount, at, length);
  }

  /** The same of what the device writes. After a write to them `wrotePieces` must be called. */
  writablePieces(into: PieceList, at: number, length: number): void {
    this.collect(into, this.readableCount, this.count, at, length);
  }

  wrotePieces({ offsets, lengths, count }: Pieces): void {
    for (let i = 0; i < count; i++) this.changed(offsets[i]!, lengths[i]!);
  }

  /** A part of `ram` in place, by the offset that `readableAt` or `writableAt` gave. After a write to it `wrote` must be called. */
  view(offset: number, length: number): Uint8Array {
    return this.ram.subarray(offset, offset + length);
  }

  /** A part of `ram` has been written to in place. */
  wrote(offset: number, length: number): void {
    this.changed(offset, length);
  }

  /** Copies from what the device reads. @param at bytes from its start @returns bytes copied: less at its end */
  read(at: number, into: Uint8Array, length = into.length): number {
    let done = 0;
    for (let i = 0; i < this.readableCount && done < length; i++) {
      const size = this.lengths[i]!;
      if (at >= size) {
        at -= size;
        continue;
      }
      const part = Math.min(size - at, length - done);
      const from = this.offsets[i]! + at;
      if (part <= 32) for (let j = 0; j < part; j++) into[done + j] = this.ram[from + j]!;
      else into.set(this.ram.subarray(from, from + part), done);
      done += part;
      at = 0;
    }
    return done;
  }

  /** Copies to what the device writes. @param at bytes from its start @returns bytes copied: less at its end */
  write(at: number, from: Uint8Array, length = from.length): number {
    let done = 0;
    for (let i = this.readableCount; i < this.count && done < length; i++) {
      const size = this.lengths[i]!;
      if (at >= size) {
        at -= size;
        continue;
      }
      const part = Math.min(size - at, length - done);
      const to = this.offsets[i]! + at;
      if (part <= 32) for (let j = 0; j < part; j++) this.ram[to + j] = from[done + j]!;
      else this.ram.set(done === 0 && part === from.length ? from : from.subarray(done, done + part), to);
      this.changed(to, part);
      done += part;
      at = 0;
    }
    return done;
  }

  /** One byte of what the device writes. */
  writeByte(at: number, value: number): void {
    for (let i = this.readableCount; i < this.count; i++) {
      if (at < this.lengths[i]!) {
        const to = this.offsets[i]! + at;
        this.ram[to] = value;
        this.changed(to, 1);
        return;
      }
      at -= this.lengths[i]!;
    }
  }

  /** Everything that the device reads, copied. @param most bytes: of hostile lengths no more is taken */
  readAll(most: number): Uint8Array {
    const bytes = new Uint8Array(Math.min(this.readable, most));
    this.read(0, bytes);
    return bytes;
  }

  private collect(into: PieceList, from: number, to: number, at: number, length: number): void {
    into.clear(this.ram);
    let left = length;
    for (let i = from; i < to && left > 0; i++) {
      const size = this.lengths[i]!;
      if (at < size) {
        const part = Math.min(size - at, left);
        into.add(this.offsets[i]! + at, part);
        left -= part;
      }
      at = Math.max(0, at - size);
    }
  }

  private find(from: number, to: number, at: number, length: number): number {
    for (let i = from; i < to; i++) {
      const size = this.lengths[i]!;
      if (at < size) return at + length <= size ? this.offsets[i]! + at : -1;
      at -= size;
    }
    return -1;
  }

  private grow(): void {
    const offsets = new Float64Array(this.offsets.length * 4);
    offsets.set(this.offsets);
    this.offsets = offsets;
    const lengths = new Float64Array(offsets.length);
    lengths.set(this.lengths);
    this.lengths = lengths;
  }
}
