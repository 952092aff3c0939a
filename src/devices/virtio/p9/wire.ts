/** Messages of 9P2000.L: numbers are little-endian, texts have their length in 16 bits before them. */

/** A message that ends too early, or is otherwise not what it should be. */
export class WireError extends Error {}

/** Names are strings of one character for each byte. */
export class Reader {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private at: number;

  constructor(bytes: Uint8Array, at = 0) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = at;
  }

  u8(): number {
    return this.view.getUint8(this.take(1));
  }

  u16(): number {
    return this.view.getUint16(this.take(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  u64(): bigint {
    return this.view.getBigUint64(this.take(8), true);
  }

  /** 64 bits as far as numbers are exact; what is beyond is too large for anything. */
  size(): number {
    return Number(this.u64());
  }

  text(): string {
    const length = this.u16();
    const at = this.take(length);
    return String.fromCharCode(...this.bytes.subarray(at, at + length));
  }

  private take(length: number): number {
    const { at } = this;
    if (at + length > this.bytes.length) throw new WireError('a message that ends too early');
    this.at += length;
    return at;
  }
}

/** Bytes of a qid: type 8, version 32, path 64. */
export const QID_SIZE = 13;
export type Qid = { type: number; version: number; path: bigint };

export class Writer {
  length = 0;
  private bytes = new Uint8Array(256);
  private view = new DataView(this.bytes.buffer);

  get data(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }

  clear(): this {
    this.length = 0;
    return this;
  }

  u8(value: number): this {
    const at = this.make(1);
    this.view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.make(2);
    this.view.setUint16(at, value, true);
    return this;
  }

  u32(value: number): this {
    const at = this.make(4);
    this.view.setUint32(at, value, true);
    return this;
  }

  u64(value: bigint | number): this {
    const at = this.make(8);
    this.view.setBigUint64(at, BigInt(value), true);
    return this;
  }

  text(value: string): this {
    this.u16(value.length);
    const at = this.make(value.length);
    for (let i = 0; i < value.length; i++) this.bytes[at + i] = value.charCodeAt(i);
    return this;
  }

  qid({ type, version, path }: Qid): this {
    return this.u8(type).u32(version).u64(path);
  }

  /** Puts 32 bits where there are some already. */
  patch(at: number, value: number): this {
    this.view.setUint32(at, value, true);
    return this;
  }

  /** Makes room, for which there may be other bytes and another view afterwards. */
  private make(length: number): number {
    const at = this.length;
    this.length += length;
    if (this.length > this.bytes.length) {
      const larger = new Uint8Array(Math.max(this.length, 2 * this.bytes.length));
      larger.set(this.bytes);
      this.bytes = larger;
      this.view = new DataView(larger.buffer);
    }
    return at;
  }
}
