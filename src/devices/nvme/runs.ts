/** Where a command's data lies in memory: physical region pages, NVM Express 1.4, 4.3. */
import type { GuestMemory } from '../../machine/interfaces.ts';
import { PieceList } from '../pieces.ts';
import { STATUS } from './spec.ts';

/** Ranges of `ram`, in order; neighbours are one. */
export class Runs extends PieceList {
  /**
   * Follows a command's PRPs.
   * @param length bytes @param page bytes of a memory page
   * @returns status
   */
  follow(memory: GuestMemory, prp1: number, prp2: number, length: number, page: number): number {
    this.clear(memory.ram);
    if (length === 0) return STATUS.success;
    if (prp1 % 4 !== 0) return STATUS.prpOffset;
    const first = Math.min(length, page - (prp1 % page));
    if (!this.find(memory, prp1, first)) return STATUS.dataTransfer;
    const left = length - first;
    if (left === 0) return STATUS.success;
    if (left > page) return this.followList(memory, prp2, left, page);
    if (prp2 % page !== 0) return STATUS.prpOffset;
    return this.find(memory, prp2, left) ? STATUS.success : STATUS.dataTransfer;
  }

  /** A list of 64-bit entries, of which the last in a page leads to the next page of the list if more is needed. */
  private followList(memory: GuestMemory, list: number, left: number, page: number): number {
    if (list % 8 !== 0) return STATUS.prpOffset;
    let at = list;
    while (left > 0) {
      // A page of the list is entered at its start, so that some data is found in each: a list in a circle ends, too.
      if (memory.ramOffset(at, 8) < 0) return STATUS.dataTransfer;
      const entry = memory.read(at + 4, 4) * 2 ** 32 + memory.read(at, 4);
      if (entry % page !== 0) return STATUS.prpOffset;
      if (at % page === page - 8 && left > page) {
        at = entry;
        continue;
      }
      const part = Math.min(left, page);
      if (!this.find(memory, entry, part)) return STATUS.dataTransfer;
      left -= part;
      at += 8;
    }
    return STATUS.success;
  }

  private find(memory: GuestMemory, at: number, length: number): boolean {
    const offset = memory.ramOffset(at, length);
    if (offset < 0) return false;
    this.append(offset, length);
    return true;
  }
}
