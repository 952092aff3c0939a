/** Compression as disk images use it. */

/** Loaded when it is needed: most images are not compressed. */
const zlib = () => process.getBuiltinModule('node:zlib');

const LEVEL = 6;
const MEMORY_LEVEL = 9;

const failed = (error: unknown): Error => new Error(`the data cannot be compressed (${(error as Error).message})`);

/** @param windowBits base 2 logarithm of the window */
export function deflateRaw(data: Uint8Array, windowBits: number): Promise<Uint8Array> {
  const options = { level: LEVEL, windowBits, memLevel: MEMORY_LEVEL };
  return new Promise((resolve, reject) =>
    zlib().deflateRaw(data, options, (error, packed) => (error ? reject(failed(error)) : resolve(packed))),
  );
}

/** With zlib's frame. */
export function deflate(data: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) =>
    zlib().deflate(data, (error, packed) => (error ? reject(failed(error)) : resolve(packed))),
  );
}

export function zstdCompress(data: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) =>
    zlib().zstdCompress(data, (error, packed) => (error ? reject(failed(error)) : resolve(packed))),
  );
}

/** Fast rather than small. @returns null where the host has no such codec */
export function zstdCompressFast(data: Uint8Array): Promise<Uint8Array> | null {
  const { constants, zstdCompress: compress } = zlib();
  const options = { params: { [constants.ZSTD_c_compressionLevel]: 1 }, chunkSize: 1 << 20 };
  return new Promise((resolve, reject) =>
    compress(data, options, (error, packed) => (error ? reject(failed(error)) : resolve(packed))),
  );
}

function exactly(length: number, unpack: () => Uint8Array): Uint8Array {
  let data: Uint8Array | null = null;
  try {
    data = unpack();
  } catch {
    // Told below: the library's words say nothing to a user.
  }
  if (data === null || data.length !== length) throw new Error('compressed data are damaged');
  return data;
}

/** @param length what comes out, neither more nor less @throws Error */
export function inflateRaw(packed: Uint8Array, length: number): Uint8Array {
  return exactly(length, () =>
    zlib().inflateRawSync(packed, { maxOutputLength: length, finishFlush: zlib().constants.Z_SYNC_FLUSH }),
  );
}

/** The same, with zlib's frame. */
export function inflate(packed: Uint8Array, length: number): Uint8Array {
  return exactly(length, () =>
    zlib().inflateSync(packed, { maxOutputLength: length, finishFlush: zlib().constants.Z_SYNC_FLUSH }),
  );
}

export function zstdDecompress(packed: Uint8Array, length: number): Uint8Array {
  return exactly(length, () => zlib().zstdDecompressSync(packed, { maxOutputLength: length }));
}
