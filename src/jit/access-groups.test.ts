/** Accesses that look for their page together: what one of them may do is nothing that another may not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Builder } from '../ir/builder.ts';
import { ACCESS_READ, ACCESS_WRITE } from '../isa/isa.ts';
import { AccessGroups, BY_OTHER, BY_STACK, BY_TLB } from './access-groups.ts';
import { GUEST_MEMORY } from './layout.ts';
import { buildRegion, takeBlock } from './region.ts';
import { GLOBALS, L, READ, TestIsa, TestMachine, WRITE, add, stop } from './test-kit.ts';
import type { Insn } from './test-kit.ts';

const CODE = 0x1000;
/** Two pages that follow each other for the guest, and not in memory. */
const FIRST = 0x2_0000;
const SECOND = FIRST + 4096;
const [HOST_FIRST, HOST_SECOND] = [0x3_0000, 0x1_8000];

const load =
  (into: number, pointer: number, distance: number): Insn =>
  (b) =>
    b.set(L[into]!, b.ld64(b.add64(b.get(L[pointer]!), b.i64(distance))));
const store =
  (from: number, pointer: number, distance: number): Insn =>
  (b) =>
    b.st64(b.add64(b.get(L[pointer]!), b.i64(distance)), b.get(L[from]!));
/** Adds to what l0 points to. */
const increase: Insn = (b) => {
  const address = b.get(L[0]!);
  b.st64(address, b.add64(b.ld64w(address), b.i64(1)));
};
/** Ends the block; what follows is reached from it only. */
const unlessZero =
  (register: number): Insn =>
  (b, next) =>
    b.condGoto(b.ne64(b.get(L[register]!), b.i64(0)), next, 0x400);

/** @returns a machine whose code at CODE is compiled, with l0 and the stack pointer in the first page, and l6 = 1 */
function compiled(insns: readonly Insn[]): TestMachine {
  const machine = new TestMachine(new TestIsa());
  machine.code(CODE, [...insns, stop]);
  map(machine, READ | WRITE);
  machine.runHot(CODE, () => point(machine, FIRST + 0x100));
  assert.ok(machine.regions > 0);
  return machine;
}

function map(machine: TestMachine, second: number): void {
  machine.vcpu.map.set(BigInt(FIRST / 4096), { page: HOST_FIRST, permissions: READ | WRITE });
  machine.vcpu.map.set(BigInt(SECOND / 4096), second === 0 ? null : { page: HOST_SECOND, permissions: second });
  machine.engine.flushAll();
}

function point(machine: TestMachine, place: number): void {
  machine.set(L[0]!, BigInt(place));
  machine.set(L[7]!, BigInt(place));
  machine.set(L[6]!, 1n);
}

/** Puts a number wherever the guest finds it at an address. */
function put(machine: TestMachine, place: number, value: bigint): void {
  const host = place < SECOND ? HOST_FIRST + place - FIRST : HOST_SECOND + place - SECOND;
  machine.view.setBigUint64(GUEST_MEMORY + host, value, true);
}

test("fields on both sides of a page's end are found where they are, in any order", () => {
  for (const pointer of [0, 7]) {
    const machine = compiled([load(1, pointer, 16), load(2, pointer, -8), load(3, pointer, 40), store(6, pointer, 48)]);
    for (let place = SECOND - 64; place < SECOND + 16; place += 8) {
      point(machine, place);
      [16, -8, 40].forEach((distance, i) => put(machine, place + distance, BigInt(place + i)));
      put(machine, place + 48, 0n);
      machine.run(CODE);
      assert.deepEqual(
        [1, 2, 3].map((i) => machine.get(L[i]!)),
        [0, 1, 2].map((i) => BigInt(place + i)),
        `${pointer} at ${place.toString(16)}`,
      );
      machine.run(CODE);
      const host = place + 48 < SECOND ? HOST_FIRST + place + 48 - FIRST : HOST_SECOND + place + 48 - SECOND;
      assert.equal(machine.view.getBigUint64(GUEST_MEMORY + host, true), 1n);
    }
  }
});

