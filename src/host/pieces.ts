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

/** @returns bytes in one place as the only piece */
export function onePiece(bytes: Uint8Array): Pieces {
  const { length } = bytes;
  return { memory: bytes, offsets: new Float64Array(1), lengths: Float64Array.of(length), count: 1, total: length };
}

interface Writable<Result> {
  write(offset: number, from: Uint8Array): Result;
  writePieces(offset: number, from: Pieces): Result;
}

/** Writes pieces, one by itself as plain bytes: there is a shorter way for these. */
export function writeTo<Result>(disk: Writable<Result>, offset: number, from: Pieces): Result {
  const [first] = from.offsets;
  return from.count === 1 ? disk.write(offset, from.memory.subarray(first, first! + from.total)) : disk.writePieces(offset, from);
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

/** @returns a part of the pieces, in places of its own. @param from bytes from their start */
export function partOf(pieces: Pieces, from: number, length: number): Pieces {
  if (from === 0 && length === pieces.total) return pieces;
  const { memory, count } = pieces;
  const part = { memory, offsets: new Float64Array(count), lengths: new Float64Array(count), count: 0, total: length };
  for (let i = 0, start = 0; i < count && start < from + length; start += pieces.lengths[i++]!) {
    const first = Math.max(from, start);
    const bytes = Math.min(from + length, start + pieces.lengths[i]!) - first;
    if (bytes <= 0) continue;
    part.offsets[part.count] = pieces.offsets[i]! + first - start;
    part.lengths[part.count++] = bytes;
  }
  return part;
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
