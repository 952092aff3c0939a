/** A queue of bytes in memory that grows as it fills, within a budget shared by many. */

/** Memory that a network's queues may take together. Small queues always get theirs. */
export class Budget {
  private left: number;

  constructor(bytes: number) {
    this.left = bytes;
  }

  /** @returns false when that much is not left */
  take(bytes: number): boolean {
    if (bytes > this.left) return false;
    this.left -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.left += bytes;
  }

  /** Queues should not ask for more than they must. */
  get scarce(): boolean {
    return this.left < 1 << 24;
  }
}

/** Every queue's due, bytes, whatever others have taken. */
const LEAST = 1 << 14;
const EMPTY = new Uint8Array(0);

/** Bytes are named by their offset from the queue's head. */
export class ByteRing {
  /** Bytes in the queue. */
  length = 0;
  private readonly most: number;
  private readonly budget: Budget;
  private bytes = EMPTY;
  private head = 0;

  /** @param most bytes that it may ever hold, a power of two */
  constructor(most: number, budget: Budget) {
    this.most = most;
    this.budget = budget;
  }

  /** Makes room for bytes up to this offset. @returns false when that cannot be had */
  reserve(end: number): boolean {
    const { bytes } = this;
    if (end <= bytes.length) return true;
    if (end > this.most) return false;
    let size = Math.max(bytes.length, LEAST);
    while (size < end) size *= 2;
    const charged = (capacity: number): number => Math.max(0, capacity - LEAST);
    if (!this.budget.take(charged(size) - charged(bytes.length))) return false;
    const grown = new Uint8Array(size);
    // What lies beyond `length` may have come out of order: all of it moves.
    const first = bytes.length - this.head;
    grown.set(bytes.subarray(this.head), 0);
    grown.set(bytes.subarray(0, this.head), first);
    this.bytes = grown;
    this.head = 0;
    return true;
  }

  /** Puts bytes at an offset that `reserve` has made room for; `length` stays as it is. */
  place(offset: number, data: Uint8Array): void {
    const { bytes } = this;
    const at = (this.head + offset) & (bytes.length - 1);
    const first = Math.min(data.length, bytes.length - at);
    if (first === data.length) bytes.set(data, at);
    else {
      bytes.set(data.subarray(0, first), at);
      bytes.set(data.subarray(first), 0);
    }
  }

  /** @returns false when there is no room for all of it: none is taken */
  append(data: Uint8Array): boolean {
    if (!this.reserve(this.length + data.length)) return false;
    this.place(this.length, data);
    this.length += data.length;
    return true;
  }

  /** Copies bytes that are in the queue. */
  copyTo(offset: number, into: Uint8Array, at: number, count: number): void {
    const { bytes } = this;
    const from = (this.head + offset) & (bytes.length - 1);
    const first = Math.min(count, bytes.length - from);
    into.set(bytes.subarray(from, from + first), at);
    if (first < count) into.set(bytes.subarray(0, count - first), at + first);
  }

  /** The bytes at the head that lie in one piece, as they are in memory: valid until they are dropped. */
  front(): Uint8Array {
    return this.bytes.subarray(this.head, this.head + Math.min(this.length, this.bytes.length - this.head));
  }

  /** Takes bytes from the head. */
  drop(count: number): void {
    this.length -= count;
    if (this.bytes.length > 0) this.head = (this.head + count) & (this.bytes.length - 1);
  }

  /** Gives the memory of an empty queue back. */
  trim(): void {
    if (this.length > 0 || this.bytes.length === 0) return;
    this.budget.give(Math.max(0, this.bytes.length - LEAST));
    this.bytes = EMPTY;
    this.head = 0;
  }
}
