/** The software TLB and the jump caches. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { ACCESS_EXEC, ACCESS_READ, ACCESS_WRITE } from '../isa/isa.ts';
import { CELLS, GUEST_MEMORY, JUMP_ENTRIES, JUMP_PAGE_BITS, TLB_ENTRIES, VICTIM, VICTIM_ENTRIES } from './layout.ts';
import { EXEC, READ, WRITE } from './test-kit.ts';
import { Tlb } from './tlb.ts';

const ALL = READ | WRITE | EXEC;
const HOST = GUEST_MEMORY;
const buffer = new ArrayBuffer(GUEST_MEMORY + 0x10000);
const words = new Int32Array(buffer);
let tlb: Tlb;

beforeEach(() => {
  tlb = new Tlb(buffer);
});

const probe = (page: number, high = 0): number => tlb.probe(page, high, ACCESS_READ);

/** Is a code address in the current jump cache? */
function jumps(low: number, high = 0): boolean {
  const start = tlb.jumpAddress >> 2;
  for (let at = start; at < start + JUMP_ENTRIES * 4; at += 4) {
    if (words[at] === low && words[at + 1] === high && words[at + 2] !== 0) return true;
  }
  return false;
}

/** Is a page among the current context's victims? */
function isVictim(page: number): boolean {
  const start = (tlb.tlbAddress + VICTIM) >> 2;
  for (let i = 0; i < VICTIM_ENTRIES; i++) if (words[start + 8 * i] === page) return true;
  return false;
}

test('what is filled is found, at any end of the address space, for what it permits', () => {
  const places: [number, number, number][] = [
    [0, 0, HOST],
    [0x7ffff000, 0, HOST + 0x1000],
    [0x80000000 | 0, 0, HOST],
    [-4096, -1, HOST + 0x5000],
    [-4096, 0, HOST + 0x1000],
    [0, 0x80000000 | 0, HOST],
    [-4096, 0x7fffffff, HOST + 0x2000],
    [0x1000, -0x8000, 0x3fff_f000],
    [0x2000, 5, 0x1_8000_0000],
    [-8192, 5, 0x2_7fff_f000],
  ];
  for (const [low, high, host] of places) {
    tlb.fill(low, high, host, READ | EXEC, false);
    assert.equal(tlb.probe(low | 0x123, high, ACCESS_READ), host + 0x123);
    assert.equal(tlb.probe(low | 0xfff, high, ACCESS_EXEC), host + 0xfff);
    assert.equal(tlb.probe(low, high, ACCESS_WRITE), -1);
    assert.equal(tlb.probe(low, high ^ 1, ACCESS_READ), -1);
    assert.equal(tlb.probe(low ^ 0x1000, high, ACCESS_READ), -1);
  }
});

test('with one address of a larger page all its pieces go, those of others stay', () => {
  for (const [bits, other] of [
    [21, 0x60_0000],
    [22, 0x80_0000],
    [30, 0x4000_0000],
  ] as const) {
    tlb.select(0, 0, 0);
    tlb.fill(0x40_1000, 0, HOST, ALL, true, bits);
    tlb.fill(0x5f_f000, 0, HOST + 0x1000, ALL, true, bits);
    tlb.select(2, 0, 0);
    tlb.fill(0x40_1000, 0, HOST, ALL, true, bits);
    tlb.fill(other, 0, HOST + 0x2000, ALL, true, bits);
    tlb.fill(0x40_2000, 1, HOST + 0x3000, ALL, true, bits);
    tlb.flushPage(other + 0x5000, 2);
    assert.equal(probe(0x40_1000), HOST);
    tlb.flushPage(0x50_0000, 0);
    assert.equal(probe(0x40_1000), -1);
    tlb.select(0, 0, 0);
    assert.deepEqual([probe(0x40_1000), probe(0x5f_f000)], [-1, -1]);
    tlb.flushAll();
  }
});

test('however many larger pages there are, each is flushed as a whole', () => {
  for (let i = 0; i < 3000; i++) tlb.fill(0x1000, i, HOST, ALL, true, 21);
  assert.equal(probe(0x1000, 2999), HOST);
  tlb.flushPage(0x1f_0000, 2999);
  assert.equal(probe(0x1000, 2999), -1);
});

