/** The PC board's differentiated system description: what cannot be found by probing. */
import {
  argument,
  type Aml,
  busNumbers,
  device,
  eisaId,
  fixedMemory,
  integer,
  ioPorts,
  ioWindow,
  irq,
  memoryWindow,
  memoryWindow64,
  method,
  name,
  packageOf,
  resources,
  returnEither,
  scope,
  store,
  text,
} from './aml.ts';
import { type HotplugTables, hotplugEvent, hotplugSlots, osControl } from './hotplug-aml.ts';

export type DsdtOptions = {
  /** Interrupt (which is also the I/O APIC's pin) of PIRQ A to D. */
  pirqs: readonly [number, number, number, number];
  /** Slot and pin to PIRQ, as the board is wired. */
  pirqOf: (slot: number, pin: number) => number;
  /** Serial ports present, as [base, irq]. */
  serials: readonly (readonly [number, number] | null)[];
  /** A Q35: its wiring to PIRQ A to H, which have inputs of the I/O APIC from this one on. */
  q35: { pirqOf: (slot: number, pin: number) => number; firstInput: number } | null;
  /** Where memory shows configuration space, or null. */
  ecam: number | null;
  /** Windows for 32-bit PCI memory. */
  pciMemory: readonly (readonly [number, number])[];
  /** Window above 4 GiB, or null. */
  pciMemory64: readonly [number, number] | null;
  sleepTypeS5: number;
  hpet: boolean;
  /** Slots whose devices come and go by ACPI; null for none. */
  hotplug: HotplugTables | null;
  /** How many there are. */
  cpus: number;
};

export function buildDsdt(options: DsdtOptions): Uint8Array {
  const five = packageOf(integer(options.sleepTypeS5), integer(options.sleepTypeS5), integer(0), integer(0));
  return Uint8Array.from([
    ...name('\\_S5', five),
    ...(options.q35 === null ? [] : interruptModel()),
    ...scope('\\_SB', pciRoot(options), ...(options.hpet ? [hpet()] : []), ...processors(options.cpus)),
    ...(options.hotplug === null ? [] : hotplugEvent()),
  ]);
}

/** Processor devices (8.4), by whose _UID the MADT tells their APICs. */
export function processors(count: number): Aml[] {
  const path = (cpu: number): string => `C${cpu.toString(16).toUpperCase().padStart(3, '0')}`;
  return Array.from({ length: count }, (_, cpu) =>
    device(path(cpu), name('_HID', text('ACPI0007')), name('_UID', integer(cpu)), name('_STA', integer(0x0f))),
  );
}

function pciRoot(options: DsdtOptions): Aml {
  const windows = [
    busNumbers(0, 255),
    ioPorts(0xcf8, 8),
    ioWindow(0, 0xcf7),
    ioWindow(0xd00, 0xffff),
    memoryWindow(0xa0000, 0xbffff, true),
    ...options.pciMemory.map(([first, last]) => memoryWindow(first, last, false)),
  ];
  if (options.pciMemory64 !== null) windows.push(memoryWindow64(...options.pciMemory64));
  return device(
    'PCI0',
    ...(options.q35 === null
      ? [name('_HID', eisaId('PNP0A03'))]
      : [name('_HID', eisaId('PNP0A08')), name('_CID', eisaId('PNP0A03'))]),
    name('_ADR', integer(0)),
    name('_UID', integer(0)),
    name('_CRS', resources(...windows)),
    ...routing(options),
    ...board(options),
    isaBridge(options),
    // Only a Q35's bus has anything to hand over, of which hot plug stays here if it goes by ACPI.
    ...(options.q35 === null ? [] : [osControl(options.hotplug === null)]),
    ...(options.hotplug === null ? [] : hotplugSlots(options.hotplug)),
  );
}

/** What the system tells of the interrupt controllers that it uses: 0 for the 8259 pair (5.8.1). */
const interruptModel = (): Aml => [...name('PICF', integer(0)), ...method('_PIC', 1, store(argument(0), 'PICF'))];

/** Interrupts are hard-wired as the board's start-up routes them, so no link devices (6.2.13). */
function routing({ pirqs, pirqOf, q35 }: DsdtOptions): Aml[] {
  if (q35 === null)
    return [
      name(
        '_PRT',
        routes((slot, pin) => pirqs[pirqOf(slot, pin)]!),
      ),
    ];
  return [
    name(
      'PRTP',
      routes((slot, pin) => pirqs[q35.pirqOf(slot, pin) & 3]!),
    ),
    name(
      'PRTA',
      routes((slot, pin) => q35.firstInput + q35.pirqOf(slot, pin)),
    ),
    method('_PRT', 0, returnEither('PICF', 'PRTA', 'PRTP')),
  ];
}

/** Configuration space in memory is nobody's to use (PCI Firmware Specification 3.0, 4.1.2). */
function board({ ecam }: DsdtOptions): Aml[] {
  if (ecam === null) return [];
  return [device('DRAC', name('_HID', eisaId('PNP0C02')), name('_CRS', resources(fixedMemory(ecam, 2 ** 28))))];
}

function routes(interrupt: (slot: number, pin: number) => number): Aml {
  const entries: Aml[] = [];
  for (let slot = 0; slot < 32; slot++) {
    for (let pin = 0; pin < 4; pin++) {
      const gsi = interrupt(slot, pin);
      const address = ((slot << 16) | 0xffff) >>> 0;
      entries.push(packageOf(integer(address), integer(pin), integer(0), integer(gsi)));
    }
  }
  return packageOf(...entries);
}

function isaBridge(options: DsdtOptions): Aml {
  return device(
    'ISA',
    name('_ADR', integer(options.q35 === null ? 0x00010000 : 0x001f0000)),
    isaDevice('RTC', 'PNP0B00', 0, ioPorts(0x70, 2), irq(8)),
    isaDevice('KBD', 'PNP0303', 0, ioPorts(0x60, 1), ioPorts(0x64, 1), irq(1)),
    isaDevice('MOU', 'PNP0F13', 0, irq(12)),
    ...serialPorts(options.serials),
  );
}

export function serialPorts(serials: DsdtOptions['serials']): Aml[] {
  return serials.flatMap((serial, i) =>
    serial === null ? [] : [isaDevice(`COM${i + 1}`, 'PNP0501', i + 1, ioPorts(serial[0], 8), irq(serial[1]))],
  );
}

export function isaDevice(path: string, id: string, uid: number, ...items: Aml[]): Aml {
  return device(
    path,
    name('_HID', eisaId(id)),
    name('_UID', integer(uid)),
    name('_STA', integer(0x0f)),
    name('_CRS', resources(...items)),
  );
}

function hpet(): Aml {
  return device(
    'HPET',
    name('_HID', eisaId('PNP0103')),
    name('_UID', integer(0)),
    name('_STA', integer(0x0f)),
    name('_CRS', resources(fixedMemory(0xfed00000, 0x400))),
  );
}
