import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LEAVE_EXCEPTION, LEAVE_IRET, LEAVE_RDPMC, LEAVE_SINGLE_STEP } from '../leave.ts';
import { BF_TF, CR4, EFLAGS, OP2, TF } from '../state.ts';
import { MSR_DEBUGCTL } from './branches.ts';
import { Kit } from './test-kit.ts';

const LBR = 1;
const BTF = 2;
const LAST_FROM = 0x1db;
const LAST_INT_FROM = 0x1dd;
const SIZE64 = 3 << 4;

function kitWith(control: number, flags = 2): Kit {
  const kit = new Kit().long64();
  for (const vector of [1, 6]) kit.gate(vector, 8, 0x500);
  kit.setReg(4, 0x6f00n);
  kit.cpu.core.set(EFLAGS, flags);
  assert.ok(kit.cpu.msrs.write(MSR_DEBUGCTL, control, 0));
  kit.cpu.blockFlags();
  return kit;
}

function branch(kit: Kit, from: bigint, to: bigint, taken: boolean): void {
  kit.rip = from + 2n;
  kit.setBig(OP2, taken ? 1n : 0n);
  kit.leave(LEAVE_SINGLE_STEP, 1 << 8, to, from);
}

function msr(kit: Kit, number: number): bigint {
  assert.ok(kit.cpu.msrs.read(number));
  return (BigInt(kit.cpu.core.high >>> 0) << 32n) | BigInt(kit.cpu.core.low >>> 0);
}

test('with BTF a single step ends at a taken branch, and ends BTF', () => {
  const kit = kitWith(BTF, TF | 2);
  kit.rip = 0x100n;
  kit.leave(LEAVE_SINGLE_STEP, 0);
  assert.equal(kit.rip, 0x100n, 'not a branch');
  branch(kit, 0x100n, 0x102n, false);
  assert.equal(kit.rip, 0x102n, 'not taken');
  branch(kit, 0x102n, 0x180n, true);
  assert.equal(kit.rip, 0x500n);
  assert.equal(kit.getQuad(0x6f00 - 40), 0x180n);
  assert.equal(msr(kit, MSR_DEBUGCTL), 0n);
});

test('without BTF each instruction traps', () => {
  const kit = kitWith(0, TF | 2);
  kit.rip = 0x100n;
  kit.leave(LEAVE_SINGLE_STEP, 0);
  assert.equal(kit.rip, 0x500n);
});

test('with LBR the last branch is kept, and at an exception the one before it', () => {
  const kit = kitWith(LBR);
  assert.ok(kit.cpu.blockFlags() & BF_TF, 'one instruction at a time');
  branch(kit, 0x100n, 0x180n, true);
  branch(kit, 0x180n, 0x182n, false);
  assert.equal(kit.rip, 0x182n, 'no trap');
  assert.deepEqual([msr(kit, LAST_FROM), msr(kit, LAST_FROM + 1)], [0x100n, 0x180n]);
  kit.rip = 0x184n;
  kit.leave(LEAVE_EXCEPTION, (6 << 8) | 2);
  assert.deepEqual([msr(kit, LAST_FROM), msr(kit, LAST_FROM + 1)], [0x184n, 0x500n]);
  assert.deepEqual([msr(kit, LAST_INT_FROM), msr(kit, LAST_INT_FROM + 1)], [0x100n, 0x180n]);
  kit.rip = 0x502n;
  kit.leave(LEAVE_IRET, 2 | SIZE64);
  assert.deepEqual([msr(kit, LAST_FROM), msr(kit, LAST_FROM + 1)], [0x500n, 0x184n]);
  assert.ok(!kit.cpu.msrs.write(LAST_FROM, 0, 0), 'read only');
});

test('what DEBUGCTL holds survives migration; unknown bits are refused', () => {
  const kit = kitWith(LBR);
  branch(kit, 0x100n, 0x180n, true);
  assert.ok(!kit.cpu.msrs.write(MSR_DEBUGCTL, 4, 0));
  const other = new Kit().long64();
  other.cpu.loadState(kit.cpu.saveState());
  assert.equal(msr(other, MSR_DEBUGCTL), 1n);
  assert.equal(msr(other, LAST_FROM), 0x100n);
  assert.ok(other.cpu.blockFlags() & BF_TF);
});

test('from Nehalem on there is a stack of last branches, which stays empty', () => {
  const registers = [0x1c8, 0x1c9, 0x680, 0x68f, 0x6c0, 0x6cf];
  for (const model of ['Nehalem', 'x86-64-v3']) {
    const kit = new Kit(model).long64();
    for (const number of registers) {
      assert.ok(kit.cpu.msrs.write(number, 0x12345, 0));
      assert.equal(msr(kit, number), 0n, number.toString(16));
    }
    assert.ok(!kit.cpu.msrs.read(0x690));
  }
  for (const model of ['pentium3', 'qemu64']) {
    const kit = new Kit(model);
    for (const number of registers) assert.ok(!kit.cpu.msrs.read(number), `${model}: ${number.toString(16)}`);
  }
});

test('RDPMC finds no counter, as CPUID says, whatever CR4.PCE permits', () => {
  for (const cpl of [0, 3]) {
    for (const pce of [0n, 1n << 8n]) {
      const kit = new Kit().long64(cpl);
      const vectors: number[] = [];
      kit.cpu.interceptEvents((vector) => vectors.push(vector) > 0);
      kit.setBig(CR4, kit.big(CR4) | pce);
      assert.equal(kit.cpu.cpuid.leaf(0xa, 0)[0]! & 0xff, 0);
      kit.leave(LEAVE_RDPMC, 2);
      assert.deepEqual(vectors, [13]);
    }
  }
});
