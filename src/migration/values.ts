/**
 * Values of saved states as bytes. Each begins with a byte that says what it is:
 *
 *   0 false   1 true
 *   2 a whole number from 0 up: varint   3 one below 0: varint of its opposite
 *   4 any other number: 8 bytes, IEEE 754, little-endian
 *   5 text: length (varint), UTF-8   6 bytes: length (varint), bytes
 *   7 an integer of any size from 0 up: length (varint), little-endian   8 one below 0: the same of its opposite
 *   9 a list: number of values (varint), values   10 a record: number of fields (varint), each a name (as text
 *   without its first byte, of 1 to 255 bytes) and a value
 *
 * A varint has seven bits in each byte, the lowest first; all bytes but the last have bit 7 set.
 */
import type { StateValue } from '../machine/interfaces.ts';

const FALSE = 0;
const TRUE = 1;
const NATURAL = 2;
const NEGATIVE = 3;
const FLOAT = 4;
const TEXT = 5;
const BYTES = 6;
const BIG = 7;
const BIG_NEGATIVE = 8;
const LIST = 9;
const RECORD = 10;

/** Lists and records within each other. */
export const MAX_DEPTH = 16;
export const MAX_NAME = 255;

/** Characters that terminals may take for commands. */
export const CONTROL = /[\p{Cc}\p{Zl}\p{Zp}]/u;

export type Fields = { [name: string]: StateValue };

/** Grows as it is written to. */
export class ByteWriter {
  private bytes = new Uint8Array(1024);
  private view = new DataView(this.bytes.buffer);
  private used = 0;

  /** What has been written: a view that the next write may make stale. */
  get written(): Uint8Array {
    return this.bytes.subarray(0, this.used);
  }

  u8(value: number): void {
    this.reserve(1);
    this.bytes[this.used++] = value;
  }

  u32(value: number): void {
    this.reserve(4);
    this.view.setUint32(this.used, value, true);
    this.used += 4;
  }

  f64(value: number): void {
    this.reserve(8);
    this.view.setFloat64(this.used, value, true);
    this.used += 8;
  }

  /** @param value 0 to 2^53 - 1 */
  varint(value: number): void {
    while (value >= 0x80) {
      this.u8(0x80 | (value % 0x80));
      value = Math.floor(value / 0x80);
    }
    this.u8(value);
  }

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.bytes.set(bytes, this.used);
    this.used += bytes.length;
  }

  /** @throws Error for a text that is no name */
  name(text: string): void {
    const bytes = new TextEncoder().encode(text);
    if (bytes.length === 0 || bytes.length > MAX_NAME) throw new Error(`a name of ${bytes.length} bytes cannot be saved`);
    this.varint(bytes.length);
    this.raw(bytes);
  }

  value(value: StateValue): void {
    if (typeof value === 'boolean') return this.u8(value ? TRUE : FALSE);
    if (typeof value === 'number') return this.number(value);
    if (typeof value === 'bigint') return this.big(value);
    if (typeof value === 'string') return this.sized(TEXT, new TextEncoder().encode(value));
    if (value instanceof Uint8Array) return this.sized(BYTES, value);
    if (Array.isArray(value)) {
      this.u8(LIST);
      this.varint(value.length);
      for (const item of value) this.value(item);
      return;
    }
    this.u8(RECORD);
    this.fields(value);
  }

  /** A record without its first byte. */
  fields(fields: Fields): void {
    const entries = Object.entries(fields);
    this.varint(entries.length);
    for (const [name, value] of entries) {
      this.name(name);
      this.value(value);
    }
  }

  private number(value: number): void {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      this.u8(FLOAT);
      return this.f64(value);
    }
    this.u8(value < 0 ? NEGATIVE : NATURAL);
    this.varint(Math.abs(value));
  }

  private big(value: bigint): void {
    const bytes: number[] = [];
    for (let rest = value < 0n ? -value : value; rest > 0n; rest >>= 8n) bytes.push(Number(rest & 0xffn));
    this.sized(value < 0n ? BIG_NEGATIVE : BIG, Uint8Array.from(bytes));
  }

  private sized(kind: number, bytes: Uint8Array): void {
    this.u8(kind);
    this.varint(bytes.length);
    this.raw(bytes);
  }

  private reserve(more: number): void {
    if (this.used + more <= this.bytes.length) return;
    const larger = new Uint8Array(Math.max(this.bytes.length * 2, this.used + more));
    larger.set(this.written);
    this.bytes = larger;
    this.view = new DataView(larger.buffer);
  }
}

