/** Little-endian byte strings of growing length, for tables and headers. */
export class ByteWriter {
  private data = new Uint8Array(256);
  length = 0;

  u8(...values: number[]): this {
    for (const value of values) this.bytes([value & 0xff]);
    return this;
  }

  u16(value: number): this {
    return this.u8(value, value >>> 8);
  }

  u32(value: number): this {
    return this.u8(value, value >>> 8, value >>> 16, value >>> 24);
  }

  u64(value: number): this {
    return this.u32(value % 2 ** 32).u32(Math.floor(value / 2 ** 32));
  }

  /** Text padded to a fixed length. */
  text(value: string, length = value.length, pad = 0): this {
    for (let i = 0; i < length; i++) this.u8(i < value.length ? value.charCodeAt(i) : pad);
    return this;
  }

  bytes(values: ArrayLike<number>): this {
    while (this.length + values.length > this.data.length) {
      const larger = new Uint8Array(this.data.length * 2);
      larger.set(this.data);
      this.data = larger;
    }
    this.data.set(values, this.length);
    this.length += values.length;
    return this;
  }

  zeros(count: number): this {
    return this.bytes(new Uint8Array(count));
  }

  finish(): Uint8Array {
    return this.data.slice(0, this.length);
  }
}

/** Sets the byte at `at` so that `length` bytes from `from` sum to zero. */
export function fixChecksum(data: Uint8Array, at: number, from = 0, length = data.length): void {
  data[at] = 0;
  data[at] = -sumOf(data.subarray(from, from + length)) & 0xff;
}

export function sumOf(data: Uint8Array): number {
  let sum = 0;
  for (const byte of data) sum = (sum + byte) & 0xff;
  return sum;
}
