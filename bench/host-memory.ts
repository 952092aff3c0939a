/**
 * Memory of the host's that an emulator finds: the same for all of them.
 *
 * A host that is a virtual machine itself may get memory only when it is touched, and give it back a few seconds after it was
 * freed (free page reporting). The first touch of a page then takes ten times as long as any other: a new file of 1 GiB is
 * written in 2.7 seconds there, and in a quarter of a second when what was just freed is taken again. Whoever runs second in
 * a comparison would have the memory of the first one.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync } from 'node:fs';

const PIECE = 1 << 20;

/** What an emulator may take beyond its guest's memory, MiB. */
const BESIDE_GUEST = 768;

/** Touches as much memory as an emulator takes, which is started next. @param guestMiB its guest's */
export function touchFor(guestMiB: number): void {
  const pieces = guestMiB + BESIDE_GUEST;
  execFileSync(process.execPath, ['-e', `const all = Array.from({ length: ${pieces} }, () => Buffer.alloc(${PIECE}, 1))`]);
}

/** Has the host's page cache hold a file: its holes, too, so that what is written to it finds memory there. */
export function readWhole(path: string): void {
  const buffer = new Uint8Array(PIECE);
  const fd = openSync(path, 'r');
  while (readSync(fd, buffer) > 0);
  closeSync(fd);
}
