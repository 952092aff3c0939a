import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LEAVE_IN, LEAVE_INS, LEAVE_OUT, LEAVE_OUTS, LEAVE_REP } from '../leave.ts';
import { DF, EFLAGS, ZF } from '../state.ts';
import { DEVICE, Kit } from './test-kit.ts';

const MOVS = 0;
const STOS = 1;
const LODS = 2;
const CMPS = 3;
const SCAS = 4;

/** @param size log2 of the element size */
const rep = (kind: number, size: number, repne = 0): number => 2 | (size << 4) | (kind << 8) | (repne << 11) | (3 << 12);

function start(si: bigint, di: bigint, count: bigint): Kit {
  const kit = new Kit().long64();
  kit.setReg(6, si);
  kit.setReg(7, di);
  kit.setReg(1, count);
  kit.rip = 0x102n;
  return kit;
}

const bytes = (kit: Kit, at: number, length: number): number[] => Array.from({ length }, (_, i) => kit.ram.getUint8(at + i));

function number(kit: Kit, at: number, length: number): void {
  for (let i = 0; i < length; i++) kit.ram.setUint8(at + i, (i * 7 + 1) & 0xff);
}

const registers = (kit: Kit): bigint[] => [kit.reg(1), kit.reg(6), kit.reg(7), kit.rip];

test('MOVS copies across pages that lie apart', () => {
  const kit = start(0x10ff1n, 0x20003n, 0x1800n);
  kit.quad(0xb000 + 8 * 0x11, 0x31007n);
  number(kit, 0x10ff1, 15);
  number(kit, 0x31000, 0x1000);
  kit.ram.setUint8(0x12000, 99);
  kit.leave(LEAVE_REP, rep(MOVS, 0));
  assert.deepEqual(registers(kit), [0n, 0x127f1n, 0x21803n, 0x102n]);
  assert.deepEqual(bytes(kit, 0x20003, 15), bytes(kit, 0x10ff1, 15));
  assert.deepEqual(bytes(kit, 0x20012, 100), bytes(kit, 0x31000, 100));
  assert.equal(kit.ram.getUint8(0x21012), 99);
});

test('MOVS elements that cross a page', () => {
  const kit = start(0x10ffan, 0x21ffdn, 3n);
  number(kit, 0x10ff0, 64);
  const expected = bytes(kit, 0x10ffa, 24);
  kit.leave(LEAVE_REP, rep(MOVS, 3));
  assert.deepEqual(bytes(kit, 0x21ffd, 24), expected);
  assert.deepEqual(registers(kit), [0n, 0x11012n, 0x22015n, 0x102n]);
});

test('overlapping MOVS repeats as the processor does, in every size and direction', () => {
  for (const [distance, size, down] of [
    [1, 0, false],
    [3, 0, false],
    [8, 3, false],
    [12, 3, false],
    [5, 3, false],
    [-5, 2, false],
    [-3, 0, true],
    [-8, 3, true],
    [-2, 2, true],
    [7, 1, true],
  ] as const) {
    const width = 1 << size;
    const count = Math.floor(200 / width);
    const from = down ? 0x10000 + 400 : 0x10100;
    const kit = start(BigInt(from), BigInt(from + distance), BigInt(count));
    if (down) kit.cpu.core.set(EFLAGS, DF | 2);
    number(kit, 0x10000, 1024);
    const model = bytes(kit, 0x10000, 1024);
    for (let i = 0; i < count; i++) {
      const at = from - 0x10000 + (down ? -i : i) * width;
      const element = model.slice(at, at + width);
      element.forEach((v, k) => (model[at + distance + k] = v));
    }
    kit.leave(LEAVE_REP, rep(MOVS, size));
    assert.deepEqual(bytes(kit, 0x10000, 1024), model, `distance ${distance}, size ${width}`);
    assert.equal(kit.reg(1), 0n);
  }
});

