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
  private slots: Slot[] = [];
  private readonly free: number[] = [];
  private highest = 0;

  constructor(vm: Vm, map: MemoryMap, origin: bigint) {
    this.vm = vm;
    this.map = map;
    this.origin = origin;
  }

  /** Slots of what is not there any more go first: ranges must never overlap. @throws SystemCallError */
  update(): void {
    const wanted = this.map.visibleMemory();
    const kept = this.slots.filter((slot) => wanted.some((range) => sameRange(range, slot)));
    for (const { slot } of this.slots.filter((one) => !kept.includes(one))) {
      this.vm.removeMemory(slot);
      this.free.push(slot);
    }
    this.slots = kept;
    for (const range of wanted) if (!kept.some((slot) => sameRange(range, slot))) this.add(range);
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
