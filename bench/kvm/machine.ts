/**
 * What a machine under KVM costs before and beside its guest, as users get it (built by scripts/build.ts): milliseconds from
 * the start of the process to a byte that the guest's first instructions write, memory beyond the guest's, and
 * milliseconds that a change of accelerator takes, of which the guest stands still for a part.
 *
 *     node --no-warnings bench/kvm/machine.ts [ROUNDS]
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as after } from 'node:timers/promises';
import { build } from '../../scripts/build.ts';
import { median } from '../report.ts';

const ROOT = join(import.meta.dirname, '../..');
/** Argument of a process that changes the accelerator of a machine a few times. */
const CHANGES = 'changes';
const ROUNDS = Number(process.argv[2] ?? 11);
const MIB = 2 ** 20;
/** Milliseconds after a change, and before the next. */
const SETTLES_MS = 30;
const LIMITS = { start: 150, resident: 80, change: 50 } as const;

/** mov dx, 0e9h; mov al, 'x'; out dx, al; jmp $ */
const SAYS_X = [0xba, 0xe9, 0x00, 0xb0, 0x78, 0xee, 0xeb, 0xfe];

/** Bits of the time-stamp counter that a pause is counted in: a quarter of a millisecond at 2 GHz. */
const PAUSE_SHIFT = 19;

/** Tells by a byte of each time that it has stood still, in units of 1 << PAUSE_SHIFT ticks. */
const TELLS_PAUSES = [
  ...[0xba, 0xe9, 0x00, 0x0f, 0x31, 0x66, 0x89, 0xc3], // mov dx, 0e9h; rdtsc; mov ebx, eax
  ...[0xba, 0xe9, 0x00, 0x0f, 0x31, 0x66, 0x89, 0xc1], // again: mov dx, 0e9h; rdtsc; mov ecx, eax
  ...[0x66, 0x29, 0xd9, 0x66, 0x89, 0xc3], // sub ecx, ebx; mov ebx, eax
  ...[0x66, 0xc1, 0xe9, PAUSE_SHIFT], // shr ecx, PAUSE_SHIFT
  ...[0x74, 0xec], // jz again
  ...[0x88, 0xc8, 0xba, 0xe9, 0x00, 0xee, 0xeb, 0xe4], // mov al, cl; mov dx, 0e9h; out dx, al; jmp again
];

/** A firmware of a few instructions, at the place where processors begin. */
function firmware(code: readonly number[]): Uint8Array {
  const image = new Uint8Array(0x1_0000).fill(0xf4);
  image.set(code, 0xff00);
  image.set([0xe9, 0x0d, 0xff], 0xfff0); // jmp 0ff00h
  return image;
}

/** Ticks of the time-stamp counter in a millisecond. */
const ticksPerMs = (): number => 1000 * Number(/^cpu MHz\s*: ([\d.]+)/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 1000);

/** Kilobytes, of /proc/PID/status. */
const statusOf = (pid: number, field: string): number =>
  Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);

/** @param lingers milliseconds that the machine runs on  @returns milliseconds to the guest's first byte, MiB resident at the end */
async function startOnce(accel: string, image: string, lingers = 0): Promise<[ms: number, mib: number]> {
  const args = [
    '-accel',
    accel,
    '-m',
    '256',
    '-bios',
    image,
    '-debugcon',
    'stdio',
    '-display',
    'none',
    '-serial',
    'none',
    '-vga',
    'none',
  ];
  const begun = performance.now();
  const child = spawn(join(ROOT, 'bin/virelay-system-x86_64'), args, {
    env: { ...process.env, VIRELAY_BUILT: '1' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(child.stdout!, 'data');
  const ms = performance.now() - begun;
  await after(lingers);
  const mib = statusOf(child.pid!, 'VmRSS') / 1024;
  child.kill('SIGKILL');
  await once(child, 'close');
  return [ms, mib];
}

interface Change {
  /** Milliseconds from the call to its answer. */
  readonly call: number;
  /** Milliseconds of it that the guest stood still at one time, at most. */
  readonly pause: number;
}
type Changes = Record<'jit' | 'kvm', Change[]>;

/** @param lingers milliseconds that the machine runs on  @returns each change from one to the other and back */
async function changes(rounds: number, lingers = 0): Promise<Changes> {
  const { Machine } = (await import(join(ROOT, 'dist/app/index.js'))) as typeof import('virelay');
  const bios = { name: 'firmware', data: firmware(TELLS_PAUSES) };
  const machine = await Machine.create({ accel: 'kvm', memory: 256 * MIB, bios, serials: [], debugcon: { iobase: 0xe9 } });
  let longest = 0;
  void (async () => {
    for await (const told of machine.debugcon!.readable) longest = Math.max(longest, ...told);
  })();
  const made: Changes = { jit: [], kvm: [] };
  for (let round = 0; round < rounds; round++) {
    for (const name of ['jit', 'kvm'] as const) {
      await after(SETTLES_MS);
      longest = 0;
      const begun = performance.now();
      await machine.setAccelerator(name);
      const call = performance.now() - begun;
      await after(SETTLES_MS);
      made[name].push({ call, pause: (longest * 2 ** PAUSE_SHIFT) / ticksPerMs() });
    }
  }
  await after(lingers);
  await machine.quit();
  return made;
}

/** A process of its own, since the first change of each is what takes longest. */
async function changesOfProcess(): Promise<Changes> {
  const child = spawn(process.execPath, ['--no-warnings', import.meta.filename, CHANGES], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  for await (const piece of child.stdout) text += String(piece);
  return JSON.parse(text) as Changes;
}

async function benchChanges(): Promise<void> {
  // What is compiled is kept for the processes after this one.
  await changes(1, 2000);
  const all: Changes[] = [];
  for (let round = 0; round < ROUNDS; round++) all.push(await changesOfProcess());
  const show = (list: readonly Change[]): string =>
    `${median(list.map((one) => one.call)).toFixed(1)} ms, pause ${median(list.map((one) => one.pause)).toFixed(1)} ms`;
  for (const name of ['jit', 'kvm'] as const) {
    const [first, later] = [all.map((one) => one[name][0]!), all.flatMap((one) => one[name].slice(1))];
    console.log(`change of accelerator to ${name}: first ${show(first)}; later ${show(later)} (limit ${LIMITS.change})`);
  }
}

async function benchStarts(): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), 'virelay-bench-'));
  try {
    const image = join(work, 'firmware');
    writeFileSync(image, firmware(SAYS_X));
    const starts: Record<string, [number, number][]> = { kvm: [], jit: [] };
    // The first one fills the cache of compiled code, which it does when it has been running for a while.
    for (const accel of ['kvm', 'jit']) await startOnce(accel, image, 2000);
    for (let round = 0; round < ROUNDS; round++) {
      for (const accel of ['kvm', 'jit']) starts[accel]!.push(await startOnce(accel, image));
    }
    for (const [accel, list] of Object.entries(starts)) {
      const [ms, mib] = [median(list.map(([one]) => one)), median(list.map(([, one]) => one))];
      console.log(
        `${accel}: start to the first instruction ${ms.toFixed(0)} ms (limit for KVM ${LIMITS.start}), ${mib.toFixed(0)} MiB (${LIMITS.resident})`,
      );
    }
  } finally {
    rmSync(work, { recursive: true });
  }
}

if (process.argv[2] === CHANGES) console.log(JSON.stringify(await changes(4)));
else {
  await build(join(ROOT, 'dist/app'));
  await benchStarts();
  await benchChanges();
}
process.exit();
