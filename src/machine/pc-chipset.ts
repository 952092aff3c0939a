/** The host bridges and south bridges that a PC may have, and how they are wired to the rest. */
import type { AcpiPm } from '../devices/acpi/pm.ts';
import { Ahci, AHCI_PORTS } from '../devices/ide/ahci.ts';
import { type IdeBus, ideBuses } from '../devices/ide/bus.ts';
import type { HostBridge } from '../devices/pci/i440fx.ts';
import { I440Fx, I440FxHost } from '../devices/pci/i440fx.ts';
import { FIRST_PIRQ_INPUT, ICH9_GPE, Ich9Lpc, q35PirqOf } from '../devices/pci/ich9.ts';
import { Piix3, Piix4Pm } from '../devices/pci/piix.ts';
import { Q35Mch } from '../devices/pci/q35.ts';
import { PciBus, type PciDevice } from '../devices/pci.ts';
import type { AddressSpace } from './address-space.ts';
import type { Device, IrqLine, MsiSink } from './interfaces.ts';
import type { IoSpace } from './io-space.ts';
import { addIde, AHCI_SLOT, attachDrives, type Drive } from './pc-storage.ts';

export type ChipsetParts = {
  mem: AddressSpace;
  io: IoSpace;
  messages: MsiSink;
  acpi: AcpiPm;
  drives: readonly Drive[];
  /** A line of a new source at an interrupt input (0 to 23). */
  irq: (input: number) => IrqLine;
  add: <T extends Device>(device: T) => T;
  smm: boolean;
};

export type Chipset = {
  bus: PciBus;
  bridge: HostBridge;
  /** The board's own disk controller. */
  ide: { controller: PciDevice; buses: readonly IdeBus[] };
  /** Port of the ACPI registers, or 0 while they are nowhere. */
  pmBase: () => number;
  /** Do writes to the APM control port raise SMIs? */
  raisesSmi: () => boolean;
  /** Where memory shows configuration space; null where there is no such thing. */
  ecamBase: (() => number) | null;
  /** First port of the registers for hot plug by ACPI. */
  hotplugBase: number;
};

const GPE_BASE = 0xafe0;
const HOTPLUG_BASE = { i440fx: 0xae00, q35: 0x0cc0 } as const;
const SOUTH_BRIDGE = 31;
/** Where firmware puts configuration space, for as long as it has not done so. */
export const USUAL_ECAM = 0xb0000000;

/** QEMU's `pc`: 82441FX and PIIX. */
export function addI440Fx({ mem, io, messages, acpi, drives, irq, add, smm }: ChipsetParts): Chipset {
  const bus = new PciBus({ memory: mem, ports: io, messages });
  const bridge = add(new I440Fx());
  bus.plug(bridge, 0);
  bus.plug(add(new Piix3(bus, isaLines(irq))), 1);
  const { ide, buses } = addIde(mem, io, [irq(14), irq(15)], drives);
  bus.plug(add(ide), 1, 1);
  const pm = add(new Piix4Pm(io, acpi.ports, smm));
  bus.plug(pm, 1, 3);
  io.register(GPE_BASE, 4, acpi.gpe, 'acpi-gpe0', { maxSize: 1 });
  addAhci({ mem, drives, add }, bus);
  addConfigPorts({ io, add }, bus);
  return {
    bus,
    bridge,
    ide: { controller: ide, buses },
    pmBase: () => pm.configRead(0x40, 2) & 0xffc0,
    raisesSmi: () => pm.raisesSmi,
    ecamBase: null,
    hotplugBase: HOTPLUG_BASE.i440fx,
  };
}

/** QEMU's `q35`: MCH and ICH9, whose disk controller is an AHCI. */
export function addQ35({ mem, io, messages, acpi, drives, irq, add, smm }: ChipsetParts): Chipset {
  const bus = new PciBus({ memory: mem, ports: io, messages }, q35PirqOf, 'pcie.0');
  const bridge = add(new Q35Mch(mem, bus));
  bus.plug(bridge, 0);
  const lpc = add(
    new Ich9Lpc({
      smm,
      bus,
      ports: io,
      isa: isaLines(irq),
      pm: acpi.ports,
      gpe: acpi.gpe,
      inputs: Array.from({ length: 8 }, (_, i) => irq(FIRST_PIRQ_INPUT + i)),
    }),
  );
  bus.plug(lpc, SOUTH_BRIDGE);
  const ahci = add(new Ahci(mem));
  const buses = ideBuses('ide', ahci, AHCI_PORTS, 1);
  attachDrives(buses, 1, drives, 'ide');
  bus.plug(ahci, SOUTH_BRIDGE, 2);
  addAhci({ mem, drives, add }, bus);
  addConfigPorts({ io, add }, bus);
  return {
    bus,
    bridge,
    ide: { controller: ahci, buses },
    pmBase: () => lpc.pmBase,
    raisesSmi: () => lpc.raisesSmi,
    ecamBase: () => bridge.window?.base ?? USUAL_ECAM,
    hotplugBase: HOTPLUG_BASE.q35,
  };
}

/** Of the general-purpose events. @param pmBase port of the ACPI registers */
export function gpePlace(q35: boolean, pmBase: number): { base: number; length: number } {
  return q35 ? { base: pmBase + ICH9_GPE.offset, length: ICH9_GPE.length } : { base: GPE_BASE, length: 4 };
}

const isaLines = (irq: ChipsetParts['irq']): IrqLine[] => Array.from({ length: 16 }, (_, input) => irq(input));

/** A controller for the drives that ask for one. */
function addAhci({ mem, drives, add }: Pick<ChipsetParts, 'mem' | 'drives' | 'add'>, bus: PciBus): void {
  if (!drives.some(({ config }) => config.interface === 'ahci')) return;
  const ahci = add(new Ahci(mem, 'ahci1'));
  attachDrives(ideBuses('ahci', ahci, AHCI_PORTS, 1), 1, drives, 'ahci');
  bus.plug(ahci, AHCI_SLOT);
}

function addConfigPorts({ io, add }: Pick<ChipsetParts, 'io' | 'add'>, bus: PciBus): void {
  const host = add(new I440FxHost(bus));
  io.register(0xcf8, 8, host.ports, host.id);
}
