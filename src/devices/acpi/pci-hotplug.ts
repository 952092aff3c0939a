/**
 * PCI hot plug by ACPI: registers that the DSDT's methods read and write when a device comes or is to go
 * (QEMU's docs/specs/acpi_pci_hotplug). A bus is chosen by its number, its slots are bits of a register:
 *
 *     0 up: came since this was read     4 down: asked to go     8 eject (write)
 *    12 removable                       16 number of the bus
 *    20 a slot as a bit, then the number by which the system may name the device in it
 */
import type { Device, DeviceState, IoHandler } from '../../machine/interfaces.ts';
import type { BusHotplug } from '../device-type.ts';
import { PciBridge } from '../pci-bridge.ts';
import type { PciBus, PciDevice } from '../pci.ts';
import { StateBlock } from '../state.ts';

const REGISTER = { up: 0, down: 4, eject: 8, removable: 12, select: 16, index: 20 } as const;
/** Bytes of ports. */
export const HOTPLUG_PORTS = 24;
/** General-purpose event by which the guest is told. */
export const HOTPLUG_EVENT = 1;
const NO_BUS = 0xffffffff;

/** A bus as the DSDT describes it: its number, slots that can be ejected, and what leads further on. */
export type HotplugBus = {
  /** Null where devices neither come nor go. */
  readonly select: number | null;
  readonly slots: readonly number[];
  readonly bridges: readonly { readonly devfn: number; readonly bus: HotplugBus }[];
  /** Devices with a number to be named by, where they neither come nor go. */
  readonly named: readonly { readonly devfn: number; readonly index: number }[];
};

const busPowerOn = () => ({ up: 0, down: 0 });

export class AcpiPciHotplug implements Device, BusHotplug {
  readonly type = 'acpi-pci-hotplug';
  readonly id: string;
  readonly ports: IoHandler;
  /** What there is, as the tables tell it for as long as the machine exists. */
  readonly tree: HotplugBus;
  private readonly buses: PciBus[] = [];
  private readonly state: StateBlock<{ select: number; slot: number; buses: ReturnType<typeof busPowerOn>[] }>;
  private readonly raise: () => void;

  /**
   * Takes charge of a bus and of those behind its bridges.
   * @param of which buses: the root's own slots, those behind bridges
   * @param raise raises the event
   */
  constructor(root: PciBus, of: { own: boolean; behind: boolean }, raise: () => void, id = 'acpi-pci-hotplug') {
    this.id = id;
    this.raise = raise;
    this.tree = this.take(root, of.own, of.behind);
    const powerOn = () => ({ select: 0, slot: 0, buses: this.buses.map(busPowerOn) });
    this.state = new StateBlock(id, 1, powerOn, { select: NO_BUS, slot: 0xffffffff }, { slot: 0 });
    this.ports = {
      read: (offset, size) => (this.read(offset & ~3) >>> (8 * (offset & 3))) & (2 ** (8 * size) - 1),
      write: (offset, _size, value) => this.write(offset, value),
    };
  }

  /** What was asked to go is gone after a reset. */
  reset(): void {
    this.state.value.buses.forEach(({ down }, select) => this.eject(select, down));
    this.state.reset();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
  }

  /** The guest is told of a slot when its first function is there; those beyond come before. */
  plugged(device: PciDevice): void {
    if ((device.devfn & 7) !== 0) return;
    const bus = this.busOf(device);
    bus.up = (bus.up | bitOf(device)) >>> 0;
    this.raise();
  }

  requestUnplug(device: PciDevice): void {
    const bus = this.busOf(device);
    const bit = bitOf(device);
    if ((bus.down & bit) !== 0) throw new Error(`Device ${device.id} is already in the process of unplug`);
    bus.down = (bus.down | bit) >>> 0;
    this.raise();
  }

  private take(bus: PciBus, own: boolean, behind: boolean): HotplugBus {
    const select = own ? this.buses.push(bus) - 1 : null;
    // A port that takes no devices says so itself where ports are worked.
    bus.hotplug = own ? this : null;
    const functions = bus.all().sort((a, b) => a.devfn - b.devfn);
    const fixed = new Set(functions.filter((one) => !one.removable || one instanceof PciBridge).map(({ devfn }) => devfn >> 3));
    const slots = Array.from({ length: bus.slots }, (_, slot) => slot).filter((slot) => !fixed.has(slot));
    const bridges = (behind ? functions : [])
      .filter((one) => one instanceof PciBridge)
      .map((bridge) => ({ devfn: bridge.devfn, bus: this.take(bridge.secondary, bridge.takesDevices, true) }));
    const named = own ? [] : functions.filter(({ acpiIndex }) => acpiIndex !== 0);
    return { select, slots: own ? slots : [], bridges, named: named.map(({ devfn, acpiIndex: index }) => ({ devfn, index })) };
  }

  private busOf({ parent }: PciDevice): ReturnType<typeof busPowerOn> {
    return this.state.value.buses[this.buses.indexOf(parent!)]!;
  }

  private read(register: number): number {
    const { select, buses } = this.state.value;
    const bus = buses[select];
    if (bus === undefined) return 0;
    const { up, down } = bus;
    switch (register) {
      case REGISTER.up:
        bus.up = 0;
        return up;
      case REGISTER.down:
        return down;
      case REGISTER.removable:
        return this.removable(select);
      case REGISTER.index:
        return this.indexOf(select);
      default:
        return 0;
    }
  }

  private write(register: number, value: number): void {
    if (register === REGISTER.select) this.state.value.select = value;
    else if (register === REGISTER.index) this.state.value.slot = value;
    else if (register === REGISTER.eject) this.eject(this.state.value.select, value);
  }

  /** Slots that are not taken by what stays. */
  private removable(select: number): number {
    let slots = 0xffffffff;
    for (const { devfn, removable } of this.buses[select]!.all()) if (!removable) slots &= ~(1 << (devfn >> 3));
    return slots >>> 0;
  }

  private indexOf(select: number): number {
    const { slot } = this.state.value;
    return this.buses[select]!.all().find((one) => bitOf(one) === slot && (one.devfn & 7) === 0)?.acpiIndex ?? 0;
  }

  private eject(select: number, slots: number): void {
    const bus = this.buses[select];
    const state = this.state.value.buses[select];
    if (bus === undefined || state === undefined) return;
    state.down = (state.down & ~slots) >>> 0;
    for (const device of bus.all()) {
      if ((slots & bitOf(device)) !== 0 && device.removable) bus.onEject?.(device);
    }
  }
}

const bitOf = ({ devfn }: PciDevice): number => (1 << (devfn >> 3)) >>> 0;
