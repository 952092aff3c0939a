/** Random programs: interpreted and compiled they must leave the same registers, memory and counts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Builder, Global, Value } from '../ir/builder.ts';
import { F32, F64, I32, I64, MEMORY, NONE, OPS, PURE, V128 } from '../ir/ops.ts';
import type { OpInfo } from '../ir/ops.ts';
import { verify } from '../ir/verifier.ts';
import { Builder as IrBuilder } from '../ir/builder.ts';
import { mapMachineCode } from '../host/node/machine-code.ts';
import { ACCESS } from './access.ts';
import { GUEST_MEMORY, VCPU_BASE } from './layout.ts';
import { D, GLOBALS, L, SCRATCH, TestIsa, TestMachine, V, W, WRITE, READ, randomNumbers, stop } from './test-kit.ts';
import type { Insn, TestOptions } from './test-kit.ts';

const CODE = 0x1000;
/** Blocks of a program; they lie behind each other, each so many instructions long. */
const BLOCKS = 10;
const BLOCK_INSNS = 5;
const WINDOW = 0x20f80;
const OF_TYPE: readonly (readonly Global[])[] = [W, L.slice(0, 5), [], D, V];

/** Which NaN a float operation makes is not defined, so its bits must not reach what is compared. */
const makesNan = (op: OpInfo): boolean =>
  /f\d/.test(op.name) && !/^(eq|ne|lt|gt|le|ge)f|^bits|bits$|^lane|^setlane|^splat|^abs|^neg|^select|to[su]\d/.test(op.name);
const PURE_OPS = OPS.filter((op) => op.kind === PURE && op.operands.length > 0 && !makesNan(op));
const MEMORY_OPS = OPS.filter((op) => op.kind === MEMORY);

/** One random instruction, the same each time that it is translated: it draws from its own seed. */
class Instruction {
  private readonly seed: number;
  private random = (): number => 0;
  private b!: Builder;
  private values: Value[][] = [];

  constructor(seed: number) {
    this.seed = seed;
  }

  private below(n: number): number {
    return this.random() % n;
  }

  private constant(type: number): Value {
    const word = (): number => (this.below(2) ? this.random() | 0 : this.below(40) - 20);
    if (type === I32) return this.b.i32(word());
    if (type === I64) return this.below(2) ? this.b.i64(word()) : this.b.i64(word(), word());
    if (type === F32) return this.b.f32bits(this.b.get(W[this.below(4)]!));
    if (type === F64) return this.b.f64bits(this.b.i64(word(), word() & 0x7fe00000));
    return this.b.v128(word(), word(), word(), word());
  }

  private value(type: number): Value {
    const known = this.values[type]!;
    const globals = OF_TYPE[type]!;
    const choice = this.below(8);
    if (choice < 4 && known.length > 0) return known[this.below(known.length)]!;
    if (choice < 7 && globals.length > 0) return this.b.get(globals[this.below(globals.length)]!);
    return this.constant(type);
  }

  private keep(type: number, value: Value): void {
    if (type !== NONE) this.values[type]!.push(value);
  }

  private pure(): void {
    const op = PURE_OPS[this.below(PURE_OPS.length)]!;
    const words = op.operands.map((type) => this.value(type));
    const lanes = op.name === 'vshuffle' ? 32 : op.immediates ? 128 / Number(/\d+/.exec(op.name)![0]) : 1;
    for (let i = 0; i < op.immediates; i++) {
      words.push(op.name === 'vshuffle' ? this.random() & 0x1f1f1f1f : this.below(lanes));
    }
    const [p = 0, q = 0, r = 0, s = 0, t = 0, u = 0] = words;
    this.keep(op.result, this.b.emit(op.index, p, q, r, s, t, u));
  }

  /** Somewhere in the window, which spans two pages; near what l5, l6 and the stack pointer l7 point to now and then. */
  private address(): Value {
    const { b } = this;
    const choice = this.below(6);
    if (choice < 2) return b.add64(b.get(L[7]!), b.i64(this.below(choice === 0 ? 32 : 300) - 16));
    if (choice < 4) return this.near(b.get(L[5 + this.below(2)]!));
    const offset = b.and64(this.value(I64), b.i64(0xff));
    return b.add64(offset, b.i64(WINDOW));
  }

