/** Whole machines under a whole KVM. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { build } from '../scripts/build.ts';
import { initramfs } from '../src/guest/initramfs.ts';
import { runOnKvmHost } from './kvm-host.ts';
import { moduleFiles } from './modules.ts';
import { guestOrSkip } from './virtio-guest.ts';

const INIT = `exec </dev/console >/dev/console 2>&1
ifconfig eth0 10.0.2.15 up
echo READY
exec sh
`;

test('an unmodified Linux runs under KVM with disk and network, is saved, goes on in another process, and from one accelerator to the other', {
  timeout: 1_200_000,
}, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const work = mkdtempSync(join(tmpdir(), 'kvm-machine-'));
  t.after(() => rmSync(work, { recursive: true }));
  await build(join(work, 'app'), [{ name: 'part', entries: ['test/kvm-machine-main.ts'], whole: [] }]);
  const { files, load } = moduleFiles(guest.modules, ['virtio_pci', 'virtio_blk', 'virtio_net']);
  writeFileSync(join(work, 'kernel'), guest.kernel);
  writeFileSync(join(work, 'initrd'), initramfs(guest.files, `${load}\n${INIT}`, files));
  const app = readdirSync(join(work, 'app')).map((name) => [`virelay/dist/app/${name}`, join(work, 'app', name)] as const);
  const ran = await runOnKvmHost(
    t,
    [],
    [
      'export NODE_OPTIONS=--no-warnings',
      'dd if=/dev/zero of=/tmp/disk bs=1M count=4 2>/dev/null',
      'node dist/app/kvm-machine-main.js first && node dist/app/kvm-machine-main.js second',
    ].join('\n'),
    { files: new Map([...app, ['virelay/kernel', join(work, 'kernel')], ['virelay/initrd', join(work, 'initrd')]]) },
  );
  if (ran === null) return;
  const { output, status } = ran;
  assert.equal(status, 0, output);
  const said = (name: string): string => {
    const found = new RegExp(`virelay: ${name} ([\\s\\S]*?) \\(after \\d+ ms\\)`).exec(output);
    assert.ok(found, `${name}: ${output}`);
    t.diagnostic(found[0].replaceAll('\n', ' '));
    return found[1]!;
  };
  assert.match(said('uname'), /cloud-amd64/);
  assert.match(said('network'), /1 packets received/);
  const sum = /[0-9a-f]{32}/.exec(said('written'))?.[0];
  assert.ok(sum, output);
  for (const where of ['restored', 'jit', 'kvm']) {
    const answer = said(where);
    assert.match(answer, /^kept/, where);
    assert.ok(answer.includes(sum), `${where}: ${answer}`);
    if (where !== 'restored') assert.match(answer, /1 packets received/, where);
  }
  assert.match(said('end'), /"poweroff"/);
});
