/** The same states and instructions under the host's KVM and under the translator; on a whole KVM: test/kvm.long.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { probeKvm } from '../src/kvm/probe.ts';
import { modesOf, runDifferential, runRoundTrips } from './differential/fuzz.ts';
import { hostKind } from './differential/hosts.ts';

const probe = probeKvm();
const skip = probe.available ? false : probe.reason;

test('random states and sequences of instructions: KVM and the translator agree', {
  skip,
  timeout: 120_000,
}, (t) => {
  const kind = hostKind(probe.available && probe.missing === null);
  const { counts, failures } = runDifferential({ seed: 1, kind, modes: modesOf(kind), cases: 150, seconds: 30 });
  for (const [mode, { compared, beyond }] of counts) t.diagnostic(`${mode}: ${compared} compared, ${beyond} beyond this KVM`);
  assert.deepEqual(failures, []);
  for (const [mode, { compared }] of counts) assert.ok(compared > 0, `nothing compared in ${mode}`);
});

test('random states of all modes are read from a vCPU as they were written to it', { skip, timeout: 60_000 }, () => {
  assert.deepEqual(runRoundTrips(1, modesOf(hostKind(probe.available && probe.missing === null)), 30), []);
});