test('a store among loads faults on a page that is not to be written to, and they do not', () => {
  const machine = compiled([load(1, 0, 0), load(2, 0, 8), store(6, 0, 16), add(5, 1)]);
  map(machine, READ);
  point(machine, SECOND + 0x100);
  machine.set(L[5]!, 0n);
  put(machine, SECOND + 0x108, 77n);
  machine.run(CODE);
  assert.deepEqual(
    machine.vcpu.faults.map(({ pc, address, access }) => [Number(pc), Number(address), access]),
    [[CODE + 4, SECOND + 0x110, ACCESS_WRITE]],
  );
  assert.deepEqual([machine.get(L[2]!), machine.get(L[5]!)], [77n, 0n]);
});

test('what lies in a page that is not there faults by itself', () => {
  for (const pointer of [0, 7]) {
    const machine = compiled([load(1, pointer, 0), load(2, pointer, 24), load(3, pointer, 8)]);
    map(machine, 0);
    point(machine, SECOND - 16);
    put(machine, SECOND - 16, 5n);
    machine.run(CODE);
    assert.deepEqual(
      machine.vcpu.faults.map(({ pc, address, access }) => [Number(pc), Number(address), access]),
      [[CODE + 2, SECOND + 8, ACCESS_READ]],
    );
    assert.equal(machine.get(L[1]!), 5n);
  }
});

test('after a step of the pointer, in the next block, distances count from where it was', () => {
  const far = 300;
  const insns = [load(1, 0, 0), load(2, 0, 100), add(0, far), unlessZero(6), load(3, 0, 100 - far), load(4, 0, 0)];
  const machine = compiled(insns);
  const place = SECOND - 200;
  point(machine, place);
  put(machine, place + 100, 3n);
  put(machine, place + far, 4n);
  machine.run(CODE);
  assert.deepEqual([machine.get(L[3]!), machine.get(L[4]!)], [3n, 4n]);
});

test('a changed number is written where it was read, on a page that is first written to', () => {
  const machine = compiled([increase, increase]);
  map(machine, READ | WRITE);
  point(machine, SECOND + 8);
  put(machine, SECOND + 8, 40n);
  machine.run(CODE);
  assert.equal(machine.view.getBigUint64(GUEST_MEMORY + HOST_SECOND + 8, true), 42n);
});

/** The region of one block. */
function region(build: (b: Builder) => void) {
  const b = new Builder(GLOBALS);
  return buildRegion({
    translate: () => {
      b.reset(-1);
      b.insn(0);
      build(b);
      b.leave(1, 0, 0);
      return takeBlock(b, false, []);
    },
    worthwhile: () => true,
  })!;
}

test('groups: who leads them, and over what', () => {
  const nodes = region((b) => {
    const [pointer, other] = [b.get(L[0]!), b.get(L[1]!)];
    b.set(L[2]!, b.ld64(b.add64(pointer, b.i64(16))));
    b.set(L[3]!, b.ld64(b.add64(other, b.i64(4))));
    b.set(L[2]!, b.ld64(pointer));
    b.st64(b.add64(pointer, b.i64(8)), b.get(L[3]!));
    b.set(L[2]!, b.ld64(b.add64(pointer, b.i64(0x200))));
  });
  const groups = new AccessGroups(GLOBALS.length);
  const rolesBy = (way: number) => {
    groups.find(nodes, () => way);
    return [...(groups.of(nodes[0]!) ?? new Map()).values()].map(({ leads, below, span }) => [leads, below, span]);
  };
  assert.deepEqual(rolesBy(BY_TLB), [
    [true, 16, 24],
    [false, 0, 0],
  ]);
  assert.deepEqual(rolesBy(BY_STACK), [
    [true, 16, 24],
    [false, 0, 0],
    [false, 0, 0],
  ]);
  assert.deepEqual(rolesBy(BY_OTHER), []);
});
