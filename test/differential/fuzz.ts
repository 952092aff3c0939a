/** Random states and sequences, run by KVM and by the translator. */
import { parseCpu, withinHost } from '../../src/isa/x86/system/models.ts';
import { KvmHost } from '../../src/kvm/host.ts';
import { Kvm } from '../../src/kvm/system.ts';
import { Random } from '../native/generate.ts';
import { differencesOf, type Outcome } from './compare.ts';
import { isUser, makeMemory, makeState, MODES, type Mode, vectorAt } from './guest.ts';
import { JitSubject } from './jit.ts';
import { KvmSubject } from './kvm.ts';
import { choiceFor, makeSequence } from './sequences.ts';

export interface DifferentialOptions {
  readonly seed: number;
  readonly modes: readonly Mode[];
  /** At most so many cases of each mode. */
  readonly cases: number;
  /** At most so many seconds. */
  readonly seconds: number;
  /** The host's KVM lacks a part: what it cannot go on with is no difference. */
  readonly lenient: boolean;
}

export interface DifferentialResult {
  /** By mode: cases compared, and cases that this KVM cannot run. */
  readonly counts: ReadonlyMap<Mode, { compared: number; beyond: number }>;
  readonly failures: readonly string[];
}

const MOST_FAILURES = 200;

/**
 * What a KVM does otherwise that has no help of the processor's (kvm_pvm): its guests' programs run with the host's own
 * privilege, whose IOPL, segments, descriptors and page tables they see, and by whose gates they leave; the rest is emulated, in part.
 */
const PVM = {
  skipped:
    /INT|SYSCALL|SYSENTER|SWAPGS|GSBASE|Sreg|[FG]S\b|DR6|CLI|STI|PUSHF|X[GS]ETBV|CR|VER|LAR|LSL|S[LGI]DT|STR\b|SMSW|^F|; F/,
  flags: 0x3000,
} as const;

/** Such a KVM cannot go on, or does not deliver exceptions to code that it has to emulate. */
function isBeyond(mode: Mode, ours: Outcome, theirs: Outcome): boolean {
  if (theirs.ended !== 'end') return true;
  return !isUser(mode) && vectorAt(ours.state.fields['rip'] as bigint) >= 0;
}

export function runDifferential({ seed, modes, cases, seconds, lenient }: DifferentialOptions): DifferentialResult {
  const host = new KvmHost(new Kvm());
  const model = withinHost(parseCpu('max').model, host.features()).model;
  const [ours, theirs] = [new JitSubject(model), new KvmSubject(host, model)];
  const choice = choiceFor(model.has);
  const counts = new Map(modes.map((mode) => [mode, { compared: 0, beyond: 0 }]));
  const failures: string[] = [];
  const end = performance.now() + 1000 * seconds;
  for (let round = 0; round < cases && performance.now() < end; round++) {
    for (const mode of modes) {
      // Each case can be made again by its own number.
      const number = seed + round * MODES.length + MODES.indexOf(mode);
      const random = new Random(Math.imul(number, 0x9e3779b1));
      const sequence = makeSequence(mode, random, choice);
      const step = {
        mode,
        memory: makeMemory(mode, sequence.code, random),
        state: makeState(mode, sequence.gpr, random, model.has),
      };
      const mine = ours.run(step);
      if (mine.ended === 'no end' || (lenient && PVM.skipped.test(sequence.name))) continue;
      // Nor is it asked whether programs may use the FPU.
      if (lenient && isUser(mode) && ((step.state.fields['cr0'] as bigint) & 8n) !== 0n) continue;
      const outcome = theirs.run(step);
      const count = counts.get(mode)!;
      if (lenient && isBeyond(mode, mine, outcome)) {
        count.beyond++;
        continue;
      }
      count.compared++;
      const rules = { undefinedFlags: sequence.undefinedFlags | (lenient ? PVM.flags : 0), tables: !lenient };
      const list = differencesOf(step, mine, outcome, rules);
      if (list.length === 0 || failures.length >= MOST_FAILURES) continue;
      const bytes = Buffer.from(sequence.code).toString('hex');
      failures.push(`${number} ${mode} ${sequence.name} (${bytes}): ${list.slice(0, 6).join('; ')}`);
    }
  }
  theirs.close();
  return { counts, failures };
}

export { MODES, type Mode } from './guest.ts';

/** @returns modes whose guests this KVM runs a part of */
export const modesOf = (complete: boolean): readonly Mode[] =>
  complete
    ? MODES
    : MODES.filter(
        (mode) => mode === 'real16' || mode === 'prot16' || mode === 'prot32' || mode === 'long64' || mode === 'user64',
      );
