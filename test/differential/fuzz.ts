/** Random states and sequences, run by KVM and by the translator. */
import { parseCpu, withinHost } from '../../src/isa/x86/system/models.ts';
import { KvmHost } from '../../src/kvm/host.ts';
import { Kvm } from '../../src/kvm/system.ts';
import { Random } from '../native/generate.ts';
import { differencesOf, fieldDifferences } from './compare.ts';
import { makeMemory, makeState, MODES, type Mode } from './guest.ts';
import type { HostKind } from './hosts.ts';
import { JitSubject } from './jit.ts';
import { KvmSubject } from './kvm.ts';
import { choiceFor, makeSequence } from './sequences.ts';

export interface DifferentialOptions {
  readonly seed: number;
  readonly kind: HostKind;
  readonly modes: readonly Mode[];
  /** At most so many cases of each mode. */
  readonly cases: number;
  /** At most so many seconds. */
  readonly seconds: number;
  /** Is told of each case before KVM runs it: some end the host that they run on. */
  readonly tell?: (name: string) => void;
}

export interface DifferentialResult {
  /** By mode: cases compared, and cases that this KVM cannot run. */
  readonly counts: ReadonlyMap<Mode, { compared: number; beyond: number }>;
  readonly failures: readonly string[];
}

const MOST_FAILURES = 200;

export function runDifferential({ seed, kind, modes, cases, seconds, tell }: DifferentialOptions): DifferentialResult {
  const host = new KvmHost(new Kvm());
  const model = withinHost(parseCpu('max').model, host.features()).model;
  const [ours, theirs] = [new JitSubject(model), new KvmSubject(host, model)];
  const choice = choiceFor(model.has);
  const counts = new Map(modes.map((mode) => [mode, { compared: 0, beyond: 0 }]));
  const failures: string[] = [];
  const end = performance.now() + 1000 * seconds;
  const runCase = (mode: Mode, number: number): void => {
    // Each case can be made again by its own number.
    const random = new Random(Math.imul(number, 0x9e3779b1));
    const sequence = makeSequence(mode, random, choice);
    const memory = makeMemory(mode, sequence.code, random);
    const step = { mode, memory, state: makeState(mode, sequence.gpr, random, model.has) };
    if (kind.skipped.test(sequence.name) || kind.leavesOut({ ...step, name: sequence.name })) return;
    const mine = ours.run(step);
    if (mine.ended === 'no end') return;
    const name = `${number} ${mode} ${sequence.name} (${Buffer.from(sequence.code).toString('hex')})`;
    tell?.(name);
    const outcome = theirs.run(step);
    const count = counts.get(mode)!;
    if (kind.isBeyond(mode, mine, outcome)) {
      count.beyond++;
      return;
    }
    count.compared++;
    const { faultCode } = kind;
    const rules = { undefinedFlags: sequence.undefinedFlags | kind.flags, faultCode, tables: kind.hasTables(mode, mine) };
    const list = differencesOf(step, mine, outcome, rules);
    if (list.length > 0 && failures.length < MOST_FAILURES) failures.push(`${name}: ${list.slice(0, 6).join('; ')}`);
  };
  try {
    for (let round = 0; round < cases && performance.now() < end; round++) {
      for (const mode of modes) runCase(mode, seed + round * MODES.length + MODES.indexOf(mode));
    }
  } finally {
    theirs.close();
  }
  return { counts, failures };
}

/** Random states that are written to a vCPU and read from it. @returns a line for each that is not the same */
export function runRoundTrips(seed: number, modes: readonly Mode[], states: number): string[] {
  const host = new KvmHost(new Kvm());
  const model = withinHost(parseCpu('max').model, host.features()).model;
  const subject = new KvmSubject(host, model);
  const failures: string[] = [];
  try {
    for (let round = 0; round < states; round++) {
      for (const mode of modes) {
        const number = seed + round * MODES.length + MODES.indexOf(mode);
        const state = makeState(mode, null, new Random(Math.imul(number, 0x9e3779b1)), model.has);
        const list = fieldDifferences(state, subject.writeAndRead(state), 0);
        if (list.length > 0) failures.push(`${number} ${mode}: ${list.join('; ')}`);
      }
    }
  } finally {
    subject.close();
  }
  return failures;
}

export { MODES, type Mode } from './guest.ts';

/** Modes that such a host runs. */
export const modesOf = (kind: HostKind): readonly Mode[] => MODES.filter((mode) => !kind.without.has(mode));
