/** Every pure operation: interpreter against compiled code against a reference. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Builder, Value } from '../ir/builder.ts';
import { F32, F64, I32, I64, OPS, PURE, V128 } from '../ir/ops.ts';
import type { OpInfo } from '../ir/ops.ts';
import { mapMachineCode } from '../host/node/machine-code.ts';
import { VCPU_BASE } from './layout.ts';
import { KIND } from './native/units.ts';
import { HOT, L, SCRATCH, STOP, TestIsa, TestMachine, randomNumbers } from './test-kit.ts';
import type { Insn } from './test-kit.ts';
import { referenceOf } from './test-reference.ts';

/** Operand tuples of one run; they lie in the state block: three operands and the result, 16 bytes each. */
const TUPLES = 52;
const TUPLE = 64;
const CODE = 0x1000;
const MACHINE_CODE = 16 << 20;
const BITS = [32, 64, 32, 64, 128];

const random = randomNumbers(7);
const word = (): bigint => BigInt(random());
const wide = (): bigint => word() | (word() << 32n) | (word() << 64n) | (word() << 96n);

const EDGES = [
  0n,
  1n,
  2n,
  31n,
  32n,
  33n,
  63n,
  64n,
  65n,
  127n,
  128n,
  255n,
  256n,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  0x100000000n,
  0x7fffffffffffffffn,
  0x8000000000000000n,
  0xffffffffffffffffn,
  0xfffffffffffffffen,
  0x00ff00ff00ff00ffn,
  0x8000000080000000n,
  0x7f80000000000000n,
];
const f32Bits = (value: number): bigint => BigInt(new Uint32Array(Float32Array.of(value).buffer)[0]!);
const f64Bits = (value: number): bigint => new BigUint64Array(Float64Array.of(value).buffer)[0]!;
const FLOATS = [
  0,
  -0,
  1,
  -1,
  0.5,
  1.5,
  2.5,
  -2.5,
  1e-45,
  -1e-45,
  1.1754943508222875e-38,
  3.4028234663852886e38,
  Infinity,
  -Infinity,
  NaN,
  2147483647,
  2147483648,
  -2147483648,
  -2147483649,
  4294967295,
  4294967296,
  9.2e18,
  9.3e18,
  1.8e19,
  1.9e19,
  5e-324,
  2.2250738585072014e-308,
  1.7976931348623157e308,
  0.1,
  255.5,
  127.5,
  16777217,
];

/** Bits of a random operand of a type, often an edge value. */
function operand(type: number, lane: string | null): bigint {
  const pick = <T>(list: readonly T[]): T => list[random() % list.length]!;
  const float = (bits: bigint[]): bigint => (random() % 3 ? pick(bits) : wide());
  if (type === F32) return BigInt.asUintN(32, float(FLOATS.map(f32Bits)));
  if (type === F64) return BigInt.asUintN(64, float(FLOATS.map(f64Bits)));
  if (type !== V128) return BigInt.asUintN(BITS[type]!, random() % 3 ? pick(EDGES) : wide());
  if (lane === 'f32') return [0n, 32n, 64n, 96n].reduce((sum, at) => sum | (operand(F32, null) << at), 0n);
  if (lane === 'f64') return operand(F64, null) | (operand(F64, null) << 64n);
  const kind = random() % 4;
  if (kind === 0) return operand(I64, null) | (operand(I64, null) << 64n);
  if (kind === 1) return wide() & (wide() | wide()) & 0x0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0fn;
  return kind === 2 ? wide() : pick([0n, (1n << 128n) - 1n, 0x80808080808080808080808080808080n, 1n << 127n]);
}

/** Operand k of an operation, one that it is defined for. */
function operandOf(op: OpInfo, k: number, lane: string | null): bigint {
  const bits = operand(op.operands[k]!, lane);
  return op.name === 'vlookup' && k === 1 ? bits & 0x8f8f8f8f8f8f8f8f8f8f8f8f8f8f8f8fn : bits;
}

function load(b: Builder, type: number, offset: number, index: Value): Value {
  if (type === I32) return b.lds32(offset, index);
  if (type === I64) return b.lds64(offset, index);
  if (type === F32) return b.f32bits(b.lds32(offset, index));
  return type === F64 ? b.ldsf64(offset, index) : b.ldsv(offset, index);
}

