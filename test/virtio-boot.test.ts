/** SeaBIOS boots from virtio disks, in the order of their boot indices. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { drive, Machine } from 'virelay';
import { grubOrSkip, makeDisk, screenWith } from './grub-disk.ts';

const LIMIT = { timeout: 120_000 };

const menuOf = (name: string): string => `set timeout=60\nmenuentry "From ${name}" { true }\n`;

test('SeaBIOS finds a virtio disk and a SCSI disk behind virtio, and boots the one that is to be first', LIMIT, async (t) => {
  const tools = grubOrSkip(t);
  if (tools === null) return;
  const folder = mkdtempSync(join(tmpdir(), 'virtio-boot-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const disks = ['blk', 'scsi'].map((name) => ({ name, data: makeDisk(folder, tools, { 'boot/grub/grub.cfg': menuOf(name) }) }));
  const cases = [
    { machine: 'pc', first: 'blk', legacy: 'off' },
    { machine: 'q35', first: 'scsi', legacy: 'off' },
    { machine: 'pc', first: 'blk', legacy: 'on' },
  ] as const;
  for (const { machine: type, first, legacy } of cases) {
    const bootindex = (name: string): number => (name === first ? 0 : 1);
    await using machine = await Machine.create({
      machine: type,
      noReboot: true,
      drives: disks.map((file) => drive({ id: file.name, interface: 'none', file })),
      devices: [
        { driver: 'virtio-scsi-pci', id: 's' },
        { driver: 'scsi-hd', bus: 's.0', drive: 'scsi', lun: 1, bootindex: bootindex('scsi') },
        { driver: 'virtio-blk-pci', drive: 'blk', 'disable-modern': legacy, bootindex: bootindex('blk') },
      ],
    });
    assert.match(await screenWith(machine, /From (?:blk|scsi)/), new RegExp(`From ${first}`), `${type}, ${first}`);
  }
});
