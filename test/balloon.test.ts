/** A balloon in a real guest: Debian's cloud kernel, whose pages the host gets back. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { moduleFiles } from './modules.ts';
import { guestOrSkip, talkTo } from './virtio-guest.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 120_000 };

/** Bytes of this process in the host's memory. */
const resident = (): number => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;

test('what a guest gives away or reports as free goes back to the host', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const { files } = moduleFiles(guest.modules, ['virtio_balloon']);
  const config = {
    memory: 384 * MIB,
    devices: [{ driver: 'virtio-balloon-pci', id: 'balloon', 'free-page-reporting': true }],
  };
  const talk = await talkTo(guest, ['virtio_pci'], config, files);
  await using machine = talk.machine;
  const fill =
    'mkdir -p /fill; mount -t tmpfs -o size=90% fill /fill; dd if=/dev/zero of=/fill/data bs=1M count=200 2>/dev/null; rm /fill/data; umount /fill';
  await talk.run(fill);
  const full = resident();
  // Reports come some seconds after pages are free.
  await talk.run('insmod /modules/virtio_balloon.ko; sleep 6');
  const reported = resident();
  assert.ok(full - reported > 120 * MIB, `${full / MIB} MiB before, ${reported / MIB} MiB when free pages were reported`);
  assert.equal(await machine.getBalloon(), 384 * MIB);
  await machine.setBalloon(200 * MIB);
  await talk.run('sleep 3');
  assert.ok((await machine.getBalloon()) < 300 * MIB);
  const total = Number(/MemTotal:\s+(\d+)/.exec(await talk.run('cat /proc/meminfo'))![1]);
  assert.ok(total < 350_000, `${total} KiB are left to the guest`);
  await machine.setBalloon(384 * MIB);
  await talk.run('sleep 2');
  assert.equal(await machine.getBalloon(), 384 * MIB);
  assert.doesNotMatch(talk.text, /Call Trace|BUG:|Oops|WARNING:/);
});
