import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LEAVE_CPUID, LEAVE_RDMSR, LEAVE_WRMSR, LEAVE_WRITE_CR } from '../leave.ts';
import { CR4, FS, XMM } from '../state.ts';
import { CpuidLeaves } from './cpuid-leaves.ts';
import { featureNames, isSupported, modelNames, parseCpu } from './models.ts';
import { Kit } from './test-kit.ts';

function cpuid(kit: Kit, leaf: number, subleaf = 0): number[] {
  kit.setReg(0, BigInt(leaf));
  kit.setReg(1, BigInt(subleaf));
  kit.leave(LEAVE_CPUID, 2);
  return [0, 3, 1, 2].map((n) => Number(kit.reg(n)));
}

function text(...words: number[]): string {
  const bytes = new Uint8Array(new Uint32Array(words).buffer);
  return String.fromCharCode(...bytes).replace(/\0+$/, '');
}

test('vendor, brand and hypervisor strings', () => {
  const kit = new Kit();
  const [level, b, c, d] = cpuid(kit, 0);
  assert.equal(level, 0x16);
  assert.equal(text(b!, d!, c!), 'AuthenticAMD');
  const brand = [2, 3, 4].flatMap((i) => cpuid(kit, 0x80000000 + i));
  assert.equal(text(...brand), 'Virelay Virtual CPU');
  assert.equal(text(...cpuid(kit, 0x40000000).slice(1)), 'KVMKVMKVM\0\0\0'.replaceAll('\0', ''));
  const bare = new Kit('max,kvm=off');
  assert.equal(text(...cpuid(bare, 0x40000000).slice(1)), 'VirelayVirel');
});

test('features: OSXSAVE follows CR4, AMD repeats leaf 1', () => {
  const kit = new Kit();
  assert.equal(cpuid(kit, 1)[2]! & (1 << 27), 0);
  kit.setBig(CR4, 1n << 18n);
  assert.notEqual(cpuid(kit, 1)[2]! & (1 << 27), 0);
  assert.equal(cpuid(kit, 0x80000001)[3]! & 0x2183f3ff, 0x2183f3ff);
  assert.deepEqual(cpuid(kit, 0xd), [7, 576, 832, 0]);
  assert.deepEqual(cpuid(kit, 0xd, 2), [256, 576, 0, 0]);
  assert.equal(cpuid(kit, 0x80000008)[0], 0x3028);
});

test('the arrangement of CPUs: APIC IDs, threads of a core, cores of a package', () => {
  const topology = { sockets: 2, cores: 3, threads: 2 };
  const live = { osxsave: false, apicEnabled: true, xcr0: 1, tscFrequency: 1e9 };
  // The second thread of the second package's last core: 1 10 1 in bits.
  const leaves = (model: string): CpuidLeaves => new CpuidLeaves(parseCpu(model).model, live, topology, 11);
  const amd = leaves('max,+topoext');
  const [, ebx, , edx] = amd.leaf(1, 0);
  assert.deepEqual([ebx >>> 24, (ebx >> 16) & 0xff, (edx >> 28) & 1], [13, 8, 1]);
  // A level's shift to the next, its threads, its number and kind.
  assert.deepEqual(amd.leaf(0xb, 0), [1, 2, 0x100, 13]);
  assert.deepEqual(amd.leaf(0xb, 1), [3, 6, 0x201, 13]);
  assert.equal((amd.leaf(4, 0)[0] >>> 26) + 1, 4);
  assert.equal(((amd.leaf(4, 0)[0] >>> 14) & 0xfff) + 1, 2);
  assert.equal(amd.leaf(0x80000008, 0)[2], 0x3005);
  assert.equal((amd.leaf(0x80000001, 0)[2] >> 1) & 1, 1);
  assert.deepEqual(leaves('max').leaf(0x8000001e, 0), [0, 0, 0, 0]);
  const one = new CpuidLeaves(parseCpu('max').model, live);
  assert.deepEqual([one.leaf(0x80000008, 0)[2], (one.leaf(1, 0)[3] >> 28) & 1], [0, 0]);
});

