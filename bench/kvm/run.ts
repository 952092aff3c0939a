/**
 * What a port access of a guest costs beyond what the host's KVM takes for it: the same guest under a loop in C, under
 * ours (plain), and under ours as a machine runs it, which is told when its event loop has something to do
 * (watched). In turn, round by round:
 *
 *     node --no-warnings bench/kvm/run.ts [ROUNDS [EXITS]]
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { EXIT } from '../../src/kvm/constants.ts';
import { describeExit } from '../../src/kvm/describe.ts';
import { realMode } from '../../src/kvm/guest-modes.ts';
import { Kicker } from '../../src/kvm/kicker.ts';
import { Kvm } from '../../src/kvm/system.ts';
import type { Vcpu } from '../../src/kvm/vcpu.ts';
import { median } from '../report.ts';

const rounds = Number(process.argv[2] ?? 15);
const exits = Number(process.argv[3] ?? 20_000);
/** Ours must not take longer than so many times C. */
const LIMIT = 1.3;
let turns = 0;

const CODE = 0x1000;
const MEMORY = 0x1_0000;
/** out 42h, al; in al, 42h; jmp back */
const GUEST = [0xe6, 0x42, 0xe4, 0x42, 0xeb, 0xfa];

/** Carries one port access out. @returns what the guest has written */
function answer(vcpu: Vcpu, reason: number, value: number): number {
  const { run } = vcpu;
  if (reason !== EXIT.KVM_EXIT_IO) throw new Error(describeExit(run));
  if (run.ioIsOut) return run.ioValue(0);
  run.setIoValue(0, value + 1);
  return value;
}

function plainRound(vcpu: Vcpu): number {
  let value = 0;
  const start = performance.now();
  for (let n = 0; n < exits; ) {
    const reason = vcpu.enter();
    // The last round's alarm.
    if (reason === EXIT.KVM_EXIT_INTR) continue;
    value = answer(vcpu, reason, value);
    n++;
  }
  return ((performance.now() - start) * 1e6) / exits;
}

/** The loop has its turn when it wants it, which counts. */
async function watchedRound(vcpu: Vcpu, kicker: Kicker): Promise<number> {
  const turn = (): Promise<void> => new Promise((resolve) => kicker.afterEvents(resolve));
  let value = 0;
  await turn();
  const start = performance.now();
  for (let n = 0; n < exits; ) {
    if (kicker.mayStay || kicker.enter(1000)) {
      const reason = vcpu.enter();
      if (reason !== EXIT.KVM_EXIT_INTR) {
        value = answer(vcpu, reason, value);
        n++;
        continue;
      }
    }
    turns++;
    kicker.leave();
    await turn();
  }
  const time = ((performance.now() - start) * 1e6) / exits;
  kicker.leave();
  return time;
}

async function main(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'virelay-bench-'));
  const program = join(folder, 'exits');
  const kvm = new Kvm();
  const vm = kvm.createVm();
  const kicker = new Kicker(kvm.libc);
  try {
    execFileSync('gcc', ['-O2', '-o', program, join(import.meta.dirname, 'exits.c')]);
    const c = spawn(program, [String(exits)], { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface({ input: c.stdout });
    const { buffer } = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
    const memory = new Uint8Array(buffer, 0, MEMORY);
    memory.set(GUEST, CODE);
    vm.setMemory({ slot: 0, guestAddress: 0, size: MEMORY, hostAddress: kvm.libc.addressOf(memory) });
    const vcpu = vm.createVcpu(0, new Uint8Array(buffer, MEMORY, kvm.vcpuMapSize));
    vcpu.set('sregs', realMode(vcpu.get('sregs')));
    vcpu.set('regs', { rip: BigInt(CODE), rflags: 2n });
    kicker.watch(vcpu);
    const times: Record<string, number[]> = { C: [], plain: [], watched: [] };
    for (let round = 0; round < rounds; round++) {
      c.stdin.write('\n');
      times['C']!.push(Number((await once(lines, 'line'))[0]));
      times['plain']!.push(plainRound(vcpu));
      times['watched']!.push(await watchedRound(vcpu, kicker));
    }
    c.stdin.end();
    return report(times);
  } finally {
    kicker.close();
    vm.close();
    kvm.close();
    rmSync(folder, { recursive: true });
  }
}

function report(times: Readonly<Record<string, readonly number[]>>): number {
  const base = median(times['C']!);
  for (const [name, list] of Object.entries(times)) {
    const time = median(list);
    console.log(`${name.padEnd(8)} ${time.toFixed(0).padStart(7)} ns an exit, ${(time / base).toFixed(2)} times C`);
  }
  console.log(`the event loop had its turn ${(turns / rounds).toFixed(0)} times a round`);
  return median(times['watched']!) / base <= LIMIT ? 0 : 1;
}

process.exitCode = await main();