test('a fault leaves the registers at the element that faulted, pc at the instruction', () => {
  const kit = start(0x10000n, 0x20f00n, 0x1000n);
  kit.gate(14, 8, 0xe00, { ist: 1 });
  kit.quad(0xb000 + 8 * 0x21, 0n);
  number(kit, 0x10000, 0x1000);
  kit.leave(LEAVE_REP, rep(MOVS, 1));
  assert.deepEqual([kit.reg(1), kit.reg(6), kit.reg(7)], [0xf80n, 0x10100n, 0x21000n]);
  assert.equal(kit.rip, 0xe00n);
  assert.equal(kit.getQuad(0x6800 - 40), 0x100n);
  assert.deepEqual(bytes(kit, 0x20f00, 256), bytes(kit, 0x10000, 256));
  kit.rip = 0x102n;
  kit.quad(0xb000 + 8 * 0x21, 0x21007n);
  kit.leave(LEAVE_REP, rep(MOVS, 1));
  assert.equal(kit.reg(1), 0n);
  assert.deepEqual(bytes(kit, 0x21000, 16), bytes(kit, 0x10100, 16));
});

test('STOS in each size, in bounded pieces', () => {
  for (const [size, value] of [
    [0, 0x5an],
    [1, 0x1234n],
    [2, 0xdeadbeefn],
    [3, 0x1122334455667788n],
  ] as const) {
    const kit = start(0n, 0x10ffdn, 700n);
    kit.setReg(0, value);
    kit.leave(LEAVE_REP, rep(STOS, size));
    const width = 1 << size;
    const expected = Array.from({ length: 700 * width }, (_, i) => Number((value >> BigInt(8 * (i % width))) & 0xffn));
    assert.deepEqual(bytes(kit, 0x10ffd, 700 * width), expected);
    assert.equal(kit.ram.getUint8(0x10ffc), 0);
    assert.equal(kit.ram.getUint8(0x10ffd + 700 * width), 0);
  }
  const kit = start(0n, 0x10000n, 0x18000n);
  kit.setReg(0, 0xffn);
  kit.leave(LEAVE_REP, rep(STOS, 0));
  assert.deepEqual([kit.reg(1), kit.reg(7), kit.rip], [0x8000n, 0x20000n, 0x100n]);
});

test('STOS to a device and to pages that are watched goes through the board', () => {
  const kit = start(0n, 0x10000n, 2n);
  kit.quad(0xb000 + 8 * 0x10, BigInt(DEVICE) | 7n);
  kit.setReg(0, 0x11n);
  kit.leave(LEAVE_REP, rep(STOS, 2));
  assert.deepEqual(kit.deviceWrites, [
    [DEVICE, 4, 0x11],
    [DEVICE + 4, 4, 0x11],
  ]);
});

test('STOS to a device goes down, too, and ends where its page does', () => {
  const kit = start(0n, 0x10004n, 4n);
  kit.quad(0xb000 + 8 * 0x10, BigInt(DEVICE) | 7n);
  kit.setReg(0, 0xffff_8001n);
  kit.cpu.core.set(EFLAGS, DF | 2);
  kit.leave(LEAVE_REP, rep(STOS, 1));
  assert.deepEqual(kit.deviceWrites, [
    [DEVICE + 4, 2, 0x8001],
    [DEVICE + 2, 2, 0x8001],
    [DEVICE, 2, 0x8001],
  ]);
  assert.equal(kit.ram.getUint16(0xfffe, true), 0x8001);
  assert.deepEqual(registers(kit), [0n, 0n, 0xfffcn, 0x102n]);
});

