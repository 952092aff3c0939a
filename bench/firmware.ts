/** From power-on to GRUB's menu: SeaBIOS and a boot loader from disk, told apart by what they say at the serial port. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { grubTools, makeDisk } from '../test/grub-disk.ts';
import type { Emulator } from './emulators.ts';
import { touchFor } from './host-memory.ts';

const CONFIG = `
set timeout=60
menuentry "Begin" { true }
menuentry "Finish" { true }
`;
/** What shows that the emulator, its firmware, the boot loader, and its menu are there. */
const MARKS = { firmware: 'SeaBIOS', 'boot loader': 'GRUB', menu: 'Finish' } as const;
type Mark = keyof typeof MARKS;
const TIMEOUT_MS = 60_000;
/** MiB. */
const MEMORY = 256;

/** Milliseconds from the start of the process to each mark. */
export type Milestones = Record<Mark, number>;

function measure(emulator: Emulator, disk: string): Promise<Milestones> {
  touchFor(MEMORY);
  const args = [...emulator.args, '-m', String(MEMORY), '-nographic', '-snapshot', '-drive', `file=${disk},format=raw`];
  const child = spawn(emulator.command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const start = performance.now();
  const limit = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
  const seen = Object.fromEntries(Object.keys(MARKS).map((mark) => [mark, NaN])) as Milestones;
  let text = '';
  return new Promise((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      for (const mark of Object.keys(MARKS) as Mark[]) {
        if (Number.isNaN(seen[mark]) && text.includes(MARKS[mark])) seen[mark] = performance.now() - start;
      }
      // In good order: Node.js keeps what it has compiled for the next time.
      if (!Number.isNaN(seen.menu)) child.kill('SIGTERM');
    });
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(limit);
      if (Number.isNaN(seen.menu)) reject(new Error(`${emulator.name}: no menu\n${text.slice(-500)}`));
      else resolve(seen);
    });
  });
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}

/** Measures all emulators in turn and prints the medians. @returns the medians by the emulators' names */
export async function benchFirmware(emulators: readonly Emulator[], rounds: number): Promise<Record<string, Milestones>> {
  const tools = grubTools();
  if (typeof tools === 'string') throw new Error(tools);
  const folder = mkdtempSync(join(tmpdir(), 'virelay-bench-'));
  try {
    const disk = join(folder, 'disk');
    writeFileSync(disk, makeDisk(folder, tools, { 'boot/grub/grub.cfg': CONFIG }));
    const runs = new Map<string, Milestones[]>(emulators.map(({ name }) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      for (const emulator of emulators) runs.get(emulator.name)!.push(await measure(emulator, disk));
    }
    const marks = Object.keys(MARKS) as Mark[];
    console.log(['', ...marks].map((text) => text.padStart(14)).join(''));
    const medians: Record<string, Milestones> = {};
    for (const [name, list] of runs) {
      const middle = marks.map((mark) => median(list.map((one) => one[mark])));
      medians[name] = Object.fromEntries(marks.map((mark, i) => [mark, middle[i]!])) as Milestones;
      console.log(name.padEnd(14) + middle.map((ms) => `${ms.toFixed(0)} ms`.padStart(14)).join(''));
    }
    return medians;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