  /** What lies a constant away from a pointer, which may be the sum of some. */
  private near(pointer: Value): Value {
    const { b } = this;
    const distance = this.below(200) - 100;
    switch (this.below(5)) {
      case 0:
        return b.sub64(b.add64(pointer, b.i64(40)), b.i64(distance));
      case 1:
        return b.extu(b.add32(b.wrap(pointer), b.i32(distance)));
      case 2:
        return b.add64(b.extu(b.sub32(b.wrap(pointer), b.i32(distance))), b.i64(8));
      default:
        return b.add64(pointer, b.i64(distance));
    }
  }

  /** A pointer goes on by a constant, or to another place in the window. */
  private movePointer(): void {
    const { b } = this;
    const pointer = L[5 + this.below(2)]!;
    if (this.below(3) > 0) b.set(pointer, b.add64(b.get(pointer), b.i64(this.below(33) - 16)));
    else b.set(pointer, b.add64(b.and64(this.value(I64), b.i64(0xff)), b.i64(WINDOW)));
  }

  private memory(): void {
    const op = MEMORY_OPS[this.below(MEMORY_OPS.length)]!;
    const info = ACCESS[op.index]!;
    const address = this.address();
    if (info.store) this.b.emit(op.index, address, this.value(info.type), 0, 0, 0, 0);
    else this.keep(info.type, this.b.emit(op.index, address, 0, 0, 0, 0, 0));
  }

  private state(): void {
    const { b } = this;
    const index = this.below(2) ? b.i32(16 * this.below(4)) : b.and32(this.value(I32), b.i32(0x30));
    const place = SCRATCH + 16 * this.below(4);
    switch (this.below(6)) {
      case 0:
        return b.sts32(place, this.value(I32), index);
      case 1:
        return b.sts64(place, this.value(I64), index);
      case 2:
        return b.stsv(place, this.value(V128), index);
      case 3:
        return this.keep(I32, b.lds16(place, index));
      case 4:
        return this.keep(I64, b.lds64(place, index));
      default:
        return this.keep(V128, b.ldsv(place, index));
    }
  }

  private write(): void {
    const type = [I32, I64, I64, F64, V128][this.below(5)]!;
    const globals = OF_TYPE[type]!;
    this.b.set(globals[this.below(globals.length)]!, this.value(type));
  }

  /** Accesses and side exits first: registers are written when nothing can fault any more. */
  emit(b: Builder): void {
    this.random = randomNumbers(this.seed);
    this.b = b;
    this.values = [[], [], [], [], []];
    for (let i = this.below(5); i > 0; i--) this.pure();
    for (let i = this.below(3); i > 0; i--) {
      this.memory();
      this.pure();
    }
    if (this.below(12) === 0) b.leaveIf(b.ltu32(this.value(I32), b.i32(0x10000)), 17, this.below(100));
    for (let i = this.below(4); i > 0; i--) {
      if (this.below(3) === 0) this.state();
      this.pure();
      this.write();
    }
    if (this.below(3) === 0) this.movePointer();
    if (this.below(4) === 0) b.ctx = this.below(5);
  }

  /** Ends the block: to one or two of the blocks. @param at its offset  @param place its address */
  leaveBlock(b: Builder, at: number, place: number): void {
    const target = (): number => at + CODE + this.below(BLOCKS) * BLOCK_INSNS * 2 - place;
    const kind = this.below(5);
    if (kind === 0) b.goto(target());
    else if (kind === 1) b.jump(b.i64(CODE + this.below(BLOCKS) * BLOCK_INSNS * 2));
    else if (kind === 2) {
      const step = b.mul64(b.and64(this.value(I64), b.i64(3)), b.i64(2 * BLOCK_INSNS));
      b.jump(b.add64(step, b.i64(CODE)));
    } else {
      const type = this.below(2) ? I32 : I64;
      const [x, y] = [this.value(type), this.value(type)];
      const condition = type === I32 ? b.ltu32(x, y) : this.below(2) ? b.lts64(x, y) : b.eqz64(b.and64(x, b.i64(1)));
      b.condGoto(condition, target(), target());
    }
  }
}