test('an empty TLB finds nothing, at the address of all ones either', () => {
  for (const access of [ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC]) {
    for (const low of [0, -1, -4096, 0xfff]) for (const high of [0, -1]) assert.equal(tlb.probe(low, high, access), -1);
  }
});

test('an entry that is pushed out becomes a victim, and goes with its page', () => {
  tlb.fill(0x1000, 0, HOST, ALL, false);
  for (let i = 1; i <= VICTIM_ENTRIES; i++) {
    tlb.fill(0x1000 + i * TLB_ENTRIES * 4096, 0, HOST + 0x1000 * i, ALL, false);
    assert.equal(probe(0x1000), -1);
    assert.ok(isVictim(0x1000));
  }
  tlb.fill(0x1000 + 9 * TLB_ENTRIES * 4096, 0, HOST, ALL, false);
  assert.ok(!isVictim(0x1000), 'the oldest makes room');
  tlb.flushPage(0x1000 + 3 * TLB_ENTRIES * 4096, 0);
  assert.ok(!isVictim(0x1000 + 3 * TLB_ENTRIES * 4096));
  assert.ok(isVictim(0x1000 + 4 * TLB_ENTRIES * 4096));
});

test('private pages of the supervisor go with the address space, global ones stay', () => {
  tlb.select(0, 1, 0);
  tlb.fill(0x1000, 0, HOST, ALL, true);
  tlb.fill(0x2000, 0, HOST, READ | WRITE, false);
  tlb.setJump(0x1000, 0, CELLS, false);
  tlb.flushAddressSpace(1);
  assert.equal(probe(0x1000), HOST);
  assert.equal(probe(0x2000), -1);
  assert.ok(jumps(0x1000), 'no private page had code');
  tlb.fill(0x2000, 0, HOST, ALL, false);
  tlb.select(0, 2, 0);
  assert.equal(probe(0x1000), HOST);
  assert.equal(probe(0x2000), -1);
  assert.ok(!jumps(0x1000));
  tlb.flushAll();
  assert.equal(probe(0x1000), -1);
});

test('private pages are dropped however many there are, and among the victims', () => {
  tlb.select(0, 1, 0);
  for (let i = 0; i < 3000; i++) tlb.fill(i * 4096, 0, HOST, ALL, i % 5 === 0);
  for (let i = 0; i < 20; i++) tlb.fill((i * TLB_ENTRIES + 7) * 4096, 0, HOST, ALL, false);
  tlb.select(0, 2, 0);
  for (let i = 0; i < 3000; i++) if (i % 5 !== 0) assert.equal(probe(i * 4096), -1);
  for (let i = 0; i < 20; i++) assert.ok(!isVictim((i * TLB_ENTRIES + 7) * 4096));
});

test('user address spaces are kept apart, and the least recently used makes room', () => {
  for (let asid = 0; asid < 8; asid++) {
    tlb.select(2, asid, 0);
    tlb.fill(0x1000, 0, HOST + asid * 4096, ALL, false);
    tlb.setJump(0x1000, 0, CELLS + 8 * asid, false);
  }
  for (let asid = 0; asid < 8; asid++) {
    tlb.select(2, asid, 0);
    assert.equal(probe(0x1000), HOST + asid * 4096);
  }
  tlb.select(2, 8, 0);
  assert.equal(probe(0x1000), -1);
  assert.ok(!jumps(0x1000));
  tlb.select(2, 0, 0);
  assert.equal(probe(0x1000), -1, 'it was used least recently');
  tlb.flushAddressSpace(3);
  tlb.select(2, 3, 0);
  assert.equal(probe(0x1000), -1);
  tlb.select(2, 4, 0);
  assert.equal(probe(0x1000), HOST + 4 * 4096);
  tlb.flushAddressSpace(-1);
  assert.equal(probe(0x1000), -1);
});

test('one page is dropped from the current address space; a global one from all', () => {
  tlb.select(2, 1, 0);
  tlb.fill(0x1000, 0, HOST, ALL, false);
  tlb.fill(0x3000, 0, HOST, ALL, true);
  tlb.setJump(0x3004, 0, CELLS, false);
  tlb.select(2, 2, 0);
  tlb.fill(0x1000, 0, HOST, ALL, false);
  tlb.setJump(0x1004, 0, CELLS, false);
  tlb.setJump(0x2004, 0, CELLS, false);
  tlb.flushPage(0x1000, 0);
  assert.equal(probe(0x1000), -1);
  assert.ok(!jumps(0x1004) && jumps(0x2004));
  tlb.flushPage(0x3000, 0);
  tlb.select(2, 1, 0);
  assert.equal(probe(0x3000), -1);
  assert.ok(!jumps(0x3004));
});

