/** Pictures as PNG files: ISO/IEC 15948. */
import type { Picture } from '../machine/interfaces.ts';

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
/** Eight bits each of red, green and blue. */
const DEPTH = 8;
const COLOR_RGB = 2;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let i = 0; i < 8; i++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

function crc(data: Uint8Array): number {
  let c = 0xffffffff;
  for (const byte of data) c = CRC_TABLE[(c ^ byte) & 0xff]! ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

/** Length, type, data, and a check of the latter two. */
function chunk(type: string, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(12 + data.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  out.set(new TextEncoder().encode(type), 4);
  out.set(data, 8);
  view.setUint32(8 + data.length, crc(out.subarray(4, 8 + data.length)));
  return out;
}

async function deflate(data: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([data]).stream().pipeThrough(new CompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export async function encodePng({ width, height, pixels }: Picture): Promise<Uint8Array> {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([DEPTH, COLOR_RGB], 8);
  // Each line begins with the number of its filter: none.
  const lines = new Uint8Array(height * (1 + 3 * width));
  let out = 0;
  for (let y = 0, at = 0; y < height; y++) {
    out++;
    for (let x = 0; x < width; x++, at += 4) {
      lines[out++] = pixels[at]!;
      lines[out++] = pixels[at + 1]!;
      lines[out++] = pixels[at + 2]!;
    }
  }
  const parts = [SIGNATURE, chunk('IHDR', header), chunk('IDAT', await deflate(lines)), chunk('IEND', new Uint8Array(0))];
  return new Uint8Array(await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer());
}
