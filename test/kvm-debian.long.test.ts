/** A whole distribution under a whole KVM. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { build } from '../scripts/build.ts';
import { findFirmware } from '../src/host/node/firmware.ts';
import { debianImage } from './debian-image.ts';
import { runOnKvmHost } from './kvm-host.ts';

test('Debian boots under KVM from GRUB to its login prompt, with a virtio disk and network', {
  timeout: 1_200_000,
}, async (t) => {
  const image = debianImage();
  if (typeof image === 'string') return t.skip(image);
  const bios = findFirmware('bios-256k.bin');
  if (bios === null) return t.skip('SeaBIOS is not installed');
  const work = mkdtempSync(join(tmpdir(), 'kvm-debian-'));
  t.after(() => rmSync(work, { recursive: true }));
  const built = join(work, 'app');
  await build(built, [{ name: 'part', entries: ['test/kvm-debian-main.ts'], whole: [] }]);
  writeFileSync(join(work, 'bios'), bios.data);
  const app = readdirSync(built).map((name) => [`virelay/dist/app/${name}`, join(built, name)] as const);
  const ran = await runOnKvmHost(t, [], 'node --no-warnings dist/app/kvm-debian-main.js', {
    files: new Map([...app, ['virelay/bios', join(work, 'bios')]]),
    disk: image.image,
  });
  if (ran === null) return;
  const { output, status } = ran;
  assert.equal(status, 0, output);
  for (const line of output.matchAll(/^virelay: .*/gm)) t.diagnostic(line[0]);
  assert.match(output, /^virelay: prompt debian login:/m, output);
  assert.match(output, /^virelay: hypervisor kvm/m, output);
  assert.match(output, /^virelay: disk \/dev\/vda1 kept/m, output);
  assert.match(output, /^virelay: network 70000 /m, output);
  assert.match(output, /^virelay: end .*"poweroff"/m, output);
});