test('with a page go jumps to an instruction of the page before that runs into it', () => {
  for (const page of [0x1000, 0x2000, 0x3000, 0xff000, 0x100000]) tlb.fill(page, 0, HOST, READ | EXEC, true);
  tlb.setJump(0x1ffe, 0, CELLS, true);
  tlb.setJump(0x1000, 0, CELLS, false);
  tlb.setJump(0xffffe, 0, CELLS, true);
  tlb.flushPage(0x3000, 0);
  assert.ok(jumps(0x1ffe));
  tlb.flushPage(0x2000, 0);
  assert.ok(!jumps(0x1ffe));
  tlb.flushPage(0x100000, 0);
  assert.ok(!jumps(0xffffe), 'where the page bits wrap, too');
});

test('a page of data takes nothing along that is known of code, a page of code does', () => {
  const data = 0x1000 + (4096 << JUMP_PAGE_BITS);
  tlb.fill(0x1000, 0, HOST, READ | EXEC, true);
  tlb.fill(data, 0, HOST + 0x1000, READ | WRITE, true);
  tlb.setJump(0x1004, 0, CELLS, false);
  const { mapping } = tlb;
  tlb.flushPage(data, 0);
  assert.equal(tlb.probe(data, 0, ACCESS_READ), -1);
  assert.ok(jumps(0x1004));
  assert.equal(tlb.mapping, mapping);
  tlb.flushPage(0x1000, 0);
  assert.ok(!jumps(0x1004));
  assert.notEqual(tlb.mapping, mapping);
});

test('jump caches are emptied when the mode changes, and all at once', () => {
  tlb.select(0, 0, 1);
  tlb.setJump(0x1000, 7, CELLS, false);
  tlb.select(1, 0, 1);
  tlb.select(0, 0, 1);
  assert.ok(jumps(0x1000, 7));
  tlb.select(0, 0, 2);
  assert.ok(!jumps(0x1000, 7));
  for (let i = 0; i < 5000; i++) tlb.setJump(i * 37, 0, CELLS, false);
  tlb.forgetPlaces();
  assert.ok(words.subarray(tlb.jumpAddress >> 2, (tlb.jumpAddress >> 2) + JUMP_ENTRIES * 4).every((word) => word === 0));
});

test('a page is protected in every context, under every name, among the victims', () => {
  const host = HOST + 0x5000;
  for (const [context, asid] of [
    [2, 5],
    [2, 0],
    [1, 0],
    [0, 0],
  ] as const) {
    tlb.select(context, asid, 0);
    tlb.fill(0x1000, 0, host, ALL, false);
    tlb.fill(0x9000, 3, host, ALL, false);
    tlb.fill(0x1000 + TLB_ENTRIES * 4096, 0, HOST, ALL, false);
    tlb.fill(0x2000, 0, host + 0x1000, ALL, false);
  }
  tlb.protect(host);
  for (const [context, asid] of [
    [0, 0],
    [1, 0],
    [2, 0],
    [2, 5],
  ] as const) {
    tlb.select(context, asid, 0);
    assert.equal(tlb.probe(0x9000, 3, ACCESS_WRITE), -1);
    assert.equal(tlb.probe(0x9000, 3, ACCESS_READ), host);
    assert.equal(tlb.probe(0x2000, 0, ACCESS_WRITE), host + 0x1000);
    const start = (tlb.tlbAddress + VICTIM) >> 2;
    for (let i = 0; i < VICTIM_ENTRIES; i++) {
      const at = start + 8 * i;
      if (words[at] === 0x1000) assert.equal(words[at + 2], -1);
    }
  }
  // Filled again: protected again; one name only.
  tlb.fill(0x9000, 3, host, ALL, false);
  tlb.protect(host);
  assert.equal(tlb.probe(0x9000, 3, ACCESS_WRITE), -1);
});
