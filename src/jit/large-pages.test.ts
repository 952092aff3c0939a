/** Larger pages of the supervisor's, which accesses by call and bulk operations find without the TLB. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { ACCESS_READ, ACCESS_WRITE } from '../isa/isa.ts';
import { LargePages } from './large-pages.ts';
import { GUEST_MEMORY, LARGE } from './layout.ts';
import { EXEC, L, READ, RAM_SIZE, ROM, STOP, TestIsa, TestMachine, WRITE, add, stop } from './test-kit.ts';
import type { Insn } from './test-kit.ts';
import { Tlb } from './tlb.ts';

const MIB = 2 ** 20;
const ALL = READ | WRITE | EXEC;
const BASE = 0x4000_0000;
const buffer = new ArrayBuffer(GUEST_MEMORY + 4 * MIB);
const flags = new Uint8Array(buffer.byteLength / 4096);
/** 2 MiB of RAM, then 2 MiB with a hole. */
const physical = {
  hostPage: (address: number): number => (address === 3 * MIB ? -1 : GUEST_MEMORY + address),
  isWritable: (): boolean => true,
  pageFlags: flags,
};
let tlb: Tlb;
const table = (): LargePages => (tlb as unknown as { current: { large: LargePages } }).current.large;
const reads = (low: number): boolean => table().find(low, 0, ACCESS_READ) >= 0;
const writes = (low: number): boolean => table().find(low, 0, ACCESS_WRITE) >= 0;

/** As the engine does after a walk. */
function fill(low: number, page: number, permissions = ALL, global = true, access = ACCESS_READ): void {
  tlb.fill(low, 0, GUEST_MEMORY + page, permissions, global, 21);
  tlb.fillLarge(low, 0, access, { page, permissions, global, bits: 21 }, physical);
}

beforeEach(() => {
  flags.fill(0);
  tlb = new Tlb(buffer);
  tlb.select(0, 0, 0);
});

test('a larger page is found at all its addresses, for what it permits', () => {
  fill(BASE + 0x5000, 0x5000, READ);
  assert.equal(table().find(BASE + 0x1f_f123, 0, ACCESS_READ), GUEST_MEMORY);
  assert.ok(!writes(BASE) && !reads(BASE + 2 * MIB) && table().find(BASE, 1, ACCESS_READ) < 0);
  fill(BASE + 0x6000, 0x6000, ALL, true, ACCESS_WRITE);
  assert.ok(reads(BASE) && writes(BASE));
});

test('where memory is not all there, or not for a user, there is none', () => {
  fill(BASE + 2 * MIB, 2 * MIB);
  assert.ok(!reads(BASE + 2 * MIB));
  tlb.select(2, 7, 0);
  fill(BASE, 0);
  assert.ok(!reads(BASE));
});

test('a page that somebody watches for writes closes the larger one to them, also later', () => {
  const watched = GUEST_MEMORY + 0x7000;
  fill(BASE, 0);
  tlb.protect(GUEST_MEMORY + 2 * MIB);
  assert.ok(writes(BASE));
  tlb.protect(watched);
  assert.ok(reads(BASE) && !writes(BASE));
  flags[watched / 4096] = 1;
  fill(BASE + 0x1000, 0x1000, ALL, true, ACCESS_WRITE);
  assert.ok(!writes(BASE));
  flags[watched / 4096] = 0;
  fill(BASE + 0x1000, 0x1000, ALL, true, ACCESS_WRITE);
  assert.ok(writes(BASE));
});

test('writes are withdrawn in both contexts of the supervisor', () => {
  fill(BASE, 0);
  tlb.select(1, 0, 0);
  fill(BASE, 0);
  tlb.protect(GUEST_MEMORY);
  assert.ok(!writes(BASE));
  tlb.select(0, 0, 0);
  assert.ok(!writes(BASE));
});

test('a larger page goes with any of its addresses, with everything, and a private one with the address space', () => {
  fill(BASE, 0);
  tlb.flushPage(BASE + 0x1f_0000, 0);
  assert.ok(!reads(BASE));
  fill(BASE, 0);
  tlb.flushAddressSpace(0);
  assert.ok(reads(BASE));
  tlb.flushAll();
  assert.ok(!reads(BASE));
  fill(BASE, 0, ALL, false);
  tlb.flushAddressSpace(0);
  assert.ok(!reads(BASE));
  fill(BASE, 0, ALL, false);
  tlb.select(0, 5, 0);
  assert.ok(!reads(BASE));
});

test('an empty table has nothing at any address, that of all ones included', () => {
  for (const low of [0, -1, -2 * MIB]) for (const high of [0, -1]) assert.equal(table().find(low, high, ACCESS_READ), -1);
  assert.equal(new Int32Array(buffer)[(tlb.tlbAddress + LARGE) >> 2], -1);
});

