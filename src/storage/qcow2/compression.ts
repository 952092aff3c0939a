/** Compressed clusters. */
import { deflateRaw, inflateRaw, zstdCompress, zstdDecompress } from '#host/compression';
import type { Maybe } from '../task.ts';
import type { Compression } from './header.ts';

/** Window of 4 KiB, as the format has it. */
const WINDOW_BITS = 12;
const ZSTD_MAGIC = 0xfd2fb528;
const RLE_BLOCK = 1;

export function pack(how: Compression, cluster: Uint8Array): Maybe<Uint8Array> {
  return how === 'zlib' ? deflateRaw(cluster, WINDOW_BITS) : zstdCompress(cluster);
}

/**
 * @param packed compressed data, with anything after its end
 * @param length bytes of the cluster
 * @throws Error when the data are not what they should be
 */
export function unpack(how: Compression, packed: Uint8Array, length: number): Maybe<Uint8Array> {
  if (how === 'zlib') return inflateRaw(packed, length);
  return zstdDecompress(packed.subarray(0, zstdLength(packed)), length);
}

/** Length of a Zstandard frame (RFC 8878, 3.1.1): nothing says it but the headers of its blocks. */
function zstdLength(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 9 || view.getUint32(0, true) !== ZSTD_MAGIC) throw new Error('a compressed cluster is damaged');
  const descriptor = bytes[4]!;
  const single = (descriptor >> 5) & 1;
  const sizeBytes = [single, 2, 4, 8][descriptor >> 6]!;
  let at = 5 + (1 - single) + [0, 1, 2, 4][descriptor & 3]! + sizeBytes;
  for (;;) {
    if (at + 3 > bytes.length) throw new Error('a compressed cluster is damaged');
    const header = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16);
    at += 3 + (((header >> 1) & 3) === RLE_BLOCK ? 1 : header >> 3);
    if (header & 1) break;
  }
  if (descriptor & 4) at += 4;
  if (at > bytes.length) throw new Error('a compressed cluster is damaged');
  return at;
}
