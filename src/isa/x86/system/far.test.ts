import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  LEAVE_ENTER,
  LEAVE_FAR_CALL,
  LEAVE_FAR_JUMP,
  LEAVE_FAR_RET,
  LEAVE_IRET,
  LEAVE_LAR,
  LEAVE_LGDT,
  LEAVE_LOAD_SEG,
  LEAVE_LSL,
  LEAVE_LTR,
  LEAVE_VERW,
  LEAVE_WRITE_CR,
  LEAVE_XSAVE,
  LEAVE_DIV,
  LEAVE_POPF,
} from '../leave.ts';
import {
  BF_CODE32,
  BF_CODE64,
  BF_LONG,
  CR0,
  CS,
  DS,
  EFER,
  FCW,
  FTAG,
  FTOP,
  FSW,
  FPREG,
  GDTR_BASE,
  GDTR_LIMIT,
  IF,
  MXCSR,
  NT,
  SS,
  TR,
  XCR0,
  XMM,
  ZF,
} from '../state.ts';
import { Kit } from './test-kit.ts';

const SIZE32 = 2 << 4;
const SIZE64 = 3 << 4;

test('segment loads: checks, error codes, accessed bit', () => {
  const kit = new Kit().prot32();
  kit.gate(13, 8, 0xd00);
  kit.gate(11, 8, 0xb00);
  kit.setReg(4, 0x7000n);
  const load = (segment: number, selector: bigint): [bigint, number] => {
    kit.rip = 0x102n;
    kit.setReg(4, 0x7000n);
    kit.leave(LEAVE_LOAD_SEG, 2 | (segment << 8), selector);
    return [kit.rip, kit.ram.getUint32(0x7000 - 16, true)];
  };
  kit.descriptor(0x28, 0x12345678, 0xffff, 0x0092);
  assert.equal(load(DS, 0x28n)[0], 0x102n);
  assert.equal(kit.cpu.core.segBaseLow(DS), 0x12345678);
  assert.equal(kit.ram.getUint8(0x1000 + 0x28 + 5), 0x93);
  assert.deepEqual(load(DS, 0x100n), [0xd00n, 0x100]);
  kit.descriptor(0x28, 0, 0xffff, 0x0012);
  assert.deepEqual(load(DS, 0x28n), [0xb00n, 0x28]);
  assert.deepEqual(load(SS, 0n), [0xd00n, 0]);
  assert.deepEqual(load(SS, 0x23n), [0xd00n, 0x20]);
  assert.equal(load(DS, 0n)[0], 0x102n);
});

test('LAR, LSL, VERW answer by ZF', () => {
  const kit = new Kit().long64();
  const zf = (): number => kit.cpu.core.readFlags() & ZF;
  kit.leave(LEAVE_LAR, 3 | SIZE32 | (3 << 8), 0x33n);
  assert.deepEqual([zf(), kit.reg(3)], [ZF, 0xaffb00n]);
  kit.leave(LEAVE_LSL, 3 | SIZE32 | (3 << 8), 0x10n);
  assert.deepEqual([zf(), kit.reg(3)], [ZF, 0xffffffffn]);
  kit.leave(LEAVE_LSL, 3 | SIZE32 | (3 << 8), 0x18n);
  assert.equal(zf(), 0);
  kit.leave(LEAVE_VERW, 3, 8n);
  assert.equal(zf(), 0);
  kit.leave(LEAVE_VERW, 3, 0x10n);
  assert.equal(zf(), ZF);
});

test('from real mode to protected mode to long mode', () => {
  const kit = new Kit();
  kit.identity();
  kit.descriptor(0x08, 0, 0xfffff, 0xc09b);
  kit.descriptor(0x18, 0, 0xfffff, 0xa09b);
  kit.ram.setUint16(0x500, 0xff, true);
  kit.ram.setUint32(0x502, 0x1000, true);
  kit.leave(LEAVE_LGDT, 5 | (1 << 4), 0x500n);
  assert.deepEqual([kit.big(GDTR_BASE), kit.cpu.core.get(GDTR_LIMIT)], [0x1000n, 0xff]);
  const write = (number: number, value: bigint): void => {
    kit.setReg(0, value);
    kit.leave(LEAVE_WRITE_CR, 3 | (number << 8));
  };
  write(0, 0x11n);
  kit.leave(LEAVE_FAR_JUMP, 5 | (1 << 4), 8n, 0x4000n);
  assert.deepEqual([kit.rip, kit.selector(CS), kit.cpu.blockFlags() & BF_CODE32], [0x4000n, 8, BF_CODE32]);
  write(4, 0x20n);
  write(3, 0x8000n);
  kit.setBig(EFER, 0x100n);
  write(0, 0x80000011n);
  assert.equal(kit.big(EFER), 0x500n);
  kit.leave(LEAVE_FAR_JUMP, 7 | SIZE32, 0x18n, 0x5000n);
  assert.equal(kit.cpu.blockFlags() & (BF_CODE64 | BF_LONG), BF_CODE64 | BF_LONG);
  assert.equal(kit.big(CR0), 0x80000011n);
});