/** l1 = what is at l0. */
const load: Insn = (b) => b.set(L[1]!, b.ld64(b.get(L[0]!)));
const store: Insn = (b) => b.st64(b.get(L[0]!), b.get(L[1]!));
/** l3 bytes from l2 to l0; l1 = whether they could be. */
const copy: Insn = (b) => b.set(L[1]!, b.extu(b.bulkcopy(b.get(L[0]!), b.get(L[2]!), b.get(L[3]!))));

class Kernel extends TestIsa {
  favoursSpeed(): boolean {
    return false;
  }
}

/** All of RAM is one larger page at BASE, and is entered in the supervisor's context. */
function machine(compile: boolean): TestMachine {
  const made = new TestMachine(new Kernel(), { compile });
  for (let page = 0; page < RAM_SIZE; page += 4096) {
    made.vcpu.map.set(BigInt((BASE + page) / 4096), { page, permissions: ALL, global: true, bits: 21 });
  }
  made.engine.selectContext(0, 0, 0);
  return made;
}

const CODE = 0x1000;

/** Puts code where it does not lie in the larger page, in ROM. @returns its address */
function inRom(kernel: TestMachine, offset: number, insns: readonly Insn[]): number {
  for (const [i, insn] of insns.entries()) kernel.bytes.set(kernel.encoded(insn), GUEST_MEMORY + RAM_SIZE + offset + 2 * i);
  return ROM + offset;
}

for (const compile of [false, true]) {
  const how = compile ? 'compiled' : 'interpreted';

  test(`${how} accesses go where a larger page leads`, () => {
    const kernel = machine(compile);
    const code = inRom(kernel, 0, [load, add(0, 0x1000), store, stop]);
    const before = (): void => kernel.set(L[0]!, BigInt(BASE + 0x8ff8));
    kernel.view.setBigUint64(GUEST_MEMORY + 0x8ff8, 0x1122334455667788n, true);
    kernel.runHot(code, before);
    assert.equal(kernel.view.getBigUint64(GUEST_MEMORY + 0x9ff8, true), 0x1122334455667788n);
    if (!compile) return;
    assert.ok(kernel.regions > 0);
    const { walks } = kernel.vcpu;
    for (let page = 0x10000; page < 0x60000; page += 0x1000) {
      kernel.set(L[0]!, BigInt(BASE + page - 4));
      kernel.run(code);
    }
    assert.equal(kernel.vcpu.walks, walks, 'no page is walked for');
    assert.equal(kernel.vcpu.leaves.at(-1)!.reason, STOP);
  });

  test(`${how} accesses that run out of a larger page reach what lies behind`, () => {
    const kernel = machine(compile);
    kernel.code(CODE, [load, stop]);
    kernel.vcpu.map.set(BigInt((BASE + RAM_SIZE) / 4096), { page: ROM, permissions: READ });
    kernel.view.setBigUint64(GUEST_MEMORY + RAM_SIZE - 4, 0x1122334455667788n, true);
    kernel.runHot(CODE, () => kernel.set(L[0]!, BigInt(BASE + 0x8000)));
    kernel.set(L[0]!, BigInt(BASE + RAM_SIZE - 4));
    kernel.run(CODE);
    assert.equal(kernel.get(L[1]!), 0x1122334455667788n);
  });

  test(`${how} stores by a larger page are told of to code that lies in it`, () => {
    const kernel = machine(compile);
    const [victim, patched] = [0x3000, 0x4000];
    kernel.code(CODE, [store, stop]);
    kernel.code(victim, [add(4, 1), stop]);
    const target = kernel.encoded(add(4, 100));
    kernel.runHot(CODE, () => kernel.set(L[0]!, BigInt(BASE + patched)));
    kernel.run(victim);
    assert.equal(kernel.get(L[4]!), 1n);
    const bytes = kernel.view.getBigUint64(GUEST_MEMORY + victim, true);
    kernel.set(L[0]!, BigInt(BASE + victim));
    kernel.set(L[1]!, (bytes & ~0xffffn) | BigInt(target[0]! | (target[1]! << 8)));
    kernel.run(CODE);
    kernel.run(victim);
    assert.equal(kernel.get(L[4]!), 101n);
  });

  test(`${how} copies find both ends in larger pages`, () => {
    const kernel = machine(compile);
    const code = inRom(kernel, 0, [copy, stop]);
    kernel.set(L[0]!, BigInt(BASE + 0x8000));
    kernel.run(inRom(kernel, 0x100, [load, store, stop]));
    const before = (): void => {
      for (const [i, value] of [BASE + 0x20000, 0, BASE + 0x30000, 4096].entries()) kernel.set(L[i]!, BigInt(value));
    };
    kernel.bytes.fill(0x5a, GUEST_MEMORY + 0x30000, GUEST_MEMORY + 0x31000);
    const { walks } = kernel.vcpu;
    kernel.runHot(code, before);
    assert.equal(kernel.get(L[1]!), 1n);
    assert.deepEqual([kernel.bytes[GUEST_MEMORY + 0x20fff], kernel.bytes[GUEST_MEMORY + 0x21000]], [0x5a, 0]);
    assert.ok(kernel.vcpu.walks - walks <= 1, 'for the code alone');
  });
}
