/** Debian's kernels with their modules, for tests of devices; runs a script and says what it printed. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { Machine, type MachineConfig } from 'virelay';
import { dependency, type GuestFiles, guestFiles, packageTree } from '../src/cli/guest-files.ts';
import { SILENT } from '../src/cli/progress.ts';
import type { ArchiveEntry } from '../src/guest/cpio.ts';
import { initramfs } from '../src/guest/initramfs.ts';
import { moduleFiles } from './modules.ts';

const MIB = 2 ** 20;

export interface Guest {
  readonly files: GuestFiles;
  readonly kernel: Uint8Array;
  /** Folder of the kernel's modules. */
  readonly modules: string;
}

/** @param folders of modules, below kernel/ */
async function fetchGuest(name: string, meta: string, folders: readonly string[]): Promise<Guest> {
  const choose = async (options: readonly string[]): Promise<string[]> => [await dependency(options, meta, /linux-image-\d\S+/)];
  const only = ['./boot/vmlinuz-*', ...folders.map((folder) => `./lib/modules/*/kernel/${folder}/*`)];
  const tree = await packageTree(name, choose, SILENT, { only });
  const image = readdirSync(join(tree, 'boot')).find((one) => one.startsWith('vmlinuz-'))!;
  return {
    files: await guestFiles(SILENT),
    kernel: readFileSync(join(tree, 'boot', image)),
    modules: join(tree, 'lib/modules', image.slice('vmlinuz-'.length), 'kernel'),
  };
}

const GUESTS = {
  cloud: { meta: 'linux-image-cloud-amd64', folders: ['net', 'fs', 'drivers', 'lib', 'crypto'] },
  // The cloud's kernel has no 9P, and no cards of Intel's.
  general: {
    meta: 'linux-image-amd64',
    folders: ['net/9p', 'fs/9p', 'fs/netfs', 'fs/fscache', 'drivers/virtio', 'drivers/net/ethernet/intel/e1000'],
  },
};
const fetched = new Map<string, Promise<Guest | string>>();

export async function guestOrSkip(t: TestContext, kind: keyof typeof GUESTS = 'cloud'): Promise<Guest | null> {
  const { meta, folders } = GUESTS[kind];
  // What was fetched for other folders lacks some of these.
  const name = `linux-${kind}-${createHash('sha256').update(folders.join()).digest('hex').slice(0, 8)}`;
  const fetching = fetched.get(kind) ?? fetchGuest(name, meta, folders).catch((error: Error) => error.message);
  fetched.set(kind, fetching);
  const found = await fetching;
  if (typeof found !== 'string') return found;
  t.skip(found);
  return null;
}

/** Commands by which eth0 gets an address, and says from whom. */
export const GET_ADDRESS = `ip link set eth0 up
cat >/tmp/dhcp <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev $interface
ip route add default via $router
echo $ip from $serverid
END
chmod +x /tmp/dhcp
udhcpc -i eth0 -q -n -s /tmp/dhcp`;

/** What comes of a script: `result` ends the machine. */
export type Session = { machine: Machine; text: Promise<string> };

/** Starts a machine whose init loads modules, runs a script and turns the machine off. */
export async function startGuest(
  { files, kernel, modules }: Guest,
  wanted: readonly string[],
  script: string,
  more: Partial<MachineConfig>,
  programs: readonly ArchiveEntry[] = [],
): Promise<Session> {
  const { files: extra, load } = moduleFiles(modules, wanted);
  const init = `exec >/dev/console 2>&1\n${load}\n${script}\npoweroff -f\n`;
  const machine = await Machine.create({
    memory: 256 * MIB,
    append: 'console=ttyS0 panic=-1',
    noReboot: true,
    kernel: { name: 'vmlinuz', data: kernel },
    initrd: { name: 'initramfs', data: initramfs(files, init, [...extra, ...programs]) },
    ...more,
  });
  return { machine, text: textOf(machine.serial[0]!.readable) };
}

/** Everything that comes, as text. */
export async function textOf(readable: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of readable) text += decoder.decode(chunk, { stream: true });
  return text;
}

/** Runs a script to the machine's end. @returns what was printed */
export async function runGuest(...args: Parameters<typeof startGuest>): Promise<string> {
  const { machine, text } = await startGuest(...args);
  await using _ended = machine;
  // Waited for here: the machine is let go when this function ends.
  return await text;
}
