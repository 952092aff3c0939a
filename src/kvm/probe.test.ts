import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { describeUnavailable, type HostFacts } from './availability.ts';
import { SystemCallError } from './libc.ts';
import { probeKvm } from './probe.ts';
import { NO_KVM } from './test-kit.ts';

test('what runs is found by running it, and nothing is left behind', { skip: NO_KVM, timeout: 10_000 }, () => {
  const descriptors = readdirSync('/proc/self/fd').length;
  const probe = probeKvm();
  assert.equal(readdirSync('/proc/self/fd').length, descriptors);
  assert.ok(probe.available);
  assert.deepEqual(
    Object.entries(probe.runs)
      .filter(([, runs]) => !runs)
      .map(([name]) => name),
    Object.keys(probe.failures),
  );
  assert.equal(probe.missing === null, Object.values(probe.runs).every(Boolean));
  if (probe.missing !== null) assert.match(probe.missing, /^this KVM does not run [^\n]+$/);
  // There is no KVM that does not run these.
  assert.equal(probe.runs.realMode, true);
  assert.equal(probe.runs.protectedMode, true);
  assert.equal(probe.runs.longMode, true);
});

const FACTS: HostFacts = { extension: 'vmx', virtual: false, modules: [], nested: null };

const line = (errno: number, facts: Partial<HostFacts> = {}, group = 'kvm'): string =>
  describeUnavailable(
    new SystemCallError('/dev/kvm', errno),
    () => ({ ...FACTS, ...facts }),
    () => group,
  );

test('why there is no KVM is one line that says what to do', () => {
  assert.match(line(2), /load its module \(modprobe kvm_intel\)/);
  assert.match(line(2, { extension: 'svm' }), /modprobe kvm_amd/);
  assert.match(line(2, { modules: ['kvm', 'kvm_intel'] }), /though kvm_intel is loaded: create it/);
  assert.match(line(2, { extension: null, virtual: true }), /nested virtualization/);
  assert.match(line(2, { extension: null }), /firmware/);
  assert.match(line(13), /join the group kvm/);
  assert.match(line(13, {}, 'root'), /only root may/);
  assert.match(line(19), /no driver behind it/);
  assert.match(line(16), /another hypervisor/);
  assert.match(line(38), /ENOSYS: this kernel does not have it/);
  assert.match(line(24), /ulimit -n/);
  assert.equal(line(5), '/dev/kvm: EIO');
  assert.equal(describeUnavailable(new Error('no FFI')), 'no FFI');
});
