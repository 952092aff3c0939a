/** Regions that are compiled elsewhere and come back late. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compilerHere } from './compilers.ts';
import type { BatchCompiler } from './compilers.ts';
import { CTL_KICK, KICK_ANSWER } from '../ir/vcpu-block.ts';
import { FIRST_CODE, VCPU_BASE } from './layout.ts';
import type { CompiledBatch } from './request.ts';
import { DEVICE, HOT, L, TestIsa, TestMachine, add, jumpBy, loopBy, stop } from './test-kit.ts';
import type { Insn, TestOptions } from './test-kit.ts';

/** Keeps what it is asked for until the test has it delivered. */
class LateCompiler implements BatchCompiler {
  readonly background = true;
  private readonly waiting: (() => void)[] = [];
  private compiler: BatchCompiler | null = null;

  with(compiler: BatchCompiler): this {
    this.compiler = compiler;
    return this;
  }

  compile(words: Int32Array, fresh: boolean, done: (batch: CompiledBatch) => void): void {
    this.compiler!.compile(words, fresh, (batch) => this.waiting.push(() => done(batch)));
  }

  /** Delivers by `poll`, too. */
  ready = false;

  poll(): void {
    if (this.ready) this.deliver();
  }

  close(): void {}

  get count(): number {
    return this.waiting.length;
  }

  deliver(): void {
    for (const one of this.waiting.splice(0)) one();
  }
}

function lateMachine(more: TestOptions = {}): [TestMachine, LateCompiler] {
  const compiler = new LateCompiler();
  const machine = new TestMachine(new TestIsa(), {
    ...more,
    compiler: (...settings) => compiler.with(compilerHere(...settings)),
  });
  machine.code(0x1000, [add(0, 1), loopBy(1, -2), stop]);
  return [machine, compiler];
}

function go(machine: TestMachine, rounds = HOT): bigint {
  machine.set(L[0]!, 0n);
  machine.set(L[1]!, BigInt(rounds));
  machine.run(0x1000);
  return machine.get(L[0]!) / BigInt(rounds);
}

function untilAsked(machine: TestMachine, compiler: LateCompiler): void {
  for (let i = 0; i < 20 && compiler.count === 0; i++) go(machine);
  assert.ok(compiler.count > 0, 'a batch is on its way');
}

test('code runs on in the interpreter until its region arrives', () => {
  const [machine, compiler] = lateMachine();
  untilAsked(machine, compiler);
  assert.equal(machine.regions, 0);
  assert.equal(go(machine), 1n);
  compiler.deliver();
  assert.equal(machine.regions, 1);
  assert.equal(go(machine, 1000), 1n);
  assert.equal(compiler.count, 0, 'it is not asked for again');
});

test('a region that comes while a slice runs goes into service in it', () => {
  const [machine, compiler] = lateMachine();
  const poke: Insn = (b) => b.st32(b.i64(DEVICE), b.i32(1));
  machine.code(0x1000, [poke, add(0, 1), loopBy(1, -4), stop]);
  let pokes = 0;
  machine.onDevice = () => {
    if (compiler.count === 0 || ++pokes !== 10) return 0;
    assert.equal(machine.regions, 0);
    compiler.ready = true;
    // As the compiler's thread does.
    machine.view.setInt32(VCPU_BASE + CTL_KICK, KICK_ANSWER, true);
    machine.onDevice = () => {
      if (++pokes === 20) assert.equal(machine.regions, 1, 'ten rounds later');
      return 0;
    };
    return 0;
  };
  const before = machine.engine.instructions();
  assert.equal(go(machine, 20 * HOT), 1n, 'each round has been done once');
  assert.ok(pokes > 20);
  assert.ok(machine.engine.instructions() - before < 100 * HOT, 'nothing is counted that has not run');
});

test('a region of code that has changed meanwhile does not go into service', () => {
  const [machine, compiler] = lateMachine();
  untilAsked(machine, compiler);
  machine.physical.writeBytes(0x1000, machine.encoded(add(0, 5)));
  compiler.deliver();
  assert.equal(machine.regions, 0);
  assert.equal(go(machine), 5n);
  untilAsked(machine, compiler);
  // Changed, and hot again before the first comes.
  machine.physical.writeBytes(0x1000, machine.encoded(add(0, 7)));
  for (let i = 0; i < 20; i++) assert.equal(go(machine), 7n);
  compiler.deliver();
  assert.equal(go(machine), 7n);
  for (let i = 0; i < 20; i++) assert.equal(go(machine), 7n);
  compiler.deliver();
  assert.equal(go(machine), 7n);
  assert.ok(machine.regions >= 1);
});

