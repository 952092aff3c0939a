/** Small root file systems around a static busybox. */
import { type ArchiveEntry, characterDevice, directory, file, symlink, writeArchive } from './cpio.ts';

export interface Busybox {
  readonly busybox: Uint8Array;
  /** Its commands; when empty, the guest makes the links itself. */
  readonly applets: readonly string[];
}

const FOLDERS = ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp'];

/** The shell's prompt, by which a program can tell that the guest listens. */
export const PROMPT = '/ # ';

const INTERPRETER = '#!/bin/busybox sh';
const MOUNTS = `
[ -e /bin/mount ] || /bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
`;

/** A shell with job control on the console; the machine goes off when it ends. */
const SHELL_INIT = `
exec </dev/console >/dev/console 2>&1
[ -z "$COLUMNS" ] || stty cols "$COLUMNS" rows "$LINES"
unset COLUMNS LINES
export PS1='${PROMPT}'
setsid cttyhack sh
poweroff -f
`;

/**
 * @param init the rest of /init, after the usual mounts
 * @param extra directories come before their files
 * @param first commands of the shell's own that come before everything else
 * @returns a root file system with /init
 */
export function initramfs(
  { busybox, applets }: Busybox,
  init: string,
  extra: readonly ArchiveEntry[] = [],
  first = '',
): Uint8Array {
  return writeArchive([
    ...FOLDERS.map(directory),
    characterDevice('dev/console', 5, 1),
    file('bin/busybox', busybox),
    ...applets.filter((name) => name !== 'busybox').map((name) => symlink(`bin/${name}`, 'busybox')),
    file('init', `${INTERPRETER}\n${first}\n${MOUNTS}${init}`),
    ...extra,
  ]);
}

export function shellInitramfs(busybox: Busybox): Uint8Array {
  return initramfs(busybox, SHELL_INIT);
}
