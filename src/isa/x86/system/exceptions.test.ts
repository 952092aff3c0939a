import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  LEAVE_EXCEPTION,
  LEAVE_INT,
  LEAVE_IRET,
  LEAVE_SYSCALL,
  LEAVE_SYSENTER,
  LEAVE_SYSEXIT,
  LEAVE_SYSRET,
  LEAVE_STI,
  LEAVE_HLT,
  LEAVE_CLI,
} from '../leave.ts';
import {
  CR2,
  CS,
  EFLAGS,
  IF,
  MSR_LSTAR,
  MSR_SFMASK,
  MSR_STAR,
  MSR_SYSENTER_CS,
  MSR_SYSENTER_EIP,
  SS,
  TF,
  VM,
  NMI_BLOCKED,
  IOPL,
  CPL,
} from '../state.ts';
import { Kit } from './test-kit.ts';

const SIZE32 = 2 << 4;
const SIZE64 = 3 << 4;
const UD = 6 << 8;

function frame(kit: Kit, at: number, count: number): bigint[] {
  return Array.from({ length: count }, (_, i) => kit.getQuad(at + 8 * i));
}

test('long mode: exception from user mode on the kernel stack, and back by IRET', () => {
  const kit = new Kit().long64(3);
  kit.gate(6, 8, 0x12345678);
  kit.rip = 0x401000n;
  kit.setReg(4, 0x7ff8n);
  kit.cpu.core.set(EFLAGS, IF | 2);
  kit.leave(LEAVE_EXCEPTION, UD | 2);
  assert.equal(kit.rip, 0x12345678n);
  assert.equal(kit.cpl, 0);
  assert.deepEqual([kit.selector(CS), kit.selector(SS)], [8, 0]);
  assert.equal(kit.reg(4), 0x7000n - 40n);
  assert.deepEqual(frame(kit, 0x7000 - 40, 5), [0x401000n, 0x33n, 0x10202n, 0x7ff8n, 0x2bn]);
  assert.equal(kit.cpu.core.eflags & IF, 0);
  assert.equal(kit.log.at(-1), 'context 0 0');
  kit.leave(LEAVE_IRET, 2 | SIZE64);
  assert.deepEqual([kit.rip, kit.reg(4), kit.cpl], [0x401000n, 0x7ff8n, 3]);
  assert.deepEqual([kit.selector(CS), kit.selector(SS)], [0x33, 0x2b]);
  assert.equal(kit.cpu.core.eflags, IF | 2);
  assert.equal(kit.log.at(-1), 'context 2 0');
});

test('long mode: error code, IST and alignment', () => {
  const kit = new Kit().long64();
  kit.gate(14, 8, 0x500, { ist: 1 });
  kit.setReg(4, 0x6f09n);
  kit.rip = 0x100n;
  kit.quad(0xb000 + 8 * 0x50, 0n);
  kit.cpu.walk(0x50123, 0, 1, { page: 0, permissions: 0, global: false, bits: 12 });
  kit.cpu.deliverFault();
  assert.equal(kit.big(CR2), 0x50123n);
  assert.equal(kit.reg(4), 0x6800n - 48n);
  assert.deepEqual(frame(kit, 0x6800 - 48, 6), [2n, 0x100n, 8n, 0x10002n, 0x6f09n, 0x10n]);
  assert.equal(kit.selector(SS), 0x10);
});

test('software interrupts respect the gate and fault at the INT', () => {
  const kit = new Kit().long64(3);
  kit.gate(0x80, 8, 0x900, { type: 0xf, dpl: 3 });
  kit.gate(13, 8, 0xd00);
  kit.setReg(4, 0x7f00n);
  kit.rip = 0x402n;
  kit.leave(LEAVE_INT, (0x80 << 8) | 2);
  assert.equal(kit.rip, 0x900n);
  assert.deepEqual(frame(kit, 0x7000 - 40, 1), [0x402n]);
  const other = new Kit().long64(3);
  other.gate(13, 8, 0xd00);
  other.gate(0x81, 8, 0x900);
  other.rip = 0x402n;
  other.leave(LEAVE_INT, (0x81 << 8) | 2);
  assert.equal(other.rip, 0xd00n);
  assert.deepEqual(frame(other, 0x7000 - 48, 2), [BigInt(0x81 * 8 + 2), 0x400n]);
});

test('a fault on the way to #GP makes a double fault, one on the way to that shuts down', () => {
  const kit = new Kit().long64();
  kit.setReg(4, 0x7000n);
  kit.gate(8, 8, 0x800, { ist: 1 });
  kit.gate(13, 0x18, 0xd00); // null descriptor: #GP
  kit.leave(LEAVE_EXCEPTION, 13 << 8);
  assert.equal(kit.rip, 0x800n);
  assert.equal(kit.getQuad(0x6800 - 48), 0n);
  kit.ram.setUint32(0x2000 + 8 * 16 + 4, 0, true);
  kit.leave(LEAVE_EXCEPTION, 13 << 8);
  assert.equal(kit.shutdowns, 1);
  assert.equal(kit.cpu.halted, true);
});