test('a region from before all code was dropped is forgotten', () => {
  const [machine, compiler] = lateMachine({ codeEnd: FIRST_CODE + 0x4000 });
  untilAsked(machine, compiler);
  for (let i = 0; i < 200; i++) {
    machine.code(0x10000 + 64 * i, [add(3, 1), stop]);
    machine.run(0x10000 + 64 * i);
  }
  machine.physical.writeBytes(0x1000, machine.encoded(add(0, 9)));
  compiler.deliver();
  assert.equal(machine.regions, 0);
  for (let i = 0; i < 30; i++) {
    assert.equal(go(machine), 9n);
    compiler.deliver();
  }
  assert.ok(machine.regions > 0);
});

test('a region that is dropped comes again when its code is hot again', () => {
  const [machine, compiler] = lateMachine();
  for (let round = 0; round < 4; round++) {
    const known = machine.regions;
    // Long in the queue: the block becomes hot several times over.
    for (let i = 0; i < 30; i++) go(machine);
    compiler.deliver();
    assert.ok(machine.regions > known);
    machine.physical.writeBytes(0x1002, machine.encoded(loopBy(1, -2)));
  }
});

test('a region that cannot be made is left to the interpreter, and counted', () => {
  const lines: string[] = [];
  const isa = new TestIsa();
  const machine = new TestMachine(isa, { trace: (category, line) => void lines.push(`${category}: ${line}`) });
  machine.code(0x1000, [add(0, 1), loopBy(1, -2), stop]);
  assert.equal(go(machine, 5), 1n);
  const { translate } = isa;
  isa.translate = () => {
    throw new Error('a mistake');
  };
  for (let i = 0; i < 20; i++) assert.equal(go(machine), 1n);
  isa.translate = translate;
  assert.equal(machine.regions, 0);
  assert.ok(machine.engine.statistics.failures > 0);
  assert.match(lines[0]!, /^jit: no region for 1000: Error: a mistake/);
});

test('a region that is entered very often is made anew, together with others that it leads to', () => {
  const machine = new TestMachine(new TestIsa());
  machine.code(0x1000, [add(0, 1), jumpBy(0x1e)]);
  machine.code(0x1020, [add(0, 2), loopBy(1, -0x22), stop]);
  // The second half gets a region of its own, before the first is known.
  machine.runHot(0x1020, () => machine.set(L[1]!, 1n));
  const { all } = machine.engine.blocks;
  const first = () => all.find(({ offset, region }) => offset === 0 && region !== null)?.region;
  for (let i = 0; i < 20 && !first(); i++) assert.equal(go(machine), 3n);
  const narrow = first()!;
  assert.equal(narrow.ranges.length, 3, 'it ends where the other begins');
  for (let i = 0; i < 60; i++) assert.equal(go(machine), 3n);
  const wide = first()!;
  assert.notEqual(wide, narrow);
  assert.equal(narrow.alive, false);
  assert.deepEqual(wide.ranges.slice(3, 6), [wide.ranges[0], 0x20, 0x26]);
  const made = machine.regions;
  for (let i = 0; i < 200; i++) assert.equal(go(machine), 3n);
  assert.equal(first(), wide, 'once is enough');
  assert.ok(machine.regions <= made + 1);
  machine.physical.writeBytes(0x1020, machine.encoded(add(0, 4)));
  assert.equal(go(machine), 5n, 'it goes with what it was made from');
});

test('a wide region waits until the compiler has nothing else to do, and is asked for then', () => {
  const [machine, compiler] = lateMachine();
  machine.code(0x2000, [add(3, 1), loopBy(1, -2), stop]);
  const other = (): void => {
    machine.set(L[1]!, BigInt(HOT));
    machine.run(0x2000);
  };
  untilAsked(machine, compiler);
  compiler.deliver();
  const entry = machine.engine.blocks.all.find(({ region }) => region !== null)!;
  const narrow = entry.region;
  while (compiler.count === 0) other();
  for (let i = 0; i < 60 * HOT; i++) go(machine, 1);
  assert.equal(entry.asked, false);
  compiler.deliver();
  assert.equal(entry.region, narrow);
  for (let i = 0; i < 60 * HOT && !entry.asked; i++) {
    compiler.deliver();
    go(machine, 1);
  }
  compiler.deliver();
  assert.notEqual(entry.region, narrow);
});
