/** Code that changes: by the guest's own stores, by devices, behind the compiler's back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Builder } from '../ir/builder.ts';
import { GUEST_MEMORY } from './layout.ts';
import { HOT, L, STOP, TestIsa, TestMachine, W, add, jumpBy, jumpTo, loopBy, nop, stop } from './test-kit.ts';
import type { Insn, TestOptions } from './test-kit.ts';

const BOTH: readonly [string, TestOptions][] = [
  ['interpreted', { compile: false }],
  ['compiled', { compile: true }],
  ["as the host's code", { compile: false, native: true }],
  ['counted exactly', { compile: true, exactCount: true }],
  ["counted exactly, as the host's code, too", { compile: true, exactCount: true, native: true }],
];

/** Stores the low 16 bits of w0 at l2. */
const storeCode: Insn = (b) => b.st16(b.get(L[2]!), b.get(W[0]!));
const setStore = (machine: TestMachine, address: number, insn: Insn): void => {
  machine.set(L[2]!, BigInt(address));
  machine.set(W[0]!, BigInt(machine.isa.number(insn)));
};

for (const [how, options] of BOTH) {
  test(`${how}: a store into a later instruction of the same block`, () => {
    for (const distance of [2, 4, 8]) {
      const machine = new TestMachine(new TestIsa(), options);
      const [before, after] = [add(0, 1), add(0, 100)];
      const target = 0x1002 + distance;
      machine.code(0x1000, [add(1, 1), storeCode, before, before, before, before, before, stop]);
      for (let i = 0; i < 3 * HOT; i++) {
        // A harmless store while the code becomes hot, the real one now and then.
        setStore(machine, i % 7 === 6 ? target : 0x8000, after);
        machine.set(L[0]!, 0n);
        machine.run(0x1000);
        assert.equal(machine.get(L[0]!), i % 7 === 6 ? 104n : 5n, `round ${i}, distance ${distance}`);
        assert.equal(machine.get(L[1]!), BigInt(i + 1), 'the instruction before is executed once');
        machine.physical.writeBytes(target, machine.encoded(before));
      }
      assert.equal(machine.vcpu.leaves.length, 3 * HOT);
    }
  });

  test(`${how}: a loop that rewrites its own first instruction in each round`, () => {
    const machine = new TestMachine(new TestIsa(), options);
    const swap: Insn = (b) => {
      const address = b.i64(0x1000);
      const old = b.ld16u(address);
      b.st16(address, b.sub32(b.get(W[1]!), old));
    };
    const [one, hundred] = [add(0, 1), add(0, 100)];
    machine.code(0x1000, [one, swap, loopBy(1, -4), stop]);
    machine.set(W[1]!, BigInt(machine.isa.number(one) + machine.isa.number(hundred)));
    machine.set(L[1]!, 200n);
    machine.run(0x1000);
    assert.equal(machine.get(L[0]!), 100n * 101n);
  });

  test(`${how}: a store into other hot code, from a loop that calls it`, () => {
    const machine = new TestMachine(new TestIsa(), options);
    const [one, hundred] = [add(0, 1), add(0, 100)];
    machine.set(L[3]!, 0x1004n);
    machine.code(0x2000, [one, jumpTo(3)]);
    machine.code(0x1000, [storeCode, jumpBy(0xffe), loopBy(1, -4), stop]);
    for (let i = 0; i < 4 * HOT; i++) {
      setStore(machine, 0x2000, i % 5 < 2 ? hundred : one);
      machine.set(L[0]!, 0n);
      machine.set(L[1]!, 3n);
      machine.run(0x1000);
      assert.equal(machine.get(L[0]!), i % 5 < 2 ? 300n : 3n, `round ${i}`);
    }
  });

  test(`${how}: the second half of an instruction across pages is rewritten`, () => {
    const machine = new TestMachine(new TestIsa(), options);
    while (machine.isa.insns.length < 0x130) machine.isa.number(() => undefined);
    const low = machine.isa.number(add(0, 1));
    const other = low - 0x100;
    machine.isa.insns[other] = add(0, 100);
    machine.physical.writeBytes(0x1fff, Uint8Array.of(low & 255, low >> 8));
    machine.code(0x2001, [loopBy(1, -2), stop]);
    const change: Insn = (b) => b.st8(b.get(L[2]!), b.get(W[0]!));
    machine.code(0x3000, [change, jumpTo(3)]);
    machine.set(L[2]!, 0x2000n);
    machine.set(L[3]!, 0x1fffn);
    for (let i = 0; i < 3 * HOT; i++) {
      const changed = i % 5 === 4;
      machine.set(W[0]!, changed ? 0n : 1n);
      machine.set(L[0]!, 0n);
      machine.set(L[1]!, 4n);
      machine.run(i % 5 < 2 || changed ? 0x3000 : 0x1fff);
      assert.equal(machine.get(L[0]!), changed ? 400n : 4n, `round ${i}`);
    }
  });

  test(`${how}: a device writes into hot code`, () => {
    const machine = new TestMachine(new TestIsa(), options);
    machine.code(0x1000, [add(0, 1), jumpBy(0xffe)]);
    machine.code(0x2000, [add(0, 1), loopBy(1, -0x1002), stop]);
    const begin = (): void => {
      machine.set(L[0]!, 0n);
      machine.set(L[1]!, 30n);
    };
    for (const [first, second] of [
      [1, 1],
      [7, 1],
      [7, 5],
      [2, 3],
    ] as const) {
      machine.physical.writeBytes(0x1000, machine.encoded(add(0, first)));
      machine.physical.write(0x2000, 2, machine.isa.number(add(0, second)));
      for (let i = 0; i < 5 * HOT; i++) {
        begin();
        machine.run(0x1000);
        assert.equal(machine.get(L[0]!), BigInt(30 * (first + second)));
      }
    }
  });

  test(`${how}: data beside code is written without end`, () => {
    const machine = new TestMachine(new TestIsa(), options);
    const count: Insn = (b) => {
      const address = b.i64(0x1800);
      b.st32(address, b.add32(b.ld32w(address), b.i32(1)));
    };
    machine.code(0x1000, [count, loopBy(1, -2), stop]);
    for (let i = 0; i < 10; i++) {
      machine.set(L[1]!, 100n);
      machine.run(0x1000);
    }
    assert.equal(machine.view.getUint32(GUEST_MEMORY + 0x1800, true), 1000);
  });
}