function store(b: Builder, type: number, offset: number, value: Value, index: Value): void {
  if (type === I32) b.sts32(offset, value, index);
  else if (type === I64) b.sts64(offset, value, index);
  else if (type === F32) b.sts32(offset, b.bitsf32(value), index);
  else if (type === F64) b.stsf64(offset, value, index);
  else b.stsv(offset, value, index);
}

function constant(b: Builder, type: number, bits: bigint): Value {
  const at = (n: number): number => Number(BigInt.asIntN(32, bits >> BigInt(32 * n)));
  if (type === I32) return b.i32(at(0));
  if (type === I64) return b.i64(at(0), at(1));
  if (type === F32) return b.f32bits(b.i32(at(0)));
  return type === F64 ? b.f64bits(b.i64(at(0), at(1))) : b.v128(at(0), at(1), at(2), at(3));
}

interface Program {
  readonly op: OpInfo;
  readonly immediates: readonly number[];
  /** Constant operands, null = from the tuple. */
  readonly constants: readonly (bigint | null)[];
}

/** One instruction: the operation on the tuple that l0 points to; then on to the next until l1. */
function instruction(program: Program): Insn {
  const { op, immediates, constants } = program;
  return (b, next, at) => {
    const index = b.wrap(b.get(L[0]!));
    const operands = op.operands.map((type, k) => {
      const fixed = constants[k] ?? null;
      return fixed === null ? load(b, type, SCRATCH + 16 * k, index) : constant(b, type, fixed);
    });
    const [p = 0, q = 0, r = 0, s = 0, t = 0, u = 0] = [...operands, ...immediates];
    store(b, op.result, SCRATCH + 48, b.emit(op.index, p, q, r, s, t, u), index);
    const following = b.add64(b.get(L[0]!), b.i64(TUPLE));
    b.set(L[0]!, following);
    b.condGoto(b.ltu64(following, b.get(L[1]!)), at, next);
  };
}

/** Lane type of the floats in a vector operation's result or operands. */
const floatLane = (name: string): string | null =>
  /f64x2$/.test(name) && !/tof32/.test(name) ? 'f64' : /f32x4$/.test(name) ? 'f32' : null;

/** Bits with every NaN made the same: which one comes out is not defined. */
function canonical(bits: bigint, lane: string | null, size: number): bigint {
  if (!lane) return bits;
  const width = lane === 'f32' ? 32 : 64;
  const [infinity, magnitude] = width === 32 ? [0x7f800000n, 0x7fffffffn] : [0x7ffn << 52n, (1n << 63n) - 1n];
  let result = 0n;
  for (let at = 0; at < size; at += width) {
    const one = BigInt.asUintN(width, bits >> BigInt(at));
    result |= ((one & magnitude) > infinity ? magnitude : one) << BigInt(at);
  }
  return result;
}

class OpsRun {
  readonly isa = new TestIsa();
  readonly machine: TestMachine;
  private readonly counted: 'regions' | 'native' | null;

  /** @param counted what there must be more of after each program */
  constructor(counted: OpsRun['counted']) {
    this.counted = counted;
    const machineCode = counted === 'native' ? mapMachineCode(MACHINE_CODE) : null;
    this.machine = new TestMachine(this.isa, { compile: counted === 'regions', machineCode });
  }

