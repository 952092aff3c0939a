/** Compression as disk images use it, by the page's streams. */

async function through(data: Uint8Array, stream: GenericTransformStream): Promise<Uint8Array> {
  const body = new Response(data.slice().buffer).body!;
  return new Uint8Array(await new Response(body.pipeThrough(stream as ReadableWritablePair<Uint8Array>)).arrayBuffer());
}

async function exactly(length: number, packed: Uint8Array, format: CompressionFormat): Promise<Uint8Array> {
  const reader = new Response(packed.slice().buffer).body!.pipeThrough(new DecompressionStream(format)).getReader();
  const data = new Uint8Array(length);
  let at = 0;
  // Streams complain about what follows the end of the data only after they have handed the data over.
  while (at < length) {
    const { value, done } = await reader.read();
    if (done) throw new Error('compressed data are damaged');
    data.set(value.subarray(0, length - at), at);
    at += value.length;
  }
  reader.cancel().catch(() => undefined);
  return data;
}

/** A page's streams have a larger window than qcow2's readers, so that nothing is compressed by them. */
export const deflateRaw = (data: Uint8Array, windowBits: number): Promise<Uint8Array> =>
  windowBits < 15 ? Promise.resolve(data) : through(data, new CompressionStream('deflate-raw'));
export const deflate = (data: Uint8Array): Promise<Uint8Array> => through(data, new CompressionStream('deflate'));
export const inflateRaw = (packed: Uint8Array, length: number): Promise<Uint8Array> => exactly(length, packed, 'deflate-raw');
export const inflate = (packed: Uint8Array, length: number): Promise<Uint8Array> => exactly(length, packed, 'deflate');

function missing(): never {
  throw new Error('Zstandard is not available in a web page');
}

export const zstdCompress = (_data: Uint8Array): Promise<Uint8Array> => missing();
export const zstdDecompress = (_packed: Uint8Array, _length: number): Uint8Array => missing();
export const zstdCompressFast = (_data: Uint8Array): Promise<Uint8Array> | null => null;
