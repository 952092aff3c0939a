/** The PC board's differentiated system description: what cannot be found by probing. */
import {
  type Aml, busNumbers, device, eisaId, fixedMemory, integer, ioPorts, ioWindow, irq, memoryWindow,
  memoryWindow64, name, packageOf, resources, scope,
} from './aml.ts';

export type DsdtOptions = {
  /** Interrupt (which is also the I/O APIC's pin) of PIRQ A to D. */
  pirqs: readonly [number, number, number, number];
  /** Slot and pin to PIRQ, as the board is wired. */
  pirqOf: (slot: number, pin: number) => number;
  /** Serial ports present, as [base, irq]. */
  serials: readonly (readonly [number, number] | null)[];
  /** Window for 32-bit PCI memory. */
  pciMemory: readonly [number, number];
  /** Window above 4 GiB, or null. */
  pciMemory64: readonly [number, number] | null;
  sleepTypeS5: number;
  hpet: boolean;
};

export function buildDsdt(options: DsdtOptions): Uint8Array {
  const five = packageOf(
    integer(options.sleepTypeS5), integer(options.sleepTypeS5), integer(0), integer(0),
  );
  return Uint8Array.from([
    ...name('\\_S5', five),
    ...scope('\\_SB', pciRoot(options), ...(options.hpet ? [hpet()] : [])),
  ]);
}

function pciRoot(options: DsdtOptions): Aml {
  const windows = [
    busNumbers(0, 255),
    ioPorts(0xcf8, 8),
    ioWindow(0, 0xcf7),
    ioWindow(0xd00, 0xffff),
    memoryWindow(0xa0000, 0xbffff, true),
    memoryWindow(options.pciMemory[0], options.pciMemory[1], false),
  ];
  if (options.pciMemory64 !== null) windows.push(memoryWindow64(...options.pciMemory64));
  return device('PCI0',
    name('_HID', eisaId('PNP0A03')),
    name('_ADR', integer(0)),
    name('_UID', integer(0)),
    name('_CRS', resources(...windows)),
    name('_PRT', routing(options)),
    isaBridge(options));
}

/** Interrupts are hard-wired as the board's start-up routes them, so no link devices (6.2.13). */
function routing(options: DsdtOptions): Aml {
  const entries: Aml[] = [];
  for (let slot = 0; slot < 32; slot++) {
    for (let pin = 0; pin < 4; pin++) {
      const gsi = options.pirqs[options.pirqOf(slot, pin)]!;
      const address = ((slot << 16) | 0xffff) >>> 0;
      entries.push(packageOf(integer(address), integer(pin), integer(0), integer(gsi)));
    }
  }
  return packageOf(...entries);
}

function isaBridge(options: DsdtOptions): Aml {
  const serials = options.serials.flatMap((serial, i) => serial === null ? [] : [isaDevice(
    `COM${i + 1}`, 'PNP0501', i + 1, ioPorts(serial[0], 8), irq(serial[1]),
  )]);
  return device('ISA', name('_ADR', integer(0x00010000)),
    isaDevice('RTC', 'PNP0B00', 0, ioPorts(0x70, 2), irq(8)),
    isaDevice('KBD', 'PNP0303', 0, ioPorts(0x60, 1), ioPorts(0x64, 1), irq(1)),
    isaDevice('MOU', 'PNP0F13', 0, irq(12)),
    ...serials);
}

function isaDevice(path: string, id: string, uid: number, ...items: Aml[]): Aml {
  return device(path,
    name('_HID', eisaId(id)),
    name('_UID', integer(uid)),
    name('_STA', integer(0x0f)),
    name('_CRS', resources(...items)));
}

function hpet(): Aml {
  return device('HPET',
    name('_HID', eisaId('PNP0103')),
    name('_UID', integer(0)),
    name('_STA', integer(0x0f)),
    name('_CRS', resources(fixedMemory(0xfed00000, 0x400))));
}
