/** What a machine needs of its board, whichever that is. */
import type { LocalApic } from '../devices/intc/apic.ts';
import type { Uart16550 } from '../devices/serial/uart16550.ts';
import type { I8254 } from '../devices/timer/i8254.ts';
import type { AddressSpace } from './address-space.ts';
import type { DeviceBuilder } from './device-builder.ts';
import type { Device, DeviceState, DisplaySource, KernelChips, StateOwner } from './interfaces.ts';
import type { IoSpace } from './io-space.ts';
import type { InitialCpuState } from './loader/cpu-state.ts';
import type { PcInterrupts } from './pc-interrupts.ts';
import type { Pointers } from './pointers.ts';
import type { Typist } from './typist.ts';

export interface Board extends Pick<PcInterrupts, 'apicBus' | 'pic' | 'ioapic' | 'apicIds' | 'lapics' | 'useKernelApics'> {
  readonly mem: AddressSpace;
  readonly io: IoSpace;
  readonly devices: Device[];
  /** The boot processor's. */
  readonly lapic: LocalApic;
  readonly pit: I8254;
  /** COM1 first; null where there is no port. */
  readonly serials: readonly (Uart16550 | null)[];
  readonly typist: Typist;
  readonly pointers: Pointers;
  readonly display: DisplaySource | null;
  /** Makes devices, also while the machine runs. */
  readonly builder: DeviceBuilder | null;
  /** Whoever has a part of the board's state, in the order of loading. */
  readonly stateOwners: readonly StateOwner[];
  readonly hasSmm: boolean;
  /** Levels of the interrupt inputs, a bit each. */
  readonly inputLevels: number;
  /**
   * Interrupt controllers and interval timer are elsewhere from now on, or (null) here again. The board's own
   * sleep in between; their state is brought to where they are by whoever calls this.
   */
  useKernelChips(chips: KernelChips | null): void;
  /** Resets every device. @returns the state that the first vCPU starts in @throws Error when the kernel image cannot be loaded */
  reset(): InitialCpuState;
  /** The vCPU enters or leaves system management mode. */
  setManaging(inside: boolean): void;
  /** What the outside calls `system_powerdown`. */
  powerButton(): void;
  /** Raises NMI as a front panel would. */
  injectNmi(): void;
}

/** Whether there has been a reset since power-on. */
export class BoardLife implements StateOwner {
  readonly id = 'machine/board';
  started = false;

  saveState(): DeviceState {
    return { version: 1, fields: { started: this.started } };
  }

  loadState({ version, fields }: DeviceState): void {
    const { started } = fields;
    if (version !== 1) throw new Error(`board: saved state has version ${version}, this board has 1`);
    if (typeof started !== 'boolean') throw new Error('board: field "started" is not true or false');
    this.started = started;
  }
}

/**
 * Interrupt controllers come after all that drives their inputs, so that a line that is loaded is no interrupt.
 * @param first what belongs to no device
 */
export function inLoadingOrder(
  first: readonly StateOwner[],
  devices: readonly Device[],
  controllers: readonly Device[],
): StateOwner[] {
  return [...first, ...devices.filter((device) => !controllers.includes(device)), ...controllers];
}