test('a page fault on the way to a benign exception is delivered as itself', () => {
  const kit = new Kit().long64();
  kit.gate(6, 8, 0x600);
  kit.gate(14, 8, 0xe00, { ist: 1 });
  kit.setReg(4, 0x61000n);
  kit.quad(0xb000 + 8 * 0x60, 0n);
  kit.leave(LEAVE_EXCEPTION, UD);
  assert.equal(kit.rip, 0xe00n);
  assert.equal(kit.getQuad(0x6800 - 48), 2n);
  assert.equal(kit.big(CR2), 0x61000n - 40n);
});

test('real mode: IVT entry, 16-bit frame, IRET', () => {
  const kit = new Kit();
  const { core } = kit.cpu;
  core.setSegment(CS, 0x100, 0x1000, 0, 0xffff, 0x9b);
  kit.setReg(4, 0x200n);
  kit.rip = 0x10n;
  core.set(EFLAGS, IF | 2);
  kit.ram.setUint32(0x40, (0x300 << 16) | 0x55, true);
  kit.ready();
  kit.leave(LEAVE_INT, (0x10 << 8) | 2);
  assert.deepEqual([kit.rip, kit.selector(CS), core.segBaseLow(CS)], [0x55n, 0x300, 0x3000]);
  assert.equal(kit.ram.getUint32(0x1fa, true), (0x100 << 16) | 0x10);
  assert.equal(kit.ram.getUint16(0x1fe, true), IF | 2);
  kit.leave(LEAVE_IRET, 1 | (1 << 4));
  assert.deepEqual([kit.rip, kit.selector(CS), kit.reg(4), core.eflags], [0x10n, 0x100, 0x200n, IF | 2]);
});

test('protected mode: inner stack, error code, IRET to ring 3', () => {
  const kit = new Kit().prot32(3);
  kit.gate(13, 8, 0xd00, { type: 0xe });
  kit.setReg(4, 0x5000n);
  kit.rip = 0x400n;
  kit.leave(LEAVE_CLI, 1);
  assert.deepEqual([kit.rip, kit.cpl, kit.selector(SS)], [0xd00n, 0, 0x10]);
  const words = [0, 4, 8, 12, 16, 20].map((i) => kit.ram.getUint32(0x7000 - 24 + i, true));
  assert.deepEqual(words, [0, 0x3ff, 0x1b, 0x10002, 0x5000, 0x23]);
  kit.setReg(4, 0x7000n - 20n);
  kit.leave(LEAVE_IRET, 1 | SIZE32);
  assert.deepEqual([kit.rip, kit.cpl, kit.reg(4), kit.selector(SS)], [0x3ffn, 3, 0x5000n, 0x23]);
});

test('protected mode: IRET to virtual-8086 mode and an interrupt out of it', () => {
  const kit = new Kit().prot32();
  [0x1234, 0x2000, VM | IF | 2, 0x800, 0x3000, 1, 2, 3, 4].forEach((v, i) => kit.ram.setUint32(0x6000 + 4 * i, v, true));
  kit.setReg(4, 0x6000n);
  kit.leave(LEAVE_IRET, 1 | SIZE32);
  const { core } = kit.cpu;
  assert.deepEqual([kit.rip, kit.selector(CS), core.segBaseLow(CS), kit.cpl], [0x1234n, 0x2000, 0x20000, 3]);
  assert.equal(core.v86, true);
  kit.gate(0x20, 8, 0x700);
  kit.vectors = [0x20];
  kit.cpu.setIntr(true);
  kit.cpu.pollInterrupts();
  assert.deepEqual([kit.rip, core.v86, kit.cpl], [0x700n, false, 0]);
  const words = Array.from({ length: 9 }, (_, i) => kit.ram.getUint32(0x7000 - 36 + 4 * i, true));
  assert.deepEqual(words, [0x1234, 0x2000, VM | IF | 2, 0x800, 0x3000, 1, 2, 3, 4]);
});