test('models and feature text', () => {
  assert.ok(modelNames().includes('qemu64'));
  assert.ok(featureNames().includes('sse4.2'));
  assert.deepEqual(['avx2', 'avx512f'].map(isSupported), [true, false]);
  for (const name of modelNames()) assert.equal(parseCpu(name).warnings.length, 0);
  const { model, warnings } = parseCpu('qemu64,+sse4_2,-cx16,popcnt=on,svm=off,+avx512f,family=6,model-id=Fast one,enforce');
  assert.deepEqual(
    [model.has('sse4.2'), model.has('cx16'), model.has('popcnt'), model.has('avx512f')],
    [true, false, true, false],
  );
  assert.deepEqual([model.family, model.modelId], [6, 'Fast one']);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /avx512f .*7\.ebx bit 16/);
  assert.equal(parseCpu('max,-xsave').model.has('avx2'), false);
  assert.throws(() => parseCpu('max,+sse4_3'), /^Error: -cpu max: unknown feature "sse4_3" \(near names: sse4\.1, sse4\.2/);
  assert.throws(() => parseCpu('mux'), /unknown model "mux" \(near names: max\)/);
  assert.throws(() => parseCpu('max,family=x'), /family takes a number/);
  assert.throws(() => parseCpu('max,sse2=maybe'), /sse2 takes on or off/);
});

function wrmsr(kit: Kit, number: number, value: bigint): boolean {
  kit.rip = 0x102n;
  kit.setReg(1, BigInt(number));
  kit.setReg(0, value & 0xffffffffn);
  kit.setReg(2, value >> 32n);
  kit.leave(LEAVE_WRMSR, 2);
  return kit.rip === 0x102n;
}
function rdmsr(kit: Kit, number: number): bigint | null {
  kit.rip = 0x102n;
  kit.setReg(1, BigInt(number));
  kit.leave(LEAVE_RDMSR, 2);
  return kit.rip === 0x102n ? (kit.reg(2) << 32n) | kit.reg(0) : null;
}

test('model-specific registers', () => {
  const kit = new Kit().long64();
  kit.gate(13, 8, 0xd00, { ist: 1 });
  assert.ok(wrmsr(kit, 0xc0000100, 0xffff888000001000n));
  assert.equal(kit.big(kit.cpu.core.segAt(FS)), 0xffff888000001000n);
  assert.equal(rdmsr(kit, 0xc0000100), 0xffff888000001000n);
  assert.equal(wrmsr(kit, 0xc0000100, 0x800000000000n), false);
  assert.equal(wrmsr(kit, 0xc0000080, 0xc01n), false); // LME cleared while paging
  assert.ok(wrmsr(kit, 0xc0000080, 0xd01n));
  assert.equal(wrmsr(kit, 0xc0000080, 0xd03n), false);
  assert.equal(rdmsr(kit, 0xc0000080), 0xd01n);
  assert.ok(wrmsr(kit, 0x6e0, 0x123456789an));
  assert.equal(kit.deadline, 0x123456789an);
  assert.equal(rdmsr(kit, 0x277), 0x0007040600070406n);
  assert.equal(wrmsr(kit, 0x277, 2n), false);
  assert.ok(wrmsr(kit, 0x2ff, 0xc06n));
  assert.equal(rdmsr(kit, 0x2ff), 0xc06n);
  assert.ok(wrmsr(kit, 0x10, 5000n));
  assert.equal(rdmsr(kit, 0x3b), 4000n);
  assert.ok(wrmsr(kit, 0x3b, 0n));
  assert.equal(kit.tsc, 1000n);
  assert.equal(rdmsr(kit, 0x12345), null);
});

test('MOV CR3 with PCIDs flushes only when asked to', () => {
  const kit = new Kit().long64();
  kit.gate(13, 8, 0xd00, { ist: 1 });
  const write = (number: number, value: bigint): void => {
    kit.setReg(0, value);
    kit.log.length = 0;
    kit.leave(LEAVE_WRITE_CR, 3 | (number << 8));
  };
  write(3, 0x8000n);
  assert.deepEqual(kit.log, ['flush 0']);
  write(4, 0x206b0n);
  assert.ok(kit.log.includes('flushAll'));
  write(3, 0x8005n);
  assert.deepEqual(kit.log, ['flush 5', 'context 0 5']);
  write(3, 0x8006n | (1n << 63n));
  assert.deepEqual(kit.log, ['context 0 6']);
  assert.equal(kit.rip, 0xfff0n);
  write(3, 1n << 45n);
  assert.equal(kit.rip, 0xd00n);
});

test('saved state comes back the same, and its errors name the field', () => {
  const kit = new Kit().long64(3);
  kit.setReg(5, 0x123456789abcdef0n);
  kit.setBig(XMM + 24, 0xfedcba9876543210n);
  const saved = kit.cpu.saveState();
  const other = new Kit();
  other.cpu.loadState(structuredClone(saved));
  assert.deepEqual(other.cpu.saveState(), saved);
  assert.equal(other.cpl, 3);
  assert.equal(other.cpu.blockFlags(), kit.cpu.blockFlags());
  delete saved.fields.cr3;
  assert.throws(() => other.cpu.loadState(saved), /field "cr3"/);
});
