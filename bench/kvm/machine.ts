/**
 * What a machine under KVM costs before and beside its guest, as users get it (built by scripts/build.ts): milliseconds from
 * the start of the process to a byte that the guest's first instructions write, memory beyond the guest's, and
 * milliseconds that a change of accelerator takes.
 *
 *     node --no-warnings bench/kvm/machine.ts [ROUNDS]
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from '../../scripts/build.ts';
import { median } from '../report.ts';

const ROOT = join(import.meta.dirname, '../..');
const ROUNDS = Number(process.argv[2] ?? 11);
const MIB = 2 ** 20;
const LIMITS = { start: 150, resident: 80, change: 50 } as const;

/** mov dx, 0e9h; mov al, 'x'; out dx, al; jmp $ */
const SAYS_X = [0xba, 0xe9, 0x00, 0xb0, 0x78, 0xee, 0xeb, 0xfe];

/** A firmware of a few instructions, at the place where processors begin. */
function firmware(): Uint8Array {
  const image = new Uint8Array(0x1_0000).fill(0xf4);
  image.set(SAYS_X, 0xfff0);
  return image;
}

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
  await setTimeout(lingers);
  const mib = statusOf(child.pid!, 'VmRSS') / 1024;
  child.kill('SIGKILL');
  await once(child, 'close');
  return [ms, mib];
}

/** @returns milliseconds of each change from one to the other and back */
async function changes(image: string): Promise<{ toJit: number[]; toKvm: number[] }> {
  const { Machine } = (await import(join(ROOT, 'dist/app/index.js'))) as typeof import('virelay');
  const bios = { name: 'firmware', data: new Uint8Array(readFileSync(image)) };
  const machine = await Machine.create({ accel: 'kvm', memory: 256 * MIB, bios, serials: [] });
  const timed = async (name: 'jit' | 'kvm'): Promise<number> => {
    const begun = performance.now();
    await machine.setAccelerator(name);
    return performance.now() - begun;
  };
  const toJit: number[] = [];
  const toKvm: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    toJit.push(await timed('jit'));
    toKvm.push(await timed('kvm'));
  }
  await machine.quit();
  return { toJit, toKvm };
}

const work = mkdtempSync(join(tmpdir(), 'virelay-bench-'));
try {
  await build(join(ROOT, 'dist/app'));
  const image = join(work, 'firmware');
  writeFileSync(image, firmware());
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
  const { toJit, toKvm } = await changes(image);
  const show = (list: number[]): string => `${median(list).toFixed(1)} ms (first ${list[0]!.toFixed(1)})`;
  console.log(`change of accelerator: to jit ${show(toJit)}, to kvm ${show(toKvm)} (limit ${LIMITS.change})`);
} finally {
  rmSync(work, { recursive: true });
}
process.exit();