test('IRET checks its selectors', () => {
  const kit = new Kit().long64();
  kit.gate(13, 8, 0xd00, { ist: 1 });
  const attempt = (cs: bigint, ss: bigint): bigint => {
    [0x100n, cs, 2n, 0x5000n, ss].forEach((v, i) => kit.quad(0x7000 + 8 * i, v));
    kit.setReg(4, 0x7000n);
    kit.rip = 0x82n;
    kit.leave(LEAVE_IRET, 2 | SIZE64);
    assert.equal(kit.rip, 0xd00n);
    assert.equal(kit.getQuad(0x6800 - 40), 0x80n);
    return kit.getQuad(0x6800 - 48);
  };
  assert.equal(attempt(0n, 0x10n), 0n);
  assert.equal(attempt(0x10n, 0x10n), 0x10n); // data segment
  assert.equal(attempt(0x33n, 0x10n), 0x10n); // stack of the wrong level
  assert.equal(attempt(0x148n, 0x10n), 0x148n); // beyond the limit
});

test('interrupts: shadow after STI, NMI blocking until IRET, HLT wakes', () => {
  const kit = new Kit().long64();
  kit.gate(0x30, 8, 0x3000);
  kit.gate(2, 8, 0x2200);
  kit.setReg(4, 0x7000n);
  kit.rip = 0x100n;
  kit.cpu.setIntr(true);
  assert.equal(kit.cpu.interruptWaiting, false);
  kit.leave(LEAVE_STI, 1);
  assert.deepEqual([kit.cpu.interruptShadow, kit.cpu.interruptWaiting], [true, true]);
  kit.vectors = [0x30];
  kit.cpu.pollInterrupts();
  assert.equal(kit.rip, 0x100n);
  kit.cpu.clearShadow();
  kit.leave(LEAVE_HLT, 1);
  assert.equal(kit.cpu.halted, true);
  kit.cpu.pollInterrupts();
  assert.deepEqual([kit.rip, kit.cpu.halted], [0x3000n, false]);
  kit.cpu.nmi();
  kit.cpu.pollInterrupts();
  assert.equal(kit.rip, 0x2200n);
  assert.equal(kit.cpu.core.get(NMI_BLOCKED), 1);
  kit.cpu.nmi();
  kit.rip = 0x2201n;
  kit.cpu.pollInterrupts();
  assert.equal(kit.rip, 0x2201n);
  kit.leave(LEAVE_IRET, 2 | SIZE64);
  kit.cpu.pollInterrupts();
  assert.equal(kit.rip, 0x2200n);
});

test('SYSCALL and SYSRET', () => {
  const kit = new Kit().long64(3);
  kit.setBig(MSR_STAR, (0x23n << 48n) | (8n << 32n));
  kit.setBig(MSR_LSTAR, 0xffffffff81000000n);
  kit.setBig(MSR_SFMASK, 0x47700n);
  kit.cpu.core.set(EFLAGS, IF | 2);
  kit.rip = 0x400002n;
  kit.leave(LEAVE_SYSCALL, 2 | SIZE32);
  assert.deepEqual([kit.rip, kit.reg(1), kit.reg(11)], [0xffffffff81000000n, 0x400002n, BigInt(IF | 2)]);
  assert.deepEqual([kit.cpl, kit.selector(CS), kit.selector(SS), kit.cpu.core.eflags], [0, 8, 0x10, 2]);
  kit.leave(LEAVE_SYSRET, 3 | SIZE64);
  assert.deepEqual([kit.rip, kit.cpl, kit.selector(CS), kit.selector(SS)], [0x400002n, 3, 0x33, 0x2b]);
  assert.equal(kit.cpu.core.eflags, IF | 2);
});

test("SYSENTER and SYSEXIT: AMD's processors do not have them in long mode", () => {
  for (const model of ['max', 'Nehalem']) {
    const kit = new Kit(model).long64();
    kit.gate(6, 8, 0x1600);
    kit.setReg(4, 0x7000n);
    kit.setBig(MSR_SYSENTER_CS, 8n);
    kit.setBig(MSR_SYSENTER_EIP, 0x2200n);
    for (const reason of [LEAVE_SYSENTER, LEAVE_SYSEXIT]) {
      kit.rip = 0x102n;
      kit.cpu.core.set(CPL, 0);
      kit.setReg(1, 0x6000n);
      kit.setReg(2, 0x2300n);
      kit.leave(reason, 2 | SIZE64);
      const entered = reason === LEAVE_SYSENTER ? 0x2200n : 0x2300n;
      assert.equal(kit.rip, model === 'max' ? 0x1600n : entered);
    }
  }
});

test('single step after an instruction of the system code', () => {
  const kit = new Kit().long64();
  kit.gate(1, 8, 0x1100);
  kit.setReg(4, 0x7000n);
  kit.rip = 0x101n;
  kit.cpu.core.set(EFLAGS, TF | 2 | IOPL);
  kit.cpu.core.set(CPL, 0);
  kit.leave(LEAVE_CLI, 1);
  assert.equal(kit.rip, 0x1100n);
  assert.deepEqual(frame(kit, 0x7000 - 40, 3), [0x101n, 8n, BigInt(TF | 2 | IOPL)]);
});
