/**
 * The stream that a machine's state is: a header, sections, and a section that ends it. All numbers are little-endian.
 *
 * Header, 16 bytes:  0 "VRLYSTAT"   8 version of this format u32   12 CRC-32C of the bytes before u32
 *
 * Section:
 *
 *    0 type u8   1 length of the id u8   2 version of the contents u16   4 instance u32   8 length of the body u32
 *   12 id, UTF-8                         then the CRC-32C of all that u32
 *      body                              then the CRC-32C of the body u32
 *
 * What comes again in a later section of pages holds; all else comes once.
 */
import { crc32c } from '../host/crc32c.ts';
import { ByteReader, ByteWriter, CONTROL, type Fields } from './values.ts';

export const MAGIC = 'VRLYSTAT';
export const FORMAT_VERSION = 1;
export const HEADER_SIZE = 16;
export const SECTION_HEADER = 12;

export const SECTION = {
  /** A record of named fields (values.ts). */
  fields: 1,
  /** Pages of memory (ram.ts). */
  pages: 2,
  end: 3,
} as const;

/** Bytes of a section's body at most. */
export const MAX_BODY = 2 ** 24;

export interface SectionHead {
  readonly type: number;
  readonly id: string;
  readonly instance: number;
  readonly version: number;
}

export interface Section extends SectionHead {
  readonly body: Uint8Array;
}

const CRC_SIZE = 4;
const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
};

export function streamHeader(): Uint8Array {
  const out = new ByteWriter();
  out.raw(new TextEncoder().encode(MAGIC));
  out.u32(FORMAT_VERSION);
  out.u32(crc32c(out.written));
  return out.written.slice();
}

/**
 * @param body in pieces, which are not copied
 * @returns the section's bytes, in pieces
 * @throws Error for what does not fit
 */
export function sectionBytes({ type, id, instance, version }: SectionHead, ...body: readonly Uint8Array[]): Uint8Array[] {
  const length = body.reduce((sum, piece) => sum + piece.length, 0);
  if (length > MAX_BODY) throw new Error(`"${id}": ${length} bytes of state are more than ${MAX_BODY}`);
  const name = new TextEncoder().encode(id);
  const head = new ByteWriter();
  head.u8(type);
  head.u8(name.length);
  head.u8(version & 0xff);
  head.u8(version >> 8);
  head.u32(instance);
  head.u32(length);
  head.raw(name);
  head.u32(crc32c(head.written));
  const sum = body.reduce((before, piece) => crc32c(piece, before), 0);
  return [head.written.slice(), ...body, u32(sum)];
}

export function fieldsSection(id: string, version: number, fields: Fields, instance = 0): Uint8Array[] {
  const body = new ByteWriter();
  body.fields(fields);
  return sectionBytes({ type: SECTION.fields, id, instance, version }, body.written);
}

export const endSection = (): Uint8Array[] =>
  sectionBytes({ type: SECTION.end, id: 'end', instance: 0, version: 1 }, new Uint8Array(0));

/** Bytes as they come, in pieces of any size, taken as they are needed. */
class Input {
  private readonly source: AsyncIterator<Uint8Array>;
  private pieces: Uint8Array[] = [];
  private have = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.source = source[Symbol.asyncIterator]();
  }

  /** @returns so many bytes, or null when there are fewer: room is made only for what has come */
  async take(length: number): Promise<Uint8Array | null> {
    while (this.have < length) {
      const { value, done } = await this.source.next();
      if (done === true) return null;
      if (value.length === 0) continue;
      this.pieces.push(value);
      this.have += value.length;
    }
    this.have -= length;
    return this.cut(length);
  }

  private cut(length: number): Uint8Array {
    const first = this.pieces[0];
    if (first !== undefined && first.length > length) {
      this.pieces[0] = first.subarray(length);
      return first.subarray(0, length);
    }
    const out = new Uint8Array(length);
    let at = 0;
    while (at < length) {
      const piece = this.pieces[0]!;
      const part = piece.subarray(0, length - at);
      out.set(part, at);
      at += part.length;
      if (part.length === piece.length) this.pieces.shift();
      else this.pieces[0] = piece.subarray(part.length);
    }
    return out;
  }

  /** Nothing more is wanted. */
  async end(): Promise<void> {
    await this.source.return?.();
  }
}

/** Takes a stream apart. Whatever is wrong with it is one line that says where. */
export class StreamReader {
  private readonly input: Input;
  private count = 0;
  private last = 'the header';

  constructor(source: AsyncIterable<Uint8Array>) {
    this.input = new Input(source);
  }

  /** Before the first section. @throws Error */
  async begin(): Promise<void> {
    const bytes = await this.input.take(HEADER_SIZE);
    if (bytes === null) throw new Error('saved state: ends within its header');
    const magic = String.fromCharCode(...bytes.subarray(0, MAGIC.length));
    if (magic !== MAGIC) throw new Error(`saved state: does not begin with "${MAGIC}"`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (view.getUint32(12, true) !== crc32c(bytes.subarray(0, 12))) throw new Error('saved state: damaged header (checksum)');
    const version = view.getUint32(8, true);
    if (version !== FORMAT_VERSION) {
      throw new Error(`saved state: has version ${version} of the format, of which only ${FORMAT_VERSION} can be read`);
    }
  }

  /** @throws Error */
  async next(): Promise<Section> {
    this.count++;
    const bytes = await this.take(SECTION_HEADER, 'its header');
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const [type, idLength, version] = [bytes[0]!, bytes[1]!, view.getUint16(2, true)];
    const [instance, length] = [view.getUint32(4, true), view.getUint32(8, true)];
    const rest = await this.take(idLength + CRC_SIZE, 'its header');
    const name = rest.subarray(0, idLength);
    if (crc32c(name, crc32c(bytes)) !== last32(rest)) throw this.bad('has a damaged header (checksum)');
    const id = new TextDecoder().decode(name);
    if (CONTROL.test(id)) throw this.bad('has an id with control characters');
    const where = `"${id}"${instance === 0 ? '' : ` (instance ${instance})`}`;
    if (length > MAX_BODY) throw this.bad(`${where} claims ${length} bytes, more than ${MAX_BODY}`);
    const body = await this.take(length + CRC_SIZE, where);
    const contents = body.subarray(0, length);
    if (crc32c(contents) !== last32(body)) throw this.bad(`${where} is damaged (checksum)`);
    this.last = where;
    return { type, id, instance, version, body: contents };
  }

  /** Nothing follows the end. */
  end(): Promise<void> {
    return this.input.end();
  }

  private async take(length: number, what: string): Promise<Uint8Array> {
    const bytes = await this.input.take(length);
    if (bytes === null) throw this.bad(`${what} is cut off: the stream ends here`);
    return bytes;
  }

  private bad(what: string): Error {
    return new Error(`saved state: section ${this.count} (after ${this.last}): ${what}`);
  }
}

const last32 = (bytes: Uint8Array): number =>
  new DataView(bytes.buffer, bytes.byteOffset + bytes.length - CRC_SIZE, CRC_SIZE).getUint32(0, true);

/** @throws Error naming the section and the field */
export function fieldsOf({ id, body }: Section): Fields {
  try {
    return new ByteReader(body).onlyFields();
  } catch (error) {
    throw new Error(`saved state: section "${id}": ${(error as Error).message}`);
  }
}
