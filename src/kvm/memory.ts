/** A VM's memory slots, kept as the board's memory map says. */
import type { VisibleMemory } from '../machine/address-space.ts';
import type { Vm } from './vm.ts';

/** A board's guest-physical memory. */
export interface MemoryMap {
  visibleMemory(): VisibleMemory[];
}

type Slot = VisibleMemory & { readonly slot: number };

const sameRange = (a: VisibleMemory, b: VisibleMemory): boolean =>
  a.base === b.base && a.size === b.size && a.hostOffset === b.hostOffset && a.writable === b.writable;

export class MemorySlots {
  private readonly vm: Vm;
  private readonly map: MemoryMap;
  /** Address in this process of the board's buffer. */
  private readonly origin: bigint;
  private readonly alone: (change: () => void) => void;
  private slots: Slot[] = [];
  private readonly free: number[] = [];
  private highest = 0;

  /** @param alone carries a change out while no vCPU is in the guest */
  constructor(vm: Vm, map: MemoryMap, origin: bigint, alone: (change: () => void) => void) {
    this.alone = alone;
    this.vm = vm;
    this.map = map;
    this.origin = origin;
  }

  /** @throws SystemCallError */
  update(): void {
    const wanted = this.map.visibleMemory();
    const kept = this.slots.filter((slot) => wanted.some((range) => sameRange(range, slot)));
    const gone = this.slots.filter((slot) => !kept.includes(slot));
    const added = wanted.filter((range) => !kept.some((slot) => sameRange(range, slot)));
    // Between the old and the new, there is nothing.
    if (gone.length > 0) this.alone(() => this.change(kept, gone, added));
    else this.change(kept, gone, added);
  }

  /** Slots of what is not there any more go first: ranges must never overlap. */
  private change(kept: Slot[], gone: readonly Slot[], added: readonly VisibleMemory[]): void {
    for (const { slot } of gone) {
      this.vm.removeMemory(slot);
      this.free.push(slot);
    }
    this.slots = kept;
    for (const range of added) this.add(range);
  }

  private add(range: VisibleMemory): void {
    const slot = this.free.pop() ?? this.highest++;
    this.vm.setMemory({
      slot,
      guestAddress: range.base,
      size: range.size,
      hostAddress: this.origin + BigInt(range.hostOffset),
      readOnly: !range.writable,
    });
    this.slots.push({ ...range, slot });
  }
}