/** Reads what nobody vouches for: nothing is made that is larger than the bytes that are there. */
export class ByteReader {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private at = 0;
  /** What is being read, for messages. */
  private readonly path: string[] = [];

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  u8(): number {
    this.need(1);
    return this.bytes[this.at++]!;
  }

  u32(): number {
    this.need(4);
    this.at += 4;
    return this.view.getUint32(this.at - 4, true);
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.u8();
      value += (byte & 0x7f) * scale;
      if (value > Number.MAX_SAFE_INTEGER) throw this.bad('is a number beyond 2^53');
      if (byte < 0x80) return value;
      if (scale >= 2 ** 49) throw this.bad('is a number that does not end');
    }
  }

  /** A view of the next bytes. */
  raw(length: number): Uint8Array {
    this.need(length);
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  name(): string {
    const length = this.varint();
    if (length === 0 || length > MAX_NAME) throw this.bad(`has a name of ${length} bytes`);
    const name = this.text(length);
    // Names are told to people.
    if (CONTROL.test(name)) throw this.bad('has a name with control characters');
    return name;
  }

  /** All that is left, as a record without its first byte. @throws Error naming the field */
  onlyFields(): Fields {
    const fields = this.fields(1);
    if (this.left > 0) throw new Error(`${this.left} bytes follow the last field`);
    return fields;
  }

  private fields(depth: number): Fields {
    const count = this.varint();
    const fields: Fields = {};
    for (let i = 0; i < count; i++) {
      const name = this.name();
      this.path.push(name);
      if (Object.hasOwn(fields, name)) throw this.bad('is there twice');
      const value = this.value(depth);
      // Names like __proto__ are names like any other.
      Object.defineProperty(fields, name, { value, enumerable: true, writable: true, configurable: true });
      this.path.pop();
    }
    return fields;
  }

  private value(depth: number): StateValue {
    const kind = this.u8();
    switch (kind) {
      case FALSE:
      case TRUE:
        return kind === TRUE;
      case NATURAL:
        return this.varint();
      case NEGATIVE:
        return -this.varint();
      case FLOAT:
        this.need(8);
        this.at += 8;
        return this.view.getFloat64(this.at - 8, true);
      case TEXT:
        return this.text(this.varint());
      case BYTES:
        return this.raw(this.varint()).slice();
      case BIG:
        return this.big();
      case BIG_NEGATIVE:
        return -this.big();
      case LIST:
      case RECORD:
        if (depth >= MAX_DEPTH) throw this.bad('is nested too deeply');
        return kind === LIST ? this.list(depth + 1) : this.fields(depth + 1);
      default:
        throw this.bad(`has a value of kind ${kind}, which is not known`);
    }
  }

  private list(depth: number): StateValue[] {
    const count = this.varint();
    const items: StateValue[] = [];
    // Each takes a byte at least, so that a false count ends with the bytes.
    for (let i = 0; i < count; i++) items.push(this.value(depth));
    return items;
  }

  private big(): bigint {
    const bytes = this.raw(this.varint());
    if (bytes.length > 64) throw this.bad(`is an integer of ${bytes.length} bytes`);
    let value = 0n;
    for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
    return value;
  }

  private text(length: number): string {
    const bytes = this.raw(length);
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw this.bad('has a text that is not UTF-8');
    }
  }

  private need(bytes: number): void {
    if (bytes > this.left) throw this.bad(`ends ${bytes - this.left} bytes too early`);
  }

  private bad(what: string): Error {
    return new Error(this.path.length === 0 ? `what it holds ${what}` : `field "${this.path.join('.')}" ${what}`);
  }
}
