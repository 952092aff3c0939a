/** Memory cards in a real guest: Debian's general kernel and its own drivers. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { drive, type DriveConfig, type MachineConfig } from 'virelay';
import { moduleFiles } from './modules.ts';
import { guestOrSkip, runGuest } from './virtio-guest.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 180_000 };
const MODULES = ['sdhci_pci', 'mmc_block'];

const SCRIPT = `
i=0; until [ -e /dev/mmcblk0 ]; do sleep 0.1; i=$((i+1)); [ $i = 100 ] && break; done
cat /sys/block/mmcblk0/size /sys/block/mmcblk0/device/name /sys/block/mmcblk0/device/type
dd if=/dev/urandom of=/tmp/data bs=64k count=100 2>/dev/null
dd if=/tmp/data of=/dev/mmcblk0 bs=64k seek=3 conv=fsync 2>/dev/null
dd if=/tmp/data of=/dev/mmcblk0 bs=512 count=3 seek=1 conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/mmcblk0 bs=64k skip=3 count=100 2>/dev/null | cmp - /tmp/data && echo same
dd if=/dev/mmcblk0 bs=512 skip=1 count=3 2>/dev/null | cmp -n 1536 - /tmp/data && echo few
sha256sum </tmp/data
grep mmc0 /proc/interrupts
`;

const assertQuiet = (text: string): void =>
  assert.doesNotMatch(text, /Call Trace|BUG:|Oops|WARNING:|mmc0: .*(?:error|timeout|Timeout)/);

function cardIn(
  t: { after(end: () => void): void },
  size: number,
  more: Partial<DriveConfig> = {},
): { image: string; config: Partial<MachineConfig> } {
  const folder = mkdtempSync(join(tmpdir(), 'sd-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const image = join(folder, 'card.img');
  writeFileSync(image, '');
  truncateSync(image, size);
  return { image, config: { drives: [drive({ id: 'c', interface: 'none', file: image, format: 'raw', ...more })] } };
}

for (const [name, size, sectors, bus] of [
  ['of standard capacity', 64 * MIB, 131072, {}],
  ['of 2 GiB', 2048 * MIB, 4194304, {}],
  ['of high capacity', 4096 * MIB, 8388608, { 'sd-spec-version': 3 }],
] as const) {
  test(`a card ${name} is read and written`, LIMIT, async (t) => {
    const guest = await guestOrSkip(t, 'general');
    if (guest === null) return;
    const { image, config } = cardIn(t, size);
    const devices = [
      { driver: 'sdhci-pci', ...bus },
      { driver: 'sd-card', drive: 'c' },
    ];
    const text = await runGuest(guest, MODULES, SCRIPT, { ...config, devices });
    const has = (line: RegExp): void => assert.match(text, line, text);
    has(new RegExp(`^${sectors}\\r?\\nSDISK\\r?\\nSD\\r?$`, 'm'));
    has(/^same\r?$/m);
    has(/^few\r?$/m);
    has(/:\s+[1-9]\d* .*mmc0/);
    assertQuiet(text);
    if (size > 64 * MIB) return;
    assert.ok(
      readFileSync(image)
        .subarray(3 * 65536)
        .some((byte) => byte !== 0),
    );
  });
}

// Quirks that the driver is told of: without tables, without direct access to memory.
for (const [name, quirks] of [
  ['by SDMA', 0x40],
  ['by the port', 0x60],
] as const) {
  test(`a card is read and written ${name}`, LIMIT, async (t) => {
    const guest = await guestOrSkip(t, 'general');
    if (guest === null) return;
    const { config } = cardIn(t, 64 * MIB, { interface: 'sd', id: null });
    const { files, load } = moduleFiles(guest.modules, MODULES);
    const script = load.replace('insmod /modules/$module', `insmod /modules/$module debug_quirks=${quirks}`);
    const text = await runGuest(guest, [], `${script}\n${SCRIPT}`, { ...config, devices: [{ driver: 'sdhci-pci' }] }, files);
    assert.match(text, /^same\r?$/m, text);
    assert.match(text, /^few\r?$/m);
    assertQuiet(text);
  });
}
