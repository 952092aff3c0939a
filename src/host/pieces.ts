/** Memory that one request names in many places: what drives read and write there without a copy. */

/** Stretches of one buffer, in the order of the request. */
export interface Pieces {
  readonly memory: Uint8Array;
  /** Of each piece, bytes from the start of `memory`. */
  readonly offsets: Float64Array;
  readonly lengths: Float64Array;
  readonly count: number;
  /** Bytes in all. */
  readonly total: number;
}

/** Copies all pieces to one place, of as many bytes as they have. */
export function gather({ memory, offsets, lengths, count }: Pieces, into: Uint8Array): void {
  let done = 0;
  for (let i = 0; i < count; i++) {
    into.set(memory.subarray(offsets[i]!, offsets[i]! + lengths[i]!), done);
    done += lengths[i]!;
  }
}

/** Copies from one place to all pieces, as many bytes as they have. */
export function scatter(from: Uint8Array, { memory, offsets, lengths, count }: Pieces): void {
  let done = 0;
  for (let i = 0; i < count; i++) {
    memory.set(from.subarray(done, done + lengths[i]!), offsets[i]!);
    done += lengths[i]!;
  }
}

/** @returns what the pieces are from byte `from` on, as arrays in place */
export function viewsOf({ memory, offsets, lengths, count }: Pieces, from = 0): Uint8Array[] {
  const views: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    const skipped = Math.min(from, lengths[i]!);
    from -= skipped;
    if (skipped < lengths[i]!) views.push(memory.subarray(offsets[i]! + skipped, offsets[i]! + lengths[i]!));
  }
  return views;
}

/** Most bytes of a spare buffer, and how many are kept. */
const SPARE_MOST = 1 << 20;
const SPARES = 8;
const spares: Uint8Array[] = [];

/** @returns memory for a copy of pieces, whatever it contains, for the caller until it is given back */
export function takeBuffer(length: number): Uint8Array {
  if (length > SPARE_MOST) return new Uint8Array(length);
  const spare = spares.pop() ?? new Uint8Array(SPARE_MOST);
  return spare.subarray(0, length);
}

export function giveBuffer({ buffer }: Uint8Array): void {
  if (buffer.byteLength === SPARE_MOST && spares.length < SPARES) spares.push(new Uint8Array(buffer));
}
