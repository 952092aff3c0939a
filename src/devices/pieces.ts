/** Memory that a request names in many places, put together by a device. */
import { type Pieces, writeTo } from '../host/pieces.ts';
import type { BlockBackend, Completion, GuestMemory } from '../machine/interfaces.ts';

const FEW = 16;

export class PieceList implements Pieces {
  memory: Uint8Array = new Uint8Array(0);
  offsets = new Float64Array(FEW);
  lengths = new Float64Array(FEW);
  count = 0;
  total = 0;

  clear(memory: Uint8Array): void {
    this.memory = memory;
    this.count = this.total = 0;
  }

  add(offset: number, length: number): void {
    if (this.count === this.offsets.length) {
      this.offsets = grown(this.offsets);
      this.lengths = grown(this.lengths);
    }
    this.offsets[this.count] = offset;
    this.lengths[this.count++] = length;
    this.total += length;
  }

  /** The same, as one piece with the last one where they are neighbours. */
  append(offset: number, length: number): void {
    const last = this.count - 1;
    if (last < 0 || this.offsets[last]! + this.lengths[last]! !== offset) return this.add(offset, length);
    this.lengths[last]! += length;
    this.total += length;
  }

  /** A piece in place. */
  view(piece: number): Uint8Array {
    return this.memory.subarray(this.offsets[piece]!, this.offsets[piece]! + this.lengths[piece]!);
  }

  /** All of it, which is that memory's RAM, has been written to. */
  changed(memory: GuestMemory): void {
    for (let i = 0; i < this.count; i++) memory.ramChanged(this.offsets[i]!, this.lengths[i]!);
  }

  /** Reads all of it from a drive. @param offset on the drive, bytes */
  readFrom(disk: BlockBackend, offset: number): Completion {
    return this.count === 1 ? disk.read(offset, this.view(0)) : disk.readPieces(offset, this);
  }

  /** Writes all of it to a drive. @param offset on the drive, bytes */
  writeTo(disk: BlockBackend, offset: number): Completion {
    return writeTo(disk, offset, this);
  }

  /** Takes bytes away from the end. @param bytes no more than there are */
  shorten(bytes: number): void {
    this.total -= bytes;
    while (bytes > 0) {
      const last = this.count - 1;
      const part = Math.min(bytes, this.lengths[last]!);
      this.lengths[last]! -= part;
      bytes -= part;
      if (this.lengths[last] === 0) this.count = last;
    }
  }
}

function grown(values: Float64Array): Float64Array<ArrayBuffer> {
  const more = new Float64Array(values.length * 4);
  more.set(values);
  return more;
}