/** Place in the state block of a count of blocks, and how many end a program. */
const FUEL = SCRATCH + 0x400;
const ENOUGH = 600;

const burn: Insn = (b) => {
  const blocks = b.lds64(FUEL);
  b.leaveIf(b.lts64(b.i64(ENOUGH), blocks), 18, 0);
  b.sts64(FUEL, b.add64(blocks, b.i64(1)));
};

/** @param ends each block begins with an instruction that ends the program some time */
function program(seed: number, ends = false): Insn[] {
  const random = randomNumbers(seed);
  const insns: Insn[] = [];
  for (let i = 0; i < BLOCKS * BLOCK_INSNS; i++) {
    const instruction = new Instruction(random());
    const last = i % BLOCK_INSNS === BLOCK_INSNS - 1;
    if (ends && i % BLOCK_INSNS === 0) {
      insns.push(burn);
      continue;
    }
    insns.push((b, _next, at) => {
      instruction.emit(b);
      if (last) instruction.leaveBlock(b, at, CODE + 2 * i);
    });
  }
  return insns;
}

function prepare(machine: TestMachine, seed: number): void {
  const random = randomNumbers(seed ^ 0x5555);
  for (const global of GLOBALS) {
    // Doubles without NaNs, so that none is made into another.
    const wide = (BigInt(random()) << 96n) | (BigInt(random()) << 64n) | (BigInt(random()) << 32n) | BigInt(random());
    machine.set(global, global.type === F64 ? wide & 0x7fdfffffffffffffn : wide);
  }
  machine.set(L[7]!, BigInt(WINDOW + 0x60 + (seed & 31)));
  // Above 4 GiB, where nothing is but for addresses of 32 bits, now and then.
  for (const pointer of [5, 6]) machine.set(L[pointer]!, BigInt(WINDOW + (random() & 0xff) + (random() & 3 ? 0 : 2 ** 32)));
  machine.vcpu.map.set(0x20n, { page: 0x30000, permissions: READ | WRITE });
  const second = [READ, 0, READ | WRITE, READ | WRITE][seed & 3]!;
  machine.vcpu.map.set(0x21n, second === 0 ? null : { page: 0x18000, permissions: second });
  machine.engine.flushAll();
  for (let i = 0; i < 0x2000; i += 4) machine.view.setUint32(GUEST_MEMORY + 0x30000 + i, random(), true);
  for (let i = 0; i < 0x1000; i += 4) machine.view.setUint32(GUEST_MEMORY + 0x18000 + i, random(), true);
}

const faultsOf = ({ vcpu }: TestMachine): string[] =>
  vcpu.faults.splice(0).map(({ pc, ctx, address, access }) => `fault ${[pc, ctx, address, access].join()}`);

/** Everything that a run has left, in slices of different lengths. */
function outcome(machine: TestMachine, seed: number): string[] {
  prepare(machine, seed);
  machine.vcpu.leaves.length = 0;
  const before = machine.engine.instructions();
  machine.pc = BigInt(CODE);
  const random = randomNumbers(seed);
  const states: string[] = [];
  for (let i = 0; i < 12; i++) {
    machine.resume(1 + (random() % 300));
    if (i > 7) states.push(`${machine.pc.toString(16)} ${machine.engine.instructions() - before}`, ...machine.registers());
  }
  const memory = (at: number): string =>
    Buffer.from(machine.bytes.slice(GUEST_MEMORY + at, GUEST_MEMORY + at + 0x200)).toString('hex');
  states.push(
    ...faultsOf(machine),
    memory(0x30e00),
    memory(0x18000),
    JSON.stringify(machine.vcpu.leaves.map(({ reason, argument, pc }) => [reason, argument, Number(pc)])),
  );
  return states;
}

test('random instructions are sound IR', () => {
  const b = new IrBuilder(GLOBALS);
  for (let seed = 0; seed < 200; seed++) {
    b.reset(-1);
    program(seed)[4]!(b, 2, 0);
    const words = new IrBuilder(GLOBALS);
    words.reset(-1);
    words.insn(0);
    program(seed)[4]!(words, 2, 0);
    assert.deepEqual(verify(words, { globals: GLOBALS, helpers: [] }), []);
  }
});

