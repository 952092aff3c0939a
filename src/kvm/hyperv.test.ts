import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXIT } from './constants.ts';
import type { CpuidEntry } from './cpuid.ts';
import { HYPERV_FEATURES, type HypervFeature } from '../isa/x86/system/hyperv.ts';
import { enableHyperv, hypervLeaves, hypervOf, supportedHyperv } from './hyperv.ts';
import { makeGuest, NO_KVM } from './test-kit.ts';

const leaf = (number: number, values: Partial<CpuidEntry>): CpuidEntry => ({
  ...{ function: number, index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0, padding: [0, 0, 0] },
  ...values,
});
const ALL = [leaf(0x4000_0003, { eax: 0xffff_ffff, edx: 0xffff_ffff }), leaf(0x4000_0004, { eax: 0xffff_ffff })];
const make = (names: readonly HypervFeature[], supported = ALL, vendorId = 'Microsoft Hv'): CpuidEntry[] =>
  hypervLeaves({ features: new Set(names), spinlocks: 0x1fff, vendorId, processors: 4 }, supported);
const textOf = ({ ebx, ecx, edx }: CpuidEntry): string => Buffer.from(Uint32Array.of(ebx, ecx, edx).buffer).toString('latin1');

test('leaves tell what is turned on, and nothing where nothing is', () => {
  assert.deepEqual(make([]), []);
  const leaves = make(['hv-relaxed', 'hv-vpindex', 'hv-synic', 'hv-time', 'hv-spinlocks']);
  assert.deepEqual(
    leaves.map(({ function: number }) => number - 0x4000_0000),
    [0, 1, 2, 3, 4, 5, 6],
  );
  assert.equal(leaves[0]!.eax, 0x4000_0006);
  assert.equal(textOf(leaves[0]!), 'Microsoft Hv');
  assert.equal(leaves[3]!.eax, (1 << 1) | (1 << 2) | (1 << 5) | (1 << 6) | (1 << 9));
  assert.deepEqual([leaves[4]!.eax, leaves[4]!.ebx], [1 << 5, 0x1fff]);
  assert.equal(leaves[5]!.eax, 4);
  assert.equal(make(['hv-relaxed'])[4]!.ebx, 0xffff_ffff);
  assert.equal(textOf(make(['hv-relaxed'], ALL, 'KVMKVM')[0]!), 'KVMKVM\0\0\0\0\0\0');
});

test('what a feature lacks is one line', () => {
  assert.throws(() => make(['hv-stimer', 'hv-vpindex', 'hv-synic']), /^Error: hv-stimer needs hv-time$/);
  assert.throws(
    () => make(['hv-time'], [leaf(0x4000_0003, { eax: 1 << 1 })]),
    /^Error: the host's KVM does not support hv-time$/,
  );
  assert.throws(() => make(['hv-relaxed'], []), /does not support hv-relaxed/);
});

test('a guest reads them', { skip: NO_KVM }, (t) => {
  const code = [
    ...[0x66, 0xb8, 0x01, 0x00, 0x00, 0x40], // mov eax, 40000001h
    ...[0x0f, 0xa2], // cpuid
    ...[0x66, 0xe7, 0x80], // out 80h, eax
    ...[0x66, 0xb9, 0x20, 0x00, 0x00, 0x40], // mov ecx, 40000020h (reference counter)
    ...[0x0f, 0x32], // rdmsr
    ...[0x66, 0xe7, 0x81], // out 81h, eax
    0xf4, // hlt
  ];
  const { kvm, vcpu, close } = makeGuest(code, (vm) => vm.createIrqchip());
  try {
    const features = new Set(supportedHyperv(kvm));
    if (features.size === 0) return t.skip('this KVM has no Hyper-V');
    assert.ok(features.has('hv-time'), [...features].join());
    assert.ok([...features].every((name) => HYPERV_FEATURES.includes(name)));
    const all = { features: new Set<HypervFeature>(), passthrough: true, spinlocks: 0x1fff, vendorId: 'Microsoft Hv' };
    const leaves = hypervLeaves(hypervOf(all, kvm, 1), kvm.hypervCpuid());
    vcpu.setCpuid([...kvm.supportedCpuid().filter(({ function: number }) => number >>> 8 !== 0x40_0000), ...leaves]);
    enableHyperv(vcpu, features);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    assert.deepEqual([vcpu.run.ioPort, vcpu.run.ioValue(0)], [0x80, 0x3123_7648]);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    assert.equal(vcpu.run.ioPort, 0x81);
  } finally {
    close();
  }
});
