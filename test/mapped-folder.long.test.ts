/** Folders whose owners and permissions are kept apart: what QEMU has kept is seen here, and the other way round. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { initramfs } from '../src/guest/initramfs.ts';
import { moduleFiles } from './modules.ts';
import { type Guest, guestOrSkip, runGuest } from './virtio-guest.ts';

const LIMIT = { timeout: 180_000 };
const MODULES = ['virtio_pci', '9pnet_virtio', '9p'];

const SHOW = `cd /shared; for one in *; do stat -c '%n %F %u:%g %a %t:%T' $one; done; for one in link*; do readlink $one; done`;
const make = (who: string): string => `cd /shared
echo ${who} >file-${who}; chown 12:34 file-${who}; chmod 4751 file-${who}
mkdir folder-${who}; chown 5:6 folder-${who}; chmod 1770 folder-${who}
mknod disk-${who} b 8 1; chmod 640 disk-${who}
ln -s /nowhere/${who} link-${who}
cd /`;
const MOUNT = 'mkdir /shared; mount -t 9p -o trans=virtio,version=9p2000.L shared /shared';

function runQemu({ files, kernel, modules }: Guest, folder: string, model: string, script: string): string {
  const { files: extra, load } = moduleFiles(modules, MODULES);
  const init = `exec >/dev/console 2>&1\n${load}\n${script}\npoweroff -f\n`;
  const work = mkdtempSync(join(tmpdir(), 'qemu-'));
  try {
    writeFileSync(join(work, 'kernel'), kernel);
    writeFileSync(join(work, 'initrd'), initramfs(files, init, extra));
    return execFileSync(
      'qemu-system-x86_64',
      [
        ...[
          '-nodefaults',
          '-display',
          'none',
          '-serial',
          'stdio',
          '-no-reboot',
          '-m',
          '256',
          '-append',
          'console=ttyS0 panic=-1',
        ],
        ...['-kernel', join(work, 'kernel'), '-initrd', join(work, 'initrd')],
        ...['-virtfs', `local,path=${folder},mount_tag=shared,security_model=${model}`],
      ],
      { encoding: 'utf8', timeout: 100_000, stdio: ['ignore', 'pipe', 'pipe'] },
    );
  } finally {
    rmSync(work, { recursive: true });
  }
}

const expected = (who: string): RegExp[] => [
  new RegExp(`^file-${who} regular file 12:34 4751 0:0\\r?$`, 'm'),
  new RegExp(`^folder-${who} directory 5:6 1770 0:0\\r?$`, 'm'),
  new RegExp(`^disk-${who} block special file 0:0 640 8:1\\r?$`, 'm'),
  new RegExp(`^link-${who} symbolic link 0:0 777 0:0\\r?$`, 'm'),
  new RegExp(`^/nowhere/${who}\\r?$`, 'm'),
];

for (const model of ['mapped-xattr', 'mapped-file'] as const) {
  test(`${model}: both programs read what the other one has kept`, LIMIT, async (t) => {
    const guest = await guestOrSkip(t, 'general');
    if (guest === null) return;
    const folder = join(mkdtempSync(join(tmpdir(), 'mapped-')), 'shared');
    mkdirSync(folder);
    t.after(() => rmSync(join(folder, '..'), { recursive: true }));
    try {
      execFileSync('qemu-system-x86_64', ['--version'], { stdio: 'ignore' });
    } catch {
      return t.skip('QEMU is not installed');
    }
    const theirs = runQemu(guest, folder, model, `${MOUNT}\n${make('theirs')}`);
    assert.doesNotMatch(theirs, /Permission denied|not supported/);
    const ours = await runGuest(guest, MODULES, `${MOUNT}\n${make('ours')}\n${SHOW}`, {
      folders: [{ id: 's', path: folder, securityModel: model, readOnly: false }],
      devices: [{ driver: 'virtio-9p-pci', fsdev: 's', mount_tag: 'shared' }],
    });
    for (const line of [...expected('theirs'), ...expected('ours')]) assert.match(ours, line, ours);
    const seen = runQemu(guest, folder, model, `${MOUNT}\n${SHOW}`);
    for (const line of [...expected('theirs'), ...expected('ours')]) assert.match(seen, line, seen);
  });
}
