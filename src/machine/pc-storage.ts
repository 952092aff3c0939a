/** The PC's own disk controllers, and what is attached to them. */
import { FloppyController, floppyType } from '../devices/floppy/fdc.ts';
import type { IsaDma } from '../devices/floppy/isa-dma.ts';
import type { AtaDevice } from '../devices/ide/ata.ts';
import { type IdeBus, ideBuses } from '../devices/ide/bus.ts';
import { IdeCdrom } from '../devices/ide/cdrom.ts';
import { geometryOf, IdeDisk, SECTOR } from '../devices/ide/disk.ts';
import { Piix3Ide } from '../devices/ide/piix3-ide.ts';
import type { DriveConfig } from './config.ts';
import type { BootEntry } from './device-builder.ts';
import type { BlockBackend, GuestMemory, IrqLine, PortBus, VirtualClock } from './interfaces.ts';

/** A configured drive with its medium, which is open already. */
export type Drive = { readonly config: DriveConfig; readonly backend: BlockBackend | null };

/** What the BIOS wants to know of drives. */
export type DriveFacts = {
  floppyTypes: readonly [number, number];
  /** See `FirmwareOptions.translations`. */
  translations: readonly (boolean | null)[];
  bootOrder: readonly string[];
};

/** Slot of an AHCI controller that is not the chipset's. */
export const AHCI_SLOT = 4;
const FDC_PORT = 0x3f0;
const FDC_DMA = 2;
/** Disks with more cylinders than a BIOS call can name need their geometry translated. */
const BIOS_CYLINDERS = 1024;

export function addIde(
  memory: GuestMemory,
  ports: PortBus,
  irqs: readonly [IrqLine, IrqLine],
  drives: readonly Drive[],
): { ide: Piix3Ide; buses: readonly IdeBus[] } {
  const ide = new Piix3Ide(memory, ports, irqs);
  const buses = ideBuses('ide', ide, 2, 2);
  attachDrives(buses, 2, drives, 'ide');
  return { ide, buses };
}

/** @param buses of one controller, each with the same number of places */
export function attachDrives(buses: readonly IdeBus[], units: number, drives: readonly Drive[], kind: 'ide' | 'ahci'): void {
  const plug = (device: AtaDevice, place: number): void => buses[Math.floor(place / units)]!.plug(device, place % units);
  for (const { config, backend } of drives) {
    if (config.interface !== kind) continue;
    const { index, media } = config;
    const id = `${kind}${index}-${media === 'cdrom' ? 'cd' : 'hd'}`;
    const serial = config.serial ?? `VR${String(index + 1).padStart(5, '0')}`;
    if (media === 'cdrom') plug(new IdeCdrom(id, backend, serial), index);
    else if (backend !== null) plug(new IdeDisk(id, backend, serial), index);
  }
}

export type FloppyWiring = {
  ports: PortBus;
  clock: VirtualClock;
  irq: IrqLine;
  dma: IsaDma;
  drives: readonly Drive[];
};

export function addFloppy({ ports, clock, irq, dma, drives }: FloppyWiring): FloppyController {
  const media = [0, 1].map((index) => drives.find(({ config }) => config.interface === 'floppy' && config.index === index));
  const fdc = new FloppyController({
    clock,
    irq,
    dma: dma.channel(FDC_DMA),
    drives: media.map((drive) => (drive === undefined ? null : { backend: drive.backend, readOnly: drive.config.readOnly })),
  });
  // 3F6h in between is the IDE channel's.
  ports.register(FDC_PORT, 6, fdc.ports, fdc.id, { maxSize: 1 });
  ports.register(FDC_PORT + 7, 1, fdc.lastPort, fdc.id, { maxSize: 1 });
  return fdc;
}

/** @param ide buses of the board's own controller @param ahci that is an AHCI */
export function factsOf(
  drives: readonly Drive[],
  ide: readonly IdeBus[],
  ahci: boolean,
  devices: readonly BootEntry[],
): DriveFacts {
  const at = (kind: string, index: number): Drive | undefined =>
    drives.find(({ config }) => config.interface === kind && config.index === index);
  const floppy = (index: number): number => {
    const drive = at('floppy', index);
    return drive === undefined ? 0 : floppyType(drive.backend?.size ?? null);
  };
  const translation = (index: number): boolean | null => {
    const drive = ide[index >> 1]!.unit(index & 1);
    return drive instanceof IdeDisk ? geometryOf(drive.sectors * SECTOR).cylinders > BIOS_CYLINDERS : null;
  };
  const entries = drives.flatMap(({ config }): BootEntry[] => {
    const path = config.bootIndex === null ? null : bootPath(config, ahci);
    return path === null ? [] : [{ index: config.bootIndex!, path }];
  });
  return {
    floppyTypes: [floppy(0), floppy(1)],
    translations: ahci ? [] : [0, 1, 2, 3].map(translation),
    bootOrder: [...entries, ...devices].sort((a, b) => a.index - b.index).map(({ path }) => path),
  };
}

/** Open Firmware's name of the place, as SeaBIOS and OVMF write it. */
function bootPath({ interface: kind, index }: DriveConfig, ahci: boolean): string | null {
  switch (kind) {
    case 'ide':
      return ahci
        ? `/pci@i0cf8/pci8086,2922@1f,2/drive@${index}/disk@0`
        : `/pci@i0cf8/ide@1,1/drive@${index >> 1}/disk@${index & 1}`;
    case 'ahci':
      return `/pci@i0cf8/pci8086,2922@${AHCI_SLOT}/drive@${index}/disk@0`;
    case 'floppy':
      return `/pci@i0cf8/isa@1/fdc@03f0/floppy@${index}`;
    case 'pflash':
    case 'virtio':
    case 'sd':
    case 'none':
      return null;
  }
}
