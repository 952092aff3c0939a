/** A set of the 256 interrupt vectors in eight 32-bit words, laid out as ISR, TMR and IRR are. */
export class VectorSet {
  readonly words: number[];

  constructor(words: number[]) {
    this.words = words;
  }

  set(vector: number): void {
    this.words[vector >> 5] = (this.words[vector >> 5]! | (1 << (vector & 31))) >>> 0;
  }

  clear(vector: number): void {
    this.words[vector >> 5] = (this.words[vector >> 5]! & ~(1 << (vector & 31))) >>> 0;
  }

  has(vector: number): boolean {
    return (this.words[vector >> 5]! & (1 << (vector & 31))) !== 0;
  }

  /** @returns -1 when empty */
  highest(): number {
    for (let i = 7; i >= 0; i--) {
      const word = this.words[i]!;
      if (word !== 0) return i * 32 + 31 - Math.clz32(word);
    }
    return -1;
  }
}