test('code rewritten under other virtual names, as an instruction that now runs into the next page', () => {
  const machine = new TestMachine(new TestIsa(), { compile: false });
  const { vcpu, isa } = machine;
  // 0x2fff holds an instruction of one byte at first.
  const short = isa.short((b: Builder) => b.leave(STOP, 1, 0));
  const long = isa.number(add(0, 1));
  for (const alias of [0x102n, 0x202n]) {
    vcpu.map.set(alias, { page: 0x2000, permissions: 7 });
    vcpu.map.set(alias + 1n, { page: 0x3000, permissions: 7 });
  }
  const places = [0x2fff, 0x102fff, 0x202fff];
  for (let round = 0; round < 4; round++) {
    machine.set(L[0]!, 0n);
    machine.physical.writeBytes(0x2fff, Uint8Array.of(round % 2 ? long & 255 : short));
    machine.physical.writeBytes(0x3000, Uint8Array.of(long >> 8, ...machine.encoded(stop)));
    for (let i = 0; i < 3; i++) {
      for (const place of places) machine.run(place);
      // By a chain from the block before, too.
      machine.code(0x2ff0, [nop, jumpBy(0xd)]);
      machine.run(0x2ff0);
    }
    assert.equal(machine.get(L[0]!), round % 2 ? 12n : 0n);
  }
  assert.ok(machine.engine.statistics.blocks < 60, 'code is not translated again and again');
});

test('a page is watched that only a region has code in', () => {
  const machine = new TestMachine(new TestIsa());
  const { vcpu, isa } = machine;
  while (isa.insns.length < 0x310) isa.number(() => undefined);
  const low = isa.number(add(0, 1)) & 255;
  isa.insns[low] = add(0, 10);
  isa.insns[0x100 | low] = add(0, 100);
  isa.insns[0x200 | low] = add(0, 1000);
  const maybe: Insn = (b, next, at) => b.condGoto(b.wrap(b.get(L[5]!)), at + 0xf, next);
  machine.code(0x1ff0, [maybe, stop]);
  machine.physical.writeBytes(0x1fff, Uint8Array.of(low));
  machine.physical.writeBytes(0x2000, Uint8Array.of(0, ...machine.encoded(stop)));
  machine.physical.writeBytes(0x5000, Uint8Array.of(1, ...machine.encoded(stop)));
  const go = (through: number): bigint => {
    machine.set(L[0]!, 0n);
    machine.set(L[5]!, BigInt(through));
    machine.run(0x1ff0);
    return machine.get(L[0]!);
  };
  for (let i = 0; i < HOT - 1; i++) assert.equal(go(1), 10n);
  assert.equal(machine.regions, 0);
  // The region is made of what the second page holds now, which has never been run.
  vcpu.map.set(2n, { page: 0x5000, permissions: 7 });
  machine.engine.flushPage(0x2000, 0);
  for (let i = 0; i < 3 * HOT; i++) assert.equal(go(0), 0n);
  assert.ok(machine.regions > 0);
  machine.physical.write(0x5000, 1, 2);
  assert.equal(go(1), 1000n);
});
