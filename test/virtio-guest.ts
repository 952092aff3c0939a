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
import { LastWords } from './last-words.ts';
import { moduleFiles } from './modules.ts';

const MIB = 2 ** 20;

export interface Guest {
  readonly files: GuestFiles;
  readonly kernel: Uint8Array;
  /** Folder of the kernel's modules. */
  readonly modules: string;
}

/** @param places of modules, below kernel/: folders, or single ones */
async function fetchGuest(name: string, meta: string, places: readonly string[]): Promise<Guest> {
  const choose = async (options: readonly string[]): Promise<string[]> => [await dependency(options, meta, /linux-image-\d\S+/)];
  const files = places.map((place) => `./lib/modules/*/kernel/${place}${place.endsWith('.ko') ? '' : '/*'}`);
  const only = ['./boot/vmlinuz-*', ...files];
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
  // The cloud's kernel has no 9P, no memory cards, and no network cards of old.
  general: {
    meta: 'linux-image-amd64',
    folders: [
      ...['net/9p', 'fs/9p', 'fs/netfs', 'fs/fscache', 'drivers/virtio', 'drivers/mmc', 'drivers/ptp', 'drivers/pps'],
      ...['intel/e1000', 'intel/e1000e', 'realtek', '8390'].map((cards) => `drivers/net/ethernet/${cards}`),
      ...['drivers/block/virtio_blk.ko', 'drivers/net/mii.ko', 'drivers/net/mdio.ko'],
    ],
  },
  // A host for virtual machines.
  kvm: { meta: 'linux-image-cloud-amd64', folders: ['arch/x86/kvm', 'virt', 'drivers/virtio', 'drivers/block/virtio_blk.ko'] },
};
const fetched = new Map<string, Promise<Guest | string>>();

/** @throws Error, one line, when it cannot be had */
export function guestWithModules(kind: keyof typeof GUESTS): Promise<Guest> {
  const { meta, folders } = GUESTS[kind];
  // What was fetched for other folders lacks some of these.
  const name = `linux-${kind}-${createHash('sha256').update(folders.join()).digest('hex').slice(0, 8)}`;
  return fetchGuest(name, meta, folders);
}

export async function guestOrSkip(t: TestContext, kind: keyof typeof GUESTS = 'cloud'): Promise<Guest | null> {
  const fetching = fetched.get(kind) ?? guestWithModules(kind).catch((error: Error) => error.message);
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

/** A guest that carries out what it is told, one line after the other. */
export class Conversation {
  readonly machine: Machine;
  /** Everything that it has printed. */
  text = '';
  private readonly writer: WritableStreamDefaultWriter<Uint8Array>;
  private readonly lastWords: LastWords;
  private changed: (() => void) | null = null;
  private ended = false;
  private count = 0;

  constructor(machine: Machine) {
    this.machine = machine;
    this.lastWords = new LastWords(machine);
    const { readable, writable } = machine.serial[0]!;
    this.writer = writable.getWriter();
    void this.listen(readable);
  }

  /** Waits for text that has not been waited for yet. @throws Error when the machine ends before */
  async until(pattern: RegExp, from = 0): Promise<RegExpExecArray> {
    for (;;) {
      const found = pattern.exec(this.text.slice(from));
      if (found !== null) return found;
      if (this.ended) throw await this.lastWords.ended(`${pattern}`, this.text);
      await new Promise<void>((resolve) => {
        this.changed = resolve;
      });
    }
  }

  /** Gives it a command whose end nobody waits for. @returns where what it prints begins in `text`, for `until` */
  async tell(command: string): Promise<number> {
    const from = this.text.length;
    await this.writer.write(new TextEncoder().encode(`${command}\n`));
    return from;
  }

  /** @returns what a command prints */
  async run(command: string): Promise<string> {
    const from = this.text.length;
    const mark = `end-${++this.count}`;
    await this.writer.write(new TextEncoder().encode(`${command}; echo ${mark.replace('-', '"-"')}\n`));
    const { index } = await this.until(new RegExp(`^${mark}\r?$`, 'm'), from);
    return this.text.slice(from, from + index).replaceAll('\r', '');
  }

  private async listen(readable: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of readable) {
      this.text += decoder.decode(chunk, { stream: true });
      this.changed?.();
    }
    this.ended = true;
    this.changed?.();
  }
}

/** An initramfs whose init loads modules, says "listening", and carries out what it is told. */
export function listeningInitramfs(
  { files, modules }: Guest,
  wanted: readonly string[],
  programs: readonly ArchiveEntry[] = [],
): Uint8Array {
  const script = 'stty -echo </dev/console; echo listening; while read -r line </dev/console; do eval "$line"; done';
  const { files: extra, load } = moduleFiles(modules, wanted);
  return initramfs(files, `exec >/dev/console 2>&1\n${load}\n${script}\npoweroff -f\n`, [...extra, ...programs]);
}

/** Starts a machine that listens to commands once its modules are loaded. */
export async function talkTo(
  guest: Guest,
  wanted: readonly string[],
  more: Partial<MachineConfig>,
  programs: readonly ArchiveEntry[] = [],
): Promise<Conversation> {
  const machine = await Machine.create({
    memory: 256 * MIB,
    append: 'console=ttyS0 panic=-1',
    noReboot: true,
    kernel: { name: 'vmlinuz', data: guest.kernel },
    initrd: { name: 'initramfs', data: listeningInitramfs(guest, wanted, programs) },
    ...more,
  });
  const talk = new Conversation(machine);
  await talk.until(/^listening/m);
  return talk;
}
