/** Writes that KVM collects for devices that do not mind (`IoHandler.collectsWrites`): most of them cost no exit. */
import type { VisibleRegisters } from '../machine/address-space.ts';
import { writePieces, type Registers } from './exits.ts';
import type { CoalescedWrite, RunPage } from './run-page.ts';
import type { Vm } from './vm.ts';

interface Zone {
  readonly base: number;
  readonly size: number;
}

export class LateWrites {
  private readonly vm: Vm;
  private readonly possible: boolean;
  private readonly run: RunPage;
  private readonly take: (write: CoalescedWrite) => void;
  private zones: Zone[] = [];

  /** @param run of any vCPU: there is one ring for all of them */
  constructor(vm: Vm, run: RunPage, registers: Registers) {
    this.vm = vm;
    this.possible = vm.check('KVM_CAP_COALESCED_MMIO') !== 0;
    this.run = run;
    this.take = ({ address, length, low, high }) => writePieces(registers, address, length, low, high);
  }

  /** Follows the board. @throws SystemCallError */
  update(registers: readonly VisibleRegisters[]): void {
    if (!this.possible) return;
    const wanted = registers.filter(({ handler }) => handler.collectsWrites === true);
    const known = (list: readonly Zone[], { base, size }: Zone): boolean =>
      list.some((other) => other.base === base && other.size === size);
    for (const zone of this.zones) if (!known(wanted, zone)) this.vm.uncoalesce(false, zone.base, zone.size);
    for (const zone of wanted) if (!known(this.zones, zone)) this.vm.coalesce(false, zone.base, zone.size);
    this.zones = wanted.map(({ base, size }) => ({ base, size }));
  }

  /** Before any other access is carried out, and before anybody looks at devices. */
  bring(): void {
    this.run.drainCoalesced(this.take);
  }
}