  /** @returns the results' bits, one for each tuple */
  run(program: Program, tuples: readonly bigint[][]): bigint[] {
    const { machine } = this;
    const code = [instruction(program), (b: Builder, next: number): void => b.leave(STOP, 0, next)];
    machine.engine.blocks.invalidate(0x6000000 + CODE, 16);
    machine.code(CODE, code);
    const compiled = (): number => (this.counted ? machine.engine.statistics[this.counted] : 0);
    const known = compiled();
    const place = VCPU_BASE + SCRATCH;
    const once = (): void => {
      tuples.forEach((tuple, i) =>
        tuple.forEach((bits, k) => {
          machine.view.setBigUint64(place + TUPLE * i + 16 * k, BigInt.asUintN(64, bits), true);
          machine.view.setBigUint64(place + TUPLE * i + 16 * k + 8, bits >> 64n, true);
        }),
      );
      machine.set(L[0]!, 0n);
      machine.set(L[1]!, BigInt(TUPLE * tuples.length));
      machine.run(CODE);
    };
    once();
    for (let i = 0; this.counted && compiled() === known && i < 8; i++) once();
    if (this.counted) {
      // What the host's code has not is left to the interpreter.
      const mayLack = this.counted === 'native' && KIND[program.op.index] === 0;
      assert.ok(mayLack || compiled() > known, `${program.op.name} is compiled`);
      machine.bytes.fill(0, place, place + TUPLE * tuples.length);
      once();
    }
    return tuples.map((_, i) => {
      const at = place + TUPLE * i + 48;
      const bits = machine.view.getBigUint64(at, true) | (machine.view.getBigUint64(at + 8, true) << 64n);
      return BigInt.asUintN(BITS[program.op.result]!, bits);
    });
  }
}

function immediatesFor(op: OpInfo): number[][] {
  if (op.name === 'vshuffle') return [0, 1, 2, 3].map(() => [0, 1, 2, 3].map(() => random() & 0x1f1f1f1f));
  if (op.immediates === 0) return [[]];
  const count = 128 / Number(/\d+/.exec(op.name)![0]);
  return [[0], [count - 1], [random() % count]];
}

function programsFor(op: OpInfo): Program[] {
  const programs: Program[] = [];
  const lane = floatLane(op.name);
  for (const immediates of immediatesFor(op)) {
    programs.push({ op, immediates, constants: [] });
    op.operands.forEach((_, k) => {
      const constants = op.operands.map((_type, i) => (i === k ? operandOf(op, k, lane) : null));
      programs.push({ op, immediates, constants });
    });
  }
  return programs;
}

const OPERATIONS = OPS.filter((op) => op.kind === PURE && op.operands.length > 0);

test('every pure operation gives the same interpreted, compiled, and by its definition', () => {
  const interpreter = new OpsRun(null);
  const others = [new OpsRun('regions')];
  if (mapMachineCode(4096)) others.push(new OpsRun('native'));
  assert.ok(TUPLES * TUPLE + SCRATCH < 4096 && TUPLES > HOT);
  for (const op of OPERATIONS) {
    const lane = floatLane(op.name);
    const resultLane = op.result === F32 ? 'f32' : op.result === F64 ? 'f64' : op.result === V128 ? resultLaneOf(op) : null;
    const reference = referenceOf(op.name, BITS[op.result]!);
    for (const program of programsFor(op)) {
      const tuples = Array.from({ length: TUPLES }, () => op.operands.map((_, k) => operandOf(op, k, lane)));
      const interpreted = interpreter.run(program, tuples);
      const compiled = others.map((run) => run.run(program, tuples));
      tuples.forEach((tuple, i) => {
        const operands = tuple.map((bits, k) => program.constants[k] ?? bits);
        const text = `${op.name} ${operands.map((bits) => bits.toString(16)).join(' ')} [${program.immediates.join()}]`;
        const size = BITS[op.result]!;
        const [a, ...rest] = [interpreted, ...compiled].map((bits) => canonical(bits[i]!, resultLane, size).toString(16));
        for (const b of rest) assert.equal(b, a, `compiled against interpreted: ${text}`);
        if (!reference) return;
        const [x = 0n, y = 0n, z = 0n] = operands;
        assert.equal(a, reference(x, y, z, program.immediates).toString(16), `against the definition: ${text}`);
      });
    }
  }
});

/** Lane type of floats in a vector result; comparisons and conversions to integers give none. */
function resultLaneOf(op: OpInfo): string | null {
  const { name } = op;
  if (/^(eq|ne|lt|gt|le|ge)f|to[su]32x4$/.test(name)) return null;
  if (/tof32x4$|^splatf32$|^setlanef32$/.test(name)) return 'f32';
  if (/tof64x2$|^splatf64$|^setlanef64$/.test(name)) return 'f64';
  return floatLane(name);
}
