/** Instructions are counted exactly where that is asked for, however the code is run and left. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEVICE, L, OTHER, TestIsa, TestMachine, W, add, jumpBy, jumpTo, loopBy, stop } from './test-kit.ts';
import type { Insn } from './test-kit.ts';

const HEART = 0x2000;

/** A nest of two loops with a call in the inner one: 3 levels of blocks on two pages. */
function loopNest(machine: TestMachine): void {
  const setInner: Insn = (b) => b.set(L[2]!, b.i64(3));
  machine.code(0x1000, [add(0, 1), setInner, add(4, 1), jumpBy(HEART - 0x1006), loopBy(2, -4), add(5, 1), loopBy(1, -12), stop]);
  machine.code(HEART, [add(0, 2), add(6, 1), jumpTo(3)]);
  machine.set(L[3]!, 0x1008n);
}

function machineFor(compile: boolean): TestMachine {
  const machine = new TestMachine(new TestIsa(), { compile, exactCount: true });
  loopNest(machine);
  return machine;
}

function begin(machine: TestMachine): void {
  for (const i of [0, 2, 4, 5, 6]) machine.set(L[i]!, 0n);
  machine.set(L[1]!, 100n);
}

test('a slice is exactly as long as asked for, and ends in the same state compiled and interpreted', () => {
  const [interpreted, compiled] = [machineFor(false), machineFor(true)];
  compiled.runHot(0x1000, () => begin(compiled));
  for (let i = 0; i < 40; i++) {
    begin(compiled);
    compiled.run(0x1000);
  }
  assert.ok(compiled.regions > 0);
  for (let count = 1; count <= 200; count++) {
    const states = [interpreted, compiled].map((machine) => {
      begin(machine);
      const before = machine.engine.instructions();
      machine.run(0x1000, count);
      assert.equal(machine.engine.instructions() - before, count);
      return [machine.pc.toString(16), ...machine.registers()];
    });
    assert.deepEqual(states[1], states[0], `after ${count}`);
  }
});

test('slices of any length add up to the same run', () => {
  for (const compile of [false, true]) {
    const machine = machineFor(compile);
    const totals: number[] = [];
    for (const step of [1, 2, 3, 7, 10, 64, 1000]) {
      begin(machine);
      const before = machine.engine.instructions();
      machine.pc = 0x1000n;
      machine.vcpu.leaves.length = 0;
      while (machine.vcpu.leaves.length === 0) machine.resume(step);
      totals.push(machine.engine.instructions() - before);
      assert.equal(machine.get(L[0]!), 700n);
    }
    assert.deepEqual(
      totals,
      totals.map(() => totals[0]),
      `compile: ${compile}`,
    );
  }
});

for (const compile of [false, true]) {
  const how = compile ? 'compiled' : 'interpreted';

  test(`${how}: a fault counts up to its instruction, whatever follows in the block`, () => {
    const machine = new TestMachine(new TestIsa(), { compile, exactCount: true });
    const load: Insn = (b) => b.set(L[1]!, b.ld64(b.get(L[2]!)));
    machine.code(0x1000, [add(0, 1), add(0, 1), load, add(0, 1), add(0, 1), stop]);
    machine.runHot(0x1000, () => machine.set(L[2]!, 0x8000n));
    machine.vcpu.map.set(0x90n, null);
    machine.set(L[2]!, 0x90000n);
    const before = machine.engine.instructions();
    machine.run(0x1000);
    assert.equal(machine.vcpu.faults.length, 1);
    assert.equal(machine.engine.instructions() - before, 3);
  });

  test(`${how}: an instruction that is run again, because it changes code, counts once`, () => {
    const machine = new TestMachine(new TestIsa(), { compile, exactCount: true });
    const storeCode: Insn = (b) => b.st16(b.get(L[2]!), b.get(W[0]!));
    machine.code(0x1000, [add(0, 1), storeCode, add(0, 1), add(0, 1), stop]);
    const begin = (): void => {
      machine.set(L[2]!, 0x8000n);
      machine.set(W[0]!, BigInt(machine.isa.number(add(0, 1))));
    };
    machine.runHot(0x1000, begin);
    begin();
    machine.set(L[2]!, 0x1006n);
    const before = machine.engine.instructions();
    machine.run(0x1000);
    assert.equal(machine.engine.instructions() - before, 5);
  });

  test(`${how}: kick in the middle of a slice loses and invents no instruction`, () => {
    const machine = new TestMachine(new TestIsa(), { compile, exactCount: true });
    const poke: Insn = (b) => b.st32(b.i64(DEVICE), b.i32(1));
    machine.code(0x1000, [poke, add(0, 1), add(4, 1), loopBy(1, -6), stop]);
    machine.runHot(0x1000, () => machine.set(L[1]!, 30n));
    machine.set(L[0]!, 0n);
    machine.set(L[1]!, 30n);
    machine.onDevice = () => {
      machine.engine.kick();
      return 0;
    };
    const before = machine.engine.instructions();
    machine.run(0x1000);
    assert.equal(machine.get(L[0]!), 30n);
    assert.equal(machine.engine.instructions() - before, 121);
  });

  test(`${how}: an instruction in an interrupt's shadow is within the slice`, () => {
    const machine = machineFor(compile);
    const { vcpu } = machine;
    begin(machine);
    machine.run(0x1000, 10);
    vcpu.interruptShadow = true;
    vcpu.interruptWaiting = true;
    const before = machine.engine.instructions();
    machine.resume(0);
    assert.equal(machine.engine.instructions(), before);
    assert.equal(vcpu.interruptShadow, true);
    machine.resume(1);
    assert.equal(machine.engine.instructions(), before + 1);
    assert.equal(vcpu.interruptShadow, false);
  });

  test(`${how}: a guest that can do nothing but fault ends its slice all the same`, () => {
    for (const exactCount of [false, true]) {
      const machine = new TestMachine(new TestIsa(), { compile, exactCount });
      const load: Insn = (b) => b.set(L[1]!, b.ld64(b.get(L[2]!)));
      const check: Insn = (b) => b.leaveIf(b.eqz64(b.get(L[5]!)), OTHER, 0);
      machine.code(0x1000, [load, stop]);
      machine.code(0x1100, [check, stop]);
      machine.runHot(0x1000, () => machine.set(L[2]!, 0x8000n));
      machine.runHot(0x1100, () => machine.set(L[5]!, 1n));
      machine.set(L[2]!, 0xfffffffffn);
      machine.set(L[5]!, 0n);
      machine.vcpu.onFault = () => undefined;
      machine.vcpu.onLeave = () => undefined;
      for (const pc of [0x1000, 0x1100, 0xfffffff0000n]) {
        machine.run(pc, 200);
        assert.equal(machine.pc, BigInt(pc));
      }
    }
  });
}