test('far CALL and RET at the same level and through a gate to an inner one', () => {
  const kit = new Kit().prot32(3);
  kit.setReg(4, 0x6000n);
  kit.rip = 0x107n;
  kit.leave(LEAVE_FAR_CALL, 7 | SIZE32, 0x1bn, 0x900n);
  assert.deepEqual([kit.rip, kit.reg(4)], [0x900n, 0x5ff8n]);
  kit.leave(LEAVE_FAR_RET, 1 | SIZE32, 0n);
  assert.deepEqual([kit.rip, kit.reg(4)], [0x107n, 0x6000n]);
  // Gate with two parameters to 8:1234h.
  kit.ram.setUint32(0x1038, (8 << 16) | 0x1234, true);
  kit.ram.setUint32(0x103c, 0xec02, true);
  kit.ram.setUint32(0x6000, 0xaaaa, true);
  kit.ram.setUint32(0x6004, 0xbbbb, true);
  kit.leave(LEAVE_FAR_CALL, 7 | SIZE32, 0x3bn, 0n);
  assert.deepEqual([kit.rip, kit.cpl, kit.reg(4)], [0x1234n, 0, 0x7000n - 24n]);
  const words = Array.from({ length: 6 }, (_, i) => kit.ram.getUint32(0x7000 - 24 + 4 * i, true));
  assert.deepEqual(words, [0x107, 0x1b, 0xaaaa, 0xbbbb, 0x6000, 0x23]);
  kit.leave(LEAVE_FAR_RET, 3 | SIZE32, 8n);
  assert.deepEqual([kit.rip, kit.cpl, kit.reg(4)], [0x107n, 3, 0x6008n]);
});

test('task switch by far CALL and back by IRET with NT', () => {
  const kit = new Kit().prot32();
  kit.descriptor(0x40, 0x3000, 0x67, 0x008b);
  kit.descriptor(0x48, 0x5000, 0x67, 0x0089);
  const put = (offset: number, value: number): void => kit.ram.setUint32(0x5000 + offset, value, true);
  put(32, 0x700);
  put(36, 2);
  put(56, 0x4000);
  [0x10, 8, 0x10, 0x10, 0, 0].forEach((selector, i) => put(72 + 4 * i, selector));
  kit.setReg(4, 0x6000n);
  kit.rip = 0x207n;
  kit.leave(LEAVE_FAR_CALL, 7 | SIZE32, 0x48n, 0n);
  assert.deepEqual([kit.rip, kit.reg(4), kit.selector(TR)], [0x700n, 0x4000n, 0x48]);
  assert.equal(kit.cpu.core.eflags & NT, NT);
  assert.equal(kit.ram.getUint8(0x1048 + 5), 0x8b);
  kit.leave(LEAVE_IRET, 1 | SIZE32);
  assert.deepEqual([kit.rip, kit.reg(4), kit.selector(TR)], [0x207n, 0x6000n, 0x40]);
  assert.equal(kit.cpu.core.eflags & NT, 0);
  assert.equal(kit.ram.getUint8(0x1048 + 5), 0x89);
});

test('LTR in long mode takes 16 bytes and marks the TSS busy', () => {
  const kit = new Kit().long64();
  kit.descriptor(0x40, 0x3000, 0x67, 0x0089);
  kit.ram.setInt32(0x1048, -0x7780, true);
  kit.leave(LEAVE_LTR, 3, 0x40n);
  assert.equal(kit.cpu.core.segBaseHigh(TR), -0x7780);
  assert.equal(kit.ram.getUint8(0x1045), 0x8b);
});

