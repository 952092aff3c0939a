/**
 * Exits of a guest for each request to a virtio disk, by a Linux that reads 4 KiB at a time: with one CPU, and with two
 * from either; as it is by default, and by eventfds of the kernel (`ioeventfd=on`). Needs a whole KVM; where there is none, in a host under QEMU's translator, whose exits are as many and slower.
 *
 *     node --no-warnings bench/kvm/requests.ts [REQUESTS]
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { runOnKvmHost } from '../../test/kvm-host.ts';
import { guestOrSkip, listeningInitramfs } from '../../test/virtio-guest.ts';

const requests = Number(process.argv[2] ?? 1000);

test('requests', async (t) => {
  const host = await guestOrSkip(t, 'kvm');
  const guest = await guestOrSkip(t);
  if (host === null || guest === null) return;
  const work = mkdtempSync(join(tmpdir(), 'virelay-bench-'));
  try {
    const put = (name: string, data: Uint8Array): [string, string] => {
      writeFileSync(join(work, name), data);
      return [`guest/${name}`, join(work, name)];
    };
    const files = new Map([put('kernel', guest.kernel), put('initrd', listeningInitramfs(guest, ['virtio_pci', 'virtio_blk']))]);
    const command = `NODE_OPTIONS=--no-warnings node bench/kvm/requests-main.ts ${requests}`;
    const ran = await runOnKvmHost(t, ['src', 'bench/kvm'], command, { files });
    for (const line of ran?.output.split('\n') ?? []) if (ran?.status !== 0 || line.startsWith('cpu')) console.log(line);
  } finally {
    rmSync(work, { recursive: true });
  }
});
