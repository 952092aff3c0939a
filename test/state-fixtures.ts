/** Machines whose saved states are kept (test/fixtures/state), to load for ever. */
import { join } from 'node:path';
import { drive, type MachineConfig } from 'virelay';
import { parseCommandLine } from '../src/cli/command-line.ts';
import { DEBUG_EXIT_PORT, echo } from './machine/firmware.ts';

export const FIXTURES = join(import.meta.dirname, 'fixtures', 'state');

const KIB = 1024;
const MIB = 2 ** 20;

const disk = (id: string) => drive({ id, interface: 'none', file: { name: id, data: new Uint8Array(MIB) } });

/** Not what may be found on the host, nor what a later version of a model may have more of. */
const SAME: Partial<MachineConfig> = {
  memory: 2 * MIB,
  cpu: 'qemu64',
  bios: { name: 'echo', data: echo() },
  vga: 'none',
  debugExit: { iobase: DEBUG_EXIT_PORT, iosize: 4 },
};

const DISKS = ['nvme', 'blk', 'hd', 'cd', 'ide', 'sd'];
const NETS = ['e1000', 'e1000e', 'rtl8139', 'ne2k_pci', 'virtio-net-pci'];

/** One device of each type that can be had without the host's help. */
const DEVICES = [
  { driver: 'pci-bridge', id: 'bridge', chassis_nr: 1 },
  { driver: 'nvme', drive: 'nvme', serial: 's' },
  { driver: 'virtio-blk-pci', drive: 'blk' },
  { driver: 'virtio-scsi-pci', id: 'scsi' },
  { driver: 'scsi-hd', drive: 'hd' },
  { driver: 'scsi-cd', drive: 'cd' },
  { driver: 'virtio-serial-pci' },
  { driver: 'virtio-rng-pci' },
  { driver: 'virtio-balloon-pci' },
  { driver: 'virtio-keyboard-pci' },
  { driver: 'ich9-ahci', id: 'sata' },
  { driver: 'ide-hd', bus: 'sata.0', drive: 'ide' },
  { driver: 'sdhci-pci' },
  { driver: 'sd-card', drive: 'sd' },
  ...NETS.map((driver, i) => ({ driver, netdev: `n${i}`, mac: `52:54:00:12:34:0${i}`, bus: 'bridge' })),
];

const networks = (): Partial<MachineConfig> => ({
  network: parseCommandLine(['-nodefaults', ...NETS.flatMap((_, i) => ['-netdev', `user,id=n${i}`])]).network,
});

/** By the names of their files. A machine never changes: another one takes another name. */
export const MACHINES: Readonly<Record<string, () => Partial<MachineConfig>>> = {
  pc: () => ({
    ...SAME,
    vga: 'std',
    vgaBios: { name: 'rom', data: new Uint8Array(512) },
    drives: [
      drive({ file: { name: 'hd', data: new Uint8Array(64 * KIB) } }),
      drive({ index: 2, media: 'cdrom', file: { name: 'cd', data: new Uint8Array(64 * KIB) } }),
      drive({ interface: 'floppy', file: { name: 'fd', data: new Uint8Array(160 * KIB) } }),
    ],
  }),
  q35: () => ({ ...SAME, machine: 'q35', drives: [drive({ file: { name: 'hd', data: new Uint8Array(64 * KIB) } })] }),
  'pc-devices': () => ({ ...SAME, ...networks(), drives: DISKS.map(disk), devices: DEVICES }),
  'q35-flash': () => ({
    ...SAME,
    machine: 'q35',
    bios: null,
    drives: [drive({ interface: 'pflash', file: { name: 'code', data: echo() } })],
  }),
  'pc-icount': () => ({
    ...SAME,
    icount: { shift: 3, sleep: false },
    rtc: { base: Date.UTC(2020, 0, 1) / 1000, clock: 'vm' },
  }),
};
