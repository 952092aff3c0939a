/** Help of the image tool. */
import { readFileSync } from 'node:fs';
import { CREATABLE } from '../storage/create.ts';
import { DRIVER_NAMES } from '../storage/drivers.ts';
import { PROGRAM } from './img-args.ts';

const COMMANDS = `
  amend [--object OBJECT] [--image-opts] [-p] [-q] [-f FORMAT] [-t CACHE] [--force] -o OPTIONS FILE
  bench [-c COUNT] [-d DEPTH] [-f FORMAT] [--flush-interval=N] [-i AIO] [-n] [--no-drain] [-o OFFSET] [--pattern=BYTE]
        [-q] [-s SIZE] [-S STEP] [-t CACHE] [-w] [-U] FILE
  bitmap (--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b FILE [-F FORMAT]] [-g GRANULARITY]
        [--object OBJECT] [--image-opts | -f FORMAT] FILE BITMAP
  check [--object OBJECT] [--image-opts] [-q] [-f FORMAT] [--output=human|json] [-r leaks|all] [-T CACHE] [-U] FILE
  commit [--object OBJECT] [--image-opts] [-q] [-f FORMAT] [-t CACHE] [-b BASE] [-r RATE] [-d] [-p] FILE
  compare [--object OBJECT] [--image-opts] [-f FORMAT] [-F FORMAT] [-T CACHE] [-p] [-q] [-s] [-U] FILE1 FILE2
  convert [--object OBJECT] [--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps] [-U] [-c] [-p] [-q] [-n]
        [-f FORMAT] [-t CACHE] [-T CACHE] [-O FORMAT] [-B FILE [-F FORMAT]] [-o OPTIONS] [-l SNAPSHOT] [-S SIZE] [-r RATE]
        [-m PARALLEL] [-W] [--salvage] FILE... OUTPUT
  create [--object OBJECT] [-q] [-f FORMAT] [-b FILE [-F FORMAT]] [-u] [-o OPTIONS] FILE [SIZE]
  dd [--image-opts] [-U] [-f FORMAT] [-O FORMAT] [bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=FILE of=FILE
  info [--object OBJECT] [--image-opts] [-f FORMAT] [--output=human|json] [--backing-chain] [-U] FILE
  map [--object OBJECT] [--image-opts] [-f FORMAT] [--start-offset=N] [--max-length=N] [--output=human|json] [-U] FILE
  measure [--output=human|json] [-O FORMAT] [-o OPTIONS] [--size N | [--object OBJECT] [--image-opts] [-f FORMAT] FILE]
  rebase [--object OBJECT] [--image-opts] [-U] [-q] [-f FORMAT] [-t CACHE] [-T CACHE] [-p] [-u] -b FILE [-F FORMAT] FILE
  resize [--object OBJECT] [--image-opts] [-f FORMAT] [--preallocation=MODE] [-q] [--shrink] FILE [+|-]SIZE
  snapshot [--object OBJECT] [--image-opts] [-U] [-q] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT] FILE
`;

/** What each of the one-letter options means, wherever a command has it. */
const NOTES = `
  SIZE takes the suffixes k, M, G, T, P and E. OPTIONS is a list of name=value; "-o help" lists what a format has.
  -f, -F, -O name formats, of images that are read and of those that are written; without -f the tool looks.
  -p shows progress, -q says nothing, -U works on an image that is in use, -t and -T are cache modes
  (none, writeback, writethrough, directsync, unsafe).
  Exit status: 0 success, 1 failure; compare: 1 images differ, above 1 failure;
  check: 1 failure, 2 errors, 3 leaks, 63 the format has no checks.
`;

export function helpText(topic: 'help' | 'version'): string {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
  const head = `${PROGRAM} version ${version}\n`;
  if (topic === 'version') return head;
  return (
    `${head}usage: ${PROGRAM} COMMAND [OPTIONS]\n\nCommands:${COMMANDS}${NOTES}\n` +
    `Formats and protocols: ${DRIVER_NAMES.join(' ')}\nFormats that images can be made of: ${CREATABLE.join(' ')}\n`
  );
}