test('POPF at CPL 3 leaves IF and IOPL alone', () => {
  const kit = new Kit().long64(3);
  kit.leave(LEAVE_POPF, 1 | SIZE64, BigInt(IF | 0x3000 | ZF), 0x5008n);
  assert.deepEqual([kit.cpu.core.readFlags(), kit.reg(4)], [ZF | 2, 0x5008n]);
});

test('ENTER with nesting, DIV of 128 bits', () => {
  const kit = new Kit().long64();
  kit.setReg(4, 0x7000n);
  kit.setReg(5, 0x6000n);
  kit.quad(0x5ff8, 0x1111n);
  kit.leave(LEAVE_ENTER, 4 | SIZE64, 32n, 2n);
  assert.deepEqual([kit.reg(4), kit.reg(5)], [0x7000n - 24n - 32n, 0x6ff8n]);
  assert.deepEqual([kit.getQuad(0x6ff8), kit.getQuad(0x6ff0), kit.getQuad(0x6fe8)], [0x6000n, 0x1111n, 0x6ff8n]);
  kit.setReg(0, 5n);
  kit.setReg(2, 1n);
  kit.rip = 0x100n;
  kit.leave(LEAVE_DIV, 3 | SIZE64, 16n);
  assert.deepEqual([kit.reg(0), kit.reg(2), kit.rip], [0x1000000000000000n, 5n, 0x103n]);
});

test('ENTER copies frame pointers by way of the stack segment', () => {
  const kit = new Kit().long64();
  kit.gate(12, 8, 0xc00);
  kit.setReg(4, 0x7000n);
  kit.setReg(5, 0x8000_0000_0000_6000n);
  kit.leave(LEAVE_ENTER, 4 | SIZE64, 32n, 2n);
  assert.equal(kit.rip, 0xc00n);
});

test('FXSAVE, FXRSTOR, XSAVE and XRSTOR', () => {
  const kit = new Kit().long64();
  kit.gate(13, 8, 0xd00, { ist: 1 });
  const { core } = kit.cpu;
  core.set(FCW, 0x27f);
  core.set(FTOP, 6);
  core.set(FSW, 0x41);
  core.u8[core.base + FTAG + 6] = 0;
  kit.setBig(FPREG + 16 * 6, 0x8000000000000000n);
  core.set(FPREG + 16 * 6 + 8, 0x3fff);
  kit.setBig(XMM + 16 * 15, 0x1122334455667788n);
  kit.leave(LEAVE_XSAVE, 3 | SIZE64, 0x5000n);
  assert.deepEqual(
    [kit.ram.getUint16(0x5000, true), kit.ram.getUint16(0x5002, true), kit.ram.getUint8(0x5004)],
    [0x27f, 0x3041, 0x40],
  );
  assert.deepEqual([kit.getQuad(0x5020), kit.ram.getUint16(0x5028, true)], [0x8000000000000000n, 0x3fff]);
  assert.equal(kit.getQuad(0x5000 + 160 + 240), 0x1122334455667788n);
  assert.deepEqual([kit.ram.getUint32(0x5018, true), kit.ram.getUint32(0x501c, true)], [0x1f80, 0xffff]);
  kit.cpu.core.set(MXCSR, 0);
  kit.setBig(XMM + 16 * 15, 0n);
  core.set(FTOP, 0);
  kit.leave(LEAVE_XSAVE, 3 | SIZE64 | (1 << 8), 0x5000n);
  assert.deepEqual([core.get(MXCSR), core.get(FTOP), core.get(FSW), kit.big(XMM + 240)], [0x1f80, 6, 0x41, 0x1122334455667788n]);

  core.set(0x2b8, core.get(0x2b8) | (1 << 18)); // CR4.OSXSAVE
  core.set(XCR0, 3);
  kit.setReg(0, 7n);
  kit.leave(LEAVE_XSAVE, 3 | SIZE64 | (5 << 8), 0x5400n); // XSAVEC
  assert.deepEqual([kit.getQuad(0x5600), kit.getQuad(0x5608)], [3n, (1n << 63n) | 3n]);
  kit.quad(0x5600, 1n);
  kit.leave(LEAVE_XSAVE, 3 | SIZE64 | (3 << 8), 0x5400n); // XRSTOR: SSE to its initial state
  assert.deepEqual([kit.big(XMM + 240), core.get(FTOP)], [0n, 6]);
  kit.quad(0x5600, 4n);
  kit.leave(LEAVE_XSAVE, 3 | SIZE64 | (3 << 8), 0x5400n);
  assert.equal(kit.rip, 0xd00n);
});
