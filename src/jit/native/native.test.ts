/** Code of the host's processor within the engine; what its operations do is compared in ../ops.test.ts and ../fuzz.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Builder } from '../../ir/builder.ts';
import type { Helper } from '../../ir/helpers.ts';
import { I32, I64 } from '../../ir/ops.ts';
import type { CodeReader } from '../../isa/isa.ts';
import { mapMachineCode } from '../../host/node/machine-code.ts';
import { L, TestIsa, TestMachine, add, loopBy, stop } from '../test-kit.ts';
import type { Insn } from '../test-kit.ts';

const skip = mapMachineCode(4096) === null ? 'this host runs no machine code of ours' : false;

/** A guest whose instructions may depend on the mode. */
class ModalIsa extends TestIsa {
  mode = 0;

  override translate(b: Builder, code: CodeReader, flags: number, maxInsns: number): void {
    this.mode = flags;
    super.translate(b, code, flags, maxInsns);
  }
}

test('computed jumps forget where they led when the mode changes', { skip }, () => {
  const isa = new ModalIsa();
  const machine = new TestMachine(isa, { compile: false, native: true });
  const byMode: Insn = (b) => b.set(L[0]!, b.add64(b.get(L[0]!), b.i64(isa.mode + 1)));
  const jumpBack: Insn = (b, next, at) => {
    const left = b.sub64(b.get(L[1]!), b.i64(1));
    b.set(L[1]!, left);
    const target = b.select64(b.ne64(left, b.i64(0)), b.i64(0x1000), b.i64(0x1000 + next));
    b.jump(at === 2 ? target : b.i64(0x1000));
  };
  machine.code(0x1000, [byMode, jumpBack, stop]);
  const run = (mode: number): bigint => {
    machine.engine.selectContext(2, 0, mode);
    machine.set(L[0]!, 0n);
    machine.set(L[1]!, 100n);
    machine.run(0x1000);
    return machine.get(L[0]!);
  };
  assert.equal(run(0), 100n);
  assert.ok(machine.engine.statistics.native > 0);
  const lookups = machine.engine.statistics.lookups;
  assert.equal(run(1), 200n);
  assert.equal(run(0), 100n);
  assert.ok(machine.engine.statistics.lookups - lookups < 20, 'and remember it again');
});

test('code that does not fit any more is left to the interpreter', { skip }, () => {
  const machine = new TestMachine(new TestIsa(), { compile: false, machineCode: mapMachineCode(65536) });
  machine.code(0x1000, [add(0, 3), loopBy(1, -2), stop]);
  machine.set(L[1]!, 1000n);
  machine.run(0x1000);
  assert.equal(machine.get(L[0]!), 3000n);
  assert.equal(machine.engine.statistics.native, 0);
});

test('a block that is begun anew, for a helper that is new, leaves nothing behind', { skip }, () => {
  const helper: Helper = {
    ...{ name: 'twice', index: 0, params: [I32, I64], result: I64, touchesGlobals: false, mayFault: false },
    body: { kind: 'ir', ir: { arms: 2, arm: (b, arm, [x]) => (arm === 0 ? x! : b.add64(x!, x!)) } },
  };
  const machine = new TestMachine(new TestIsa([helper]), { compile: false, native: true });
  const popped: Insn = (b) => {
    for (const offset of [0, 8, 16]) b.set(L[2]!, b.add64(b.get(L[2]!), b.ld64(b.add64(b.get(L[7]!), b.i64(offset)))));
  };
  const doubled: Insn = (b) => b.set(L[0]!, b.add64(b.get(L[0]!), b.call(helper, b.wrap(b.get(L[3]!)), b.get(L[4]!))));
  machine.code(0x1000, [popped, doubled, loopBy(1, -4), stop]);
  machine.set(L[7]!, 0x20000n);
  machine.set(L[4]!, 21n);
  for (const arm of [0n, 1n, 0n]) {
    machine.set(L[3]!, arm);
    machine.set(L[0]!, 0n);
    machine.set(L[1]!, 100n);
    machine.run(0x1000);
    assert.equal(machine.get(L[0]!), 2100n * (arm + 1n));
  }
  assert.ok(machine.engine.statistics.native > 0);
});

test('two machines have code of their own', { skip }, () => {
  const machines = [1, 100].map((step) => {
    const machine = new TestMachine(new TestIsa(), { compile: false, native: true });
    machine.code(0x1000, [add(0, step), loopBy(1, -2), stop]);
    return machine;
  });
  for (let round = 0; round < 3; round++) {
    for (const machine of machines) {
      machine.set(L[0]!, 0n);
      machine.set(L[1]!, 50n);
      machine.run(0x1000);
    }
    assert.deepEqual(
      machines.map((machine) => machine.get(L[0]!)),
      [50n, 5000n],
    );
  }
  for (const { engine } of machines) {
    assert.ok(engine.statistics.native > 0);
    engine.close();
  }
});