/** How the second machine of a pair translates. */
type How = Pick<TestOptions, 'compile' | 'native'>;

/** The same program for two machines, the second of which does not interpret alone. */
function pairOf(seed: number, exactCount: boolean, how: How): TestMachine[] {
  const insns = program(seed, !exactCount);
  return [{ compile: false }, how].map((options) => {
    const machine = new TestMachine(new TestIsa(), { exactCount, hotThreshold: 6, ...options });
    machine.code(CODE, [...insns, stop]);
    machine.vcpu.onLeave = (reason) => {
      // A side exit is passed over: the instruction after it is next.
      machine.pc += 2n;
      if (reason !== 17) machine.vcpu.stopped = true;
    };
    return machine;
  });
}

/** What a run to its end has left; null when it has not ended. */
function final(machine: TestMachine, seed: number): string[] | null {
  prepare(machine, seed);
  machine.view.setBigUint64(VCPU_BASE + FUEL, 0n, true);
  machine.run(CODE, 100_000);
  const window = Buffer.from(machine.bytes.slice(GUEST_MEMORY + 0x30e00, GUEST_MEMORY + 0x31000)).toString('hex');
  const faults = faultsOf(machine);
  return machine.vcpu.stopped ? [machine.pc.toString(16), ...machine.registers(), ...faults, window] : null;
}

/** @returns what the pairs' second machines have compiled: regions, blocks of the host's code */
function compareRoughly(seeds: number, how: () => How): number[] {
  const compiled = [0, 0];
  for (let seed = 1; seed <= seeds; seed++) {
    const [interpreted, other] = pairOf(seed, false, how()) as [TestMachine, TestMachine];
    for (let round = 0; round < 8; round++) {
      const expected = final(interpreted, seed * 100 + round);
      const found = final(other, seed * 100 + round);
      if (expected === null || found === null) break;
      assert.deepEqual(found, expected, `seed ${seed}, round ${round}`);
      if (other.regions > 0) compiled[0]!++;
      if (other.engine.statistics.native > 0) compiled[1]!++;
    }
    assert.equal(other.engine.statistics.failures, 0);
    other.engine.close();
  }
  return compiled;
}

function compareExactly(seeds: number, how: () => How): number[] {
  const compiled = [0, 0];
  for (let seed = 1; seed <= seeds; seed++) {
    const machines = pairOf(seed, true, how());
    for (let round = 0; round < 6; round++) {
      const [a, b] = machines.map((machine) => outcome(machine, seed * 100 + round));
      assert.deepEqual(b, a, `seed ${seed}, round ${round}`);
    }
    const { engine, regions } = machines[1]!;
    compiled[0]! += regions;
    compiled[1]! += engine.statistics.native;
    assert.equal(engine.statistics.failures, 0);
    engine.close();
  }
  return compiled;
}

const regions = (): How => ({ compile: true });

test('random programs that end do so with the same result when their loops are only roughly counted', () => {
  const [compared] = compareRoughly(150, regions);
  assert.ok(compared! > 100, `${compared} runs`);
});

test('random programs give the same interpreted and compiled', () => {
  const [compiled] = compareExactly(60, regions);
  assert.ok(compiled! > 60, `${compiled} regions`);
});

const noMachineCode = mapMachineCode(4096) === null ? 'this host runs no machine code of ours' : false;

for (const compile of [false, true]) {
  const how = (): How => ({ compile, native: true });
  const text = compile ? "as code of the host's processor and regions" : "as code of the host's processor";

  test(`random programs that end do so with the same result ${text}`, { skip: noMachineCode }, () => {
    const [compared, native] = compareRoughly(60, how);
    assert.ok(native! > 40, `${native} runs`);
    assert.equal(compared! > 20, compile);
  });

  test(`random programs give the same interpreted and ${text}`, { skip: noMachineCode }, () => {
    const [compiled, native] = compareExactly(60, how);
    assert.ok(native! > 200, `${native} blocks`);
    assert.equal(compiled! > 30, compile);
  });
}
