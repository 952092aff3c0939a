/** Several CPUs under KVM: a host with a whole one runs test/nested/smp.ts. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { runOnKvmHost } from './kvm-host.ts';
import { guestOrSkip, listeningInitramfs } from './virtio-guest.ts';

test('Linux under KVM uses several CPUs', { timeout: 1_200_000 }, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const work = mkdtempSync(join(tmpdir(), 'virelay-smp-'));
  const put = (name: string, data: Uint8Array): [string, string] => {
    writeFileSync(join(work, name), data);
    return [`guest/${name}`, join(work, name)];
  };
  try {
    const files = new Map([
      put('kernel', guest.kernel),
      put('initrd', listeningInitramfs(guest, ['virtio_pci', 'virtio_mmio', 'virtio_blk'])),
    ]);
    const ran = await runOnKvmHost(
      t,
      ['src', 'test/nested'],
      'NODE_OPTIONS=--no-warnings node --test --test-isolation=none --test-reporter=tap test/nested/smp.ts',
      {
        files: new Map([
          ...files,
          ...['last-words.ts', 'saved-machine.ts', 'virtio-guest.ts', 'modules.ts'].map(
            (name) => [`virelay/test/${name}`, join(import.meta.dirname, name)] as const,
          ),
        ]),
      },
    );
    if (ran === null) return;
    assert.equal(ran.status, 0, ran.output);
  } finally {
    rmSync(work, { recursive: true });
  }
});
