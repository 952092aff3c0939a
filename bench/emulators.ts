/** Runs the benchmark's guest under one emulator and reads off what it prints. */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { touchFor } from './host-memory.ts';
import { END_MARK, START_MARK } from './image.ts';

export interface Emulator {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
}

export interface Result {
  readonly group: string;
  readonly name: string;
  readonly checksum: string;
  readonly microseconds: number;
}

export interface Run {
  readonly results: readonly Result[];
  /** From the start of the process to the first words of /init. */
  readonly bootMs: number;
  /** Highest resident memory of the process and its children. */
  readonly peakKiB: number;
}

const ROOT = join(import.meta.dirname, '..');
/** Rarely: a look at all processes takes time from the emulator that is measured. */
const SAMPLE_MS = 400;

export function virelay(accel: string, extra: readonly string[]): Emulator {
  return {
    name: accel === 'jit' ? 'virelay' : `virelay-${accel}`,
    command: join(ROOT, 'bin', 'virelay-system-x86_64'),
    args: ['-accel', accel, ...extra],
  };
}

export function qemu(extra: readonly string[]): Emulator {
  return { name: 'qemu', command: 'qemu-system-x86_64', args: ['-accel', 'tcg', ...extra] };
}

export function parseResults(text: string): Result[] {
  return [...text.matchAll(/^RESULT (\S+) (\S+) ([0-9a-f]{16}) (\d+)\s*$/gm)].map(([, group, name, checksum, time]) => ({
    group: group!,
    name: name!,
    checksum: checksum!,
    microseconds: Number(time),
  }));
}

function processTree(root: number): number[] {
  const parents = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
        return [Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])] as const;
      } catch {
        return [Number(name), -1] as const;
      }
    });
  const tree = [root];
  for (let i = 0; i < tree.length; i++) {
    tree.push(...parents.filter(([, parent]) => parent === tree[i]).map(([id]) => id));
  }
  return tree;
}

/** The kernel keeps each process's peak; it only has to be read before the process is gone. */
class MemoryWatch {
  private readonly peaks = new Map<number, number>();
  private readonly timer: NodeJS.Timeout;

  constructor(root: number) {
    this.timer = setInterval(() => this.sample(root), SAMPLE_MS);
  }

  stop(): number {
    clearInterval(this.timer);
    return [...this.peaks.values()].reduce((sum, peak) => sum + peak, 0);
  }

  private sample(root: number): void {
    for (const id of processTree(root)) {
      try {
        const match = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, 'latin1'));
        if (match !== null) this.peaks.set(id, Number(match[1]));
      } catch {
        // It has just ended.
      }
    }
  }
}

export interface GuestOptions {
  /** Variables that the guest's scripts find in their environment. */
  readonly variables: Record<string, string>;
  /** Options of the emulator's, of drives and networks. */
  readonly devices?: readonly string[];
  /** MiB. */
  readonly memory: string;
  readonly timeoutS: number;
}

export function runGuest(
  emulator: Emulator,
  image: { readonly kernel: string; readonly initrd: string },
  options: GuestOptions,
): Promise<Run> {
  const variables = Object.entries(options.variables).map(([name, value]) => `${name}=${value}`);
  const append = ['console=ttyS0', 'quiet', 'panic=-1', ...variables].join(' ');
  const args = [
    ...emulator.args,
    '-m',
    options.memory,
    '-kernel',
    image.kernel,
    '-initrd',
    image.initrd,
    '-append',
    append,
    '-nodefaults',
    '-display',
    'none',
    '-serial',
    'stdio',
    '-no-reboot',
    ...(options.devices ?? []),
  ];
  touchFor(Number.parseInt(options.memory, 10));
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(emulator.command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const watch = new MemoryWatch(child.pid ?? -1);
    const limit = setTimeout(() => child.kill('SIGKILL'), options.timeoutS * 1000);
    let text = '';
    let errors = '';
    let bootMs = NaN;
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (Number.isNaN(bootMs) && text.includes(START_MARK)) bootMs = performance.now() - start;
    });
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    child.on('error', reject);
    child.on('close', (status) => {
      clearTimeout(limit);
      const peakKiB = watch.stop();
      if (text.includes(END_MARK) && status === 0) {
        resolve({ results: parseResults(text), bootMs, peakKiB });
      } else {
        reject(new Error(`${emulator.name}: status ${status} before the end\n${errors}${text.slice(-2000)}`));
      }
    });
  });
}
