/** A whole Debian system on a disk image, made once by the distribution's bootstrap tool and kept in the user's cache. */
import { execFileSync } from 'node:child_process';
import { chmodSync, closeSync, cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync } from 'node:fs';
import { rmSync, statSync, symlinkSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from '../src/cli/guest-files.ts';
import { bootArea, type GrubTools, grubTools } from './grub-disk.ts';

const MIB = 2 ** 20;
const PARTITION_AT = MIB;
const PARTITION_SIZE = 1200 * MIB;
const SUITE = 'bookworm';
const PACKAGES = [
  ...['systemd-sysv', 'udev', 'dbus', 'login', 'passwd', 'e2fsprogs', 'iproute2', 'wget'],
  ...['openssh-server', 'linux-image-cloud-amd64'],
];
const KERNEL_OPTIONS = 'root=/dev/vda1 ro console=ttyS0 quiet';
const IMG = join(import.meta.dirname, '..', 'bin', 'virelay-img');
const SYSTEM_PATH = `${process.env['PATH']}:/usr/sbin:/sbin`;
const run = (command: string, args: readonly string[]): void =>
  void execFileSync(command, args, { stdio: 'pipe', timeout: 1_200_000, env: { ...process.env, PATH: SYSTEM_PATH } });

export interface DebianImage {
  /** Path of a qcow2 image, which must not be written to: machines get overlays of it. */
  readonly image: string;
  /** Path of the private key that root's account lets in. */
  readonly key: string;
}

/** @returns the image, or a line that says why it cannot be had */
export function debianImage(): DebianImage | string {
  const folder = join(cacheFolder(), 'test', `debian-${SUITE}`);
  if (!existsSync(folder)) {
    const why = whyNot();
    if (why !== null) return why;
    const work = mkdtempSync(join(cacheFolder(), 'debian-'));
    try {
      build(work, grubTools() as GrubTools);
      if (!existsSync(folder)) renameSync(join(work, 'ready'), folder);
    } catch (error) {
      return `the Debian image cannot be made: ${(error as Error).message.split('\n')[0]!}`;
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  return { image: join(folder, 'disk.qcow2'), key: join(folder, 'key') };
}

function whyNot(): string | null {
  if (process.getuid?.() !== 0) return 'only root can bootstrap a system';
  mkdirSync(join(cacheFolder(), 'test'), { recursive: true });
  for (const [command, option] of [
    ['debootstrap', '--version'],
    ['mkfs.ext4', '-V'],
    ['ssh', '-V'],
  ] as const) {
    try {
      run(command, [option]);
    } catch {
      return `${command} is not installed`;
    }
  }
  const tools = grubTools();
  return typeof tools === 'string' ? tools : null;
}

function build(work: string, tools: GrubTools): void {
  const root = join(work, 'root');
  const ready = join(work, 'ready');
  mkdirSync(ready);
  run('debootstrap', ['--variant=minbase', `--include=${PACKAGES.join()}`, SUITE, root]);
  run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(ready, 'key')]);
  configure(root, readFileSync(join(ready, 'key.pub'), 'utf8'), tools);
  const raw = join(work, 'disk.raw');
  makeRaw(work, root, raw, tools);
  run(IMG, ['convert', '-O', 'qcow2', raw, join(ready, 'disk.qcow2')]);
}

/** What an installer would ask for. */
function configure(root: string, publicKey: string, tools: GrubTools): void {
  const write = (path: string, text: string): void => writeFileSync(join(root, path), text);
  write('etc/hostname', 'debian\n');
  write('etc/hosts', '127.0.0.1 localhost debian\n10.0.2.2 host.test\n');
  write('etc/fstab', '/dev/vda1 / ext4 errors=remount-ro 0 1\n');
  rmSync(join(root, 'etc/resolv.conf'), { force: true });
  write('etc/resolv.conf', 'nameserver 10.0.2.3\n');
  write('etc/systemd/network/card.network', '[Match]\nName=e*\n[Network]\nDHCP=ipv4\n');
  mkdirSync(join(root, 'etc/systemd/system/multi-user.target.wants'), { recursive: true });
  symlinkSync(
    '/lib/systemd/system/systemd-networkd.service',
    join(root, 'etc/systemd/system/multi-user.target.wants/systemd-networkd.service'),
  );
  mkdirSync(join(root, 'root/.ssh'), { recursive: true, mode: 0o700 });
  write('root/.ssh/authorized_keys', publicKey);
  run('chroot', [root, 'passwd', '-d', 'root']);
  rmSync(join(root, 'var/cache/apt'), { recursive: true, force: true });
  rmSync(join(root, 'var/lib/apt/lists'), { recursive: true, force: true });
  cpSync(tools.modules, join(root, 'boot/grub/i386-pc'), { recursive: true, filter: (path) => !path.endsWith('.module') });
  write(
    'boot/grub/grub.cfg',
    `serial --unit=0\nterminal_input serial console\nterminal_output serial console\nset timeout=0\n` +
      `menuentry "Debian" {\n  linux /vmlinuz ${KERNEL_OPTIONS}\n  initrd /initrd.img\n}\n`,
  );
  chmodSync(join(root, 'boot/grub/grub.cfg'), 0o644);
}

/** Boot sector, GRUB and one partition with the tree. */
function makeRaw(work: string, root: string, raw: string, tools: GrubTools): void {
  const partition = join(work, 'partition');
  writeFileSync(partition, '');
  truncateSync(partition, PARTITION_SIZE);
  run('mkfs.ext4', ['-q', '-E', 'lazy_itable_init=0', '-d', root, partition]);
  const file = openSync(raw, 'w');
  writeSync(file, bootArea(work, tools, PARTITION_AT, statSync(partition).size));
  closeSync(file);
  run('dd', [`if=${partition}`, `of=${raw}`, 'bs=1M', `seek=${PARTITION_AT / MIB}`, 'conv=sparse,notrunc']);
  truncateSync(raw, PARTITION_AT + PARTITION_SIZE);
}
