/** Memory that a request names in many places, put together by a device. */
import type { Pieces } from '../host/pieces.ts';

const FEW = 16;

export class PieceList implements Pieces {
  memory = new Uint8Array(0);
  offsets = new Float64Array(FEW);
  lengths = new Float64Array(FEW);
  count = 0;
  total = 0;

  clear(memory: Uint8Array): void {
    this.memory = memory as Uint8Array<ArrayBuffer>;
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
}

function grown(values: Float64Array): Float64Array<ArrayBuffer> {
  const more = new Float64Array(values.length * 4);
  more.set(values);
  return more;
}