test('REPNE SCAS and REPE CMPS stop at the right element with its flags', () => {
  const kit = start(0n, 0x10000n, 0x2000n);
  kit.ram.setUint8(0x11005, 0x42);
  kit.setReg(0, 0x42n);
  kit.leave(LEAVE_REP, rep(SCAS, 0, 1));
  assert.deepEqual([kit.reg(1), kit.reg(7), kit.rip], [0x2000n - 0x1006n, 0x11006n, 0x102n]);
  assert.equal(kit.cpu.core.readFlags() & ZF, ZF);
  const other = start(0x10000n, 0x20000n, 8n);
  other.ram.setUint32(0x1000c, 1, true);
  other.leave(LEAVE_REP, rep(CMPS, 2));
  assert.deepEqual(registers(other), [4n, 0x10010n, 0x20010n, 0x102n]);
  assert.equal(other.cpu.core.readFlags() & ZF, 0);
});

test('LODS keeps the last element', () => {
  const kit = start(0x10000n, 0n, 4n);
  kit.ram.setUint16(0x10006, 0xbeef, true);
  kit.setReg(0, 0x1111111111111111n);
  kit.leave(LEAVE_REP, rep(LODS, 1));
  assert.equal(kit.reg(0), 0x111111111111beefn);
});

test('16-bit addresses wrap', () => {
  const kit = new Kit();
  kit.setReg(7, 0x1fffen);
  kit.setReg(1, 0x10004n);
  kit.setReg(0, 0x77n);
  kit.leave(LEAVE_REP, 2 | (STOS << 8) | (1 << 12), 0n, 0x10000n);
  assert.deepEqual([kit.reg(7), kit.reg(1)], [0x10002n, 0x10000n]);
  assert.deepEqual(bytes(kit, 0x1fffe, 4), [0x77, 0x77, 0, 0]);
  assert.deepEqual(bytes(kit, 0x10000, 3), [0x77, 0x77, 0]);
});

test('ports: IN, OUT, INS, OUTS and the permission map', () => {
  const kit = new Kit().long64();
  kit.portValue = 0x80;
  kit.setReg(0, 0xffffffff_ffffffffn);
  kit.leave(LEAVE_IN, 1 | (2 << 4), 0x60n);
  assert.equal(kit.reg(0), 0x80n);
  kit.leave(LEAVE_OUT, 1, 0x61n);
  assert.deepEqual(kit.portWrites, [[0x61, 1, 0x80]]);
  kit.setReg(7, 0x10000n);
  kit.setReg(1, 3n);
  kit.setReg(2, 0x1f0n);
  kit.rip = 0x102n;
  kit.leave(LEAVE_INS, 2 | (1 << 4) | (1 << 8) | (3 << 9));
  assert.deepEqual([kit.reg(1), kit.reg(7), kit.rip], [0n, 0x10006n, 0x102n]);
  assert.equal(kit.ram.getUint32(0x10002, true), 0x830082);
  kit.setReg(6, 0x10004n);
  kit.leave(LEAVE_OUTS, 1 | (1 << 4) | (3 << 9));
  assert.deepEqual(kit.portWrites.at(-1), [0x1f0, 2, 0x83]);

  // Across two pages, of which the second lies elsewhere.
  const across = start(0n, 0x10ffen, 3n);
  across.quad(0xb000 + 8 * 0x11, 0x31007n);
  across.setReg(2, 0x1f0n);
  across.portValue = 0x90;
  across.leave(LEAVE_INS, 2 | (1 << 4) | (1 << 8) | (3 << 9));
  assert.deepEqual([across.reg(1), across.reg(7)], [0n, 0x11004n]);
  assert.deepEqual([across.ram.getUint16(0x10ffe, true), across.ram.getUint32(0x31000, true)], [0x90, 0x920091]);

  const user = new Kit().long64(3);
  user.gate(13, 8, 0xd00);
  user.cpu.core.setSegment(7, 0x40, 0x3000, 0, 0x6a + 1, 0x8b);
  user.ram.setUint16(0x3066, 0x68, true);
  user.ram.setUint8(0x3068, 0xfe);
  user.leave(LEAVE_OUT, 1, 0n);
  assert.equal(user.portWrites.length, 1);
  user.leave(LEAVE_OUT, 1, 1n);
  assert.equal(user.portWrites.length, 1);
  assert.equal(user.rip, 0xd00n);
});
