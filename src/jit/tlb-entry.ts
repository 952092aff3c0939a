/** Entries of the TLB, and of the table of larger pages beside it, as layout.ts draws them. */
import { TLB_ADDEND } from './layout.ts';

/** Address in the memory of a byte, by the TLB entry at a word index. */
export function hostBy(w: Int32Array, at: number, low: number, high: number): number {
  const addendLow = w[at + (TLB_ADDEND >> 2)]! >>> 0;
  const sum = (low >>> 0) + addendLow;
  const carry = sum > 0xffffffff ? 1 : 0;
  return ((high + w[at + (TLB_ADDEND >> 2) + 1]! + carry) >>> 0) * 0x100000000 + (sum >>> 0);
}

/** Sets what leads from a page's virtual address to its address in the memory in the TLB entry at a word index. */
export function setAddend(w: Int32Array, at: number, page: number, high: number, host: number): void {
  const difference = (host % 0x100000000) - (page >>> 0);
  w[at + (TLB_ADDEND >> 2)] = difference;
  w[at + (TLB_ADDEND >> 2) + 1] = Math.floor(host / 0x100000000) - high - (difference < 0 ? 1 : 0);
}

/** Sets the tag at a word index: the page, or none where the access is not permitted. */
export function setTag(w: Int32Array, at: number, page: number, high: number, permitted: number): void {
  w[at] = permitted ? page : -1;
  w[at + 1] = permitted ? high : -1;
}
