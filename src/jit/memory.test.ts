/** Accesses to guest memory and to the state block, interpreted and compiled. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Builder, Value } from '../ir/builder.ts';
import { F32, F64, I32, I64, MEMORY, OPS, V128 } from '../ir/ops.ts';
import { ACCESS_READ, ACCESS_WRITE } from '../isa/isa.ts';
import { ACCESS } from './access.ts';
import { GUEST_MEMORY, VCPU_BASE } from './layout.ts';
import {
  D,
  DEVICE,
  EXEC,
  L,
  NOWHERE,
  OTHER,
  RAM_SIZE,
  READ,
  ROM,
  SCRATCH,
  STOP,
  TestIsa,
  TestMachine,
  V,
  W,
  WRITE,
  stop,
} from './test-kit.ts';
import type { Insn } from './test-kit.ts';

const CODE = 0x1000;
const PATTERN = 0xf1e2d3c4b5a69788796a5b4c3d2e1f80n;
const low = (bytes: number): bigint => (1n << BigInt(8 * bytes)) - 1n;

function setResult(b: Builder, type: number, value: Value): void {
  if (type === I32) b.set(W[0]!, value);
  else if (type === I64) b.set(L[1]!, value);
  else if (type === F32) b.set(W[0]!, b.bitsf32(value));
  else if (type === F64) b.set(D[0]!, value);
  else b.set(V[0]!, value);
}

function storedValue(b: Builder, type: number): Value {
  if (type === I32) return b.get(W[1]!);
  if (type === I64) return b.get(L[2]!);
  if (type === F32) return b.f32bits(b.get(W[1]!));
  return b.get(type === F64 ? D[1]! : V[1]!);
}

const resultOf = (machine: TestMachine, type: number): bigint =>
  machine.get(type === I64 ? L[1]! : type === F64 ? D[0]! : type === V128 ? V[0]! : W[0]!);

/** Accesses through l0, or through the stack pointer, whose page is remembered. */
const ACCESSES = OPS.filter((op) => op.kind === MEMORY);
const accessInsn =
  (name: string, pointer: number, displacement: number): Insn =>
  (b) => {
    const op = OPS.find((candidate) => candidate.name === name)!;
    const info = ACCESS[op.index]!;
    const address = b.add64(b.get(L[pointer]!), b.i64(displacement));
    if (info.store) b.emit(op.index, address, storedValue(b, info.type), 0, 0, 0, 0);
    else setResult(b, info.type, b.emit(op.index, address, 0, 0, 0, 0, 0));
  };

function bytesOf(machine: TestMachine, physical: number, count: number): bigint {
  let value = 0n;
  for (let i = count - 1; i >= 0; i--) value = (value << 8n) | BigInt(machine.bytes[GUEST_MEMORY + physical + i]!);
  return value;
}

function putBytes(machine: TestMachine, physical: number, value: bigint, count: number): void {
  for (let i = 0; i < count; i++) {
    machine.bytes[GUEST_MEMORY + physical + i] = Number((value >> BigInt(8 * i)) & 255n);
  }
}

function setStored(machine: TestMachine): void {
  machine.set(W[1]!, PATTERN & low(4));
  machine.set(L[2]!, PATTERN & low(8));
  machine.set(D[1]!, PATTERN & low(8));
  machine.set(V[1]!, PATTERN);
}

/** What a load of these bytes gives. */
function expectedLoad(name: string, bits: bigint): bigint {
  const op = OPS.find((candidate) => candidate.name === name)!;
  const { bytes } = ACCESS[op.index]!;
  const value = bits & low(bytes);
  if (!name.endsWith('s')) return value;
  return BigInt.asUintN(32, BigInt.asIntN(8 * bytes, value));
}

function machineFor(insns: readonly Insn[], compile: boolean, native = false): TestMachine {
  const machine = new TestMachine(new TestIsa(), { compile, native });
  machine.code(CODE, [...insns, stop]);
  // The mapping that pages further on have: 0x20 -> 0x30, 0x21 -> 0x18, so that neighbours are none in RAM.
  machine.vcpu.map.set(0x20n, { page: 0x30000, permissions: READ | WRITE });
  machine.vcpu.map.set(0x21n, { page: 0x18000, permissions: READ | WRITE });
  return machine;
}

const ADDRESSES = [0x20000, 0x20001, 0x20007, 0x20ff0, 0x20ffc, 0x20ffe, 0x20fff, 0x20ff1];
/** Physical address of byte `i` of an access to a virtual address in the two mapped pages. */
const physicalOf = (address: number): number => (address < 0x21000 ? 0x30000 : 0x18000) + (address & 0xfff);

for (const [how, compile, native] of [
  ['interpreted', false, false],
  ['compiled', true, false],
  ["as the host's code", false, true],
] as const) {
  const runsOften = (machine: TestMachine, before: () => void): void => {
    if (compile) machine.runHot(CODE, before);
    for (let i = 0; native && i < 20; i++) {
      before();
      machine.run(CODE);
    }
  };

  test(`${how}: every access, aligned, unaligned and across pages`, () => {
    for (const op of ACCESSES) {
      const info = ACCESS[op.index]!;
      for (const pointer of [0, 7]) {
        const machine = machineFor([accessInsn(op.name, pointer, -16)], compile, native);
        runsOften(machine, () => machine.set(L[pointer]!, 0x20110n));
        if (compile) assert.equal(machine.regions, 1, op.name);
        for (const address of ADDRESSES) {
          machine.set(L[pointer]!, BigInt(address + 16));
          setStored(machine);
          for (let i = 0; i < info.bytes; i++) {
            machine.bytes[GUEST_MEMORY + physicalOf(address + i)] = 0xa1 + 7 * i;
          }
          machine.run(CODE);
          assert.equal(machine.vcpu.faults.length, 0);
          let bits = 0n;
          for (let i = info.bytes - 1; i >= 0; i--) {
            bits = (bits << 8n) | BigInt(machine.bytes[GUEST_MEMORY + physicalOf(address + i)]!);
          }
          const text = `${op.name} at ${address.toString(16)}`;
          if (info.store) assert.equal(bits, PATTERN & low(info.bytes), text);
          else assert.equal(resultOf(machine, info.type), expectedLoad(op.name, bits), text);
        }
      }
    }
  });

  test(`${how}: stores leave the neighbours alone`, () => {
    for (const op of ACCESSES.filter((candidate) => ACCESS[candidate.index]!.store)) {
      const machine = machineFor([accessInsn(op.name, 0, 0)], compile, native);
      const { bytes } = ACCESS[op.index]!;
      setStored(machine);
      putBytes(machine, 0x3000f, 0n, 40);
      for (let i = 0; i < 60; i++) {
        machine.set(L[0]!, 0x20010n);
        machine.run(CODE);
      }
      assert.equal(bytesOf(machine, 0x3000f, 40), (PATTERN & low(bytes)) << 8n, op.name);
    }
  });

  test(`${how}: permissions are checked, and a load for a read-modify-write reports a write`, () => {
    for (const op of ACCESSES) {
      const info = ACCESS[op.index]!;
      const wantsWrite = info.store || op.name.endsWith('w');
      const machine = machineFor([accessInsn(op.name, 0, 0)], compile, native);
      machine.vcpu.map.set(0x22n, { page: 0x31000, permissions: READ });
      machine.vcpu.map.set(0x23n, null);
      runsOften(machine, () => machine.set(L[0]!, 0x20010n));
      setStored(machine);
      const before = machine.registers();
      machine.set(L[0]!, 0x22008n);
      machine.run(CODE);
      const { faults } = machine.vcpu;
      assert.equal(faults.length, wantsWrite ? 1 : 0, op.name);
      machine.set(L[0]!, BigInt(0x23000 - info.bytes + 1));
      if (info.bytes > 1) machine.run(CODE);
      machine.set(L[0]!, 0x23000n);
      machine.run(CODE);
      const last = faults.at(-1)!;
      assert.deepEqual(
        [last.pc, last.address, last.access],
        [BigInt(CODE), 0x23000n, wantsWrite ? ACCESS_WRITE : ACCESS_READ],
        op.name,
      );
      if (info.store) assert.deepEqual(machine.registers().slice(1), before.slice(1));
      assert.equal(bytesOf(machine, 0x31ff0, 16), 0n, `${op.name}: nothing is written of an access that faults`);
    }
  });

  test(`${how}: device registers see each access once, in parts of at most four bytes`, () => {
    for (const op of ACCESSES) {
      const info = ACCESS[op.index]!;
      const machine = machineFor([accessInsn(op.name, 0, 0)], compile, native);
      machine.vcpu.map.set(0x24n, { page: DEVICE, permissions: READ | WRITE });
      runsOften(machine, () => machine.set(L[0]!, 0x20010n));
      machine.set(L[0]!, 0x24010n);
      setStored(machine);
      machine.onDevice = () => 0x8badf00d;
      machine.run(CODE);
      const part = Math.min(4, info.bytes);
      const offsets = Array.from({ length: info.bytes / part }, (_, i) => 0x10 + 4 * i);
      assert.deepEqual(
        machine.accesses,
        offsets.map((offset, i) => [offset, part, info.store ? Number((PATTERN >> BigInt(32 * i)) & low(part)) : null]),
        op.name,
      );
      if (!info.store) {
        let bits = 0n;
        offsets.forEach((_, i) => (bits |= 0x8badf00dn << BigInt(32 * i)));
        assert.equal(resultOf(machine, info.type), expectedLoad(op.name, bits), op.name);
      }
    }
  });

  test(`${how}: accesses that run from memory into a device, and from a device into nowhere`, () => {
    const machine = machineFor([accessInsn('ld64', 0, 0), accessInsn('st64', 3, 0)], compile, native);
    machine.vcpu.map.set(0x24n, { page: DEVICE, permissions: READ | WRITE });
    machine.vcpu.map.set(0x23n, { page: 0x40000, permissions: READ | WRITE });
    machine.vcpu.map.set(0x25n, { page: NOWHERE, permissions: READ | WRITE });
    const begin = (from: bigint, to: bigint) => (): void => {
      machine.set(L[0]!, from);
      machine.set(L[3]!, to);
      machine.set(L[2]!, 0x1122334455667788n);
    };
    runsOften(machine, begin(0x20010n, 0x20020n));
    machine.onDevice = (offset, value) => (value === null ? 0x40 + offset : 0);
    putBytes(machine, 0x40ffd, 0xccbbaan, 3);
    begin(0x23ffdn, 0x24ffen)();
    machine.accesses.length = 0;
    machine.run(CODE);
    assert.equal(machine.get(L[1]!), 0x4443424140ccbbaan);
    assert.deepEqual(machine.accesses.slice(5), [
      [0xffe, 1, 0x88],
      [0xfff, 1, 0x77],
    ]);
    // Nothing there: reads as ones, writes are lost.
    begin(0x25000n, 0x25ff8n)();
    machine.run(CODE);
    assert.equal(machine.get(L[1]!), 0xffffffffffffffffn);
    assert.equal(machine.vcpu.faults.length, 0);
  });

  test(`${how}: accesses a few bytes apart are to one page, or to two, or across their border`, () => {
    // Load, load, store, load, by one register that changes on the way.
    const step: Insn = (b) => b.set(L[0]!, b.add64(b.get(L[0]!), b.i64(8)));
    const keep: Insn = (b) => b.set(L[3]!, b.get(L[1]!));
    const insns = [
      accessInsn('ld64', 0, 0),
      keep,
      step,
      accessInsn('st64', 0, 8),
      accessInsn('st8', 0, 16),
      accessInsn('ld64', 0, 21),
    ];
    const machine = machineFor(insns, compile, native);
    const begin = (address: bigint): void => {
      putBytes(machine, 0x30ff0, 0x1716151413121110_0706050403020100n, 16);
      putBytes(machine, 0x18000, 0x5756555453525150_4746454443424140_3736353433323130_2726252423222120n, 32);
      machine.set(L[0]!, address);
      machine.set(L[2]!, 0xaabbccddeeff9988n);
      machine.set(W[1]!, 0x88n);
    };
    runsOften(machine, () => begin(0x20800n));
    /** Bytes of both pages as the guest sees them. */
    const memory = (address: number): bigint => {
      let value = 0n;
      for (let i = 7; i >= 0; i--) {
        const at = address + i;
        value = (value << 8n) | bytesOf(machine, (at >= 0x21000 ? 0x18000 : 0x30000) + (at & 0xfff), 1);
      }
      return value;
    };
    for (let address = 0x20fd8; address < 0x21008; address++) {
      begin(BigInt(address));
      const [first, second] = [memory(address), memory(address + 29)];
      machine.run(CODE);
      assert.equal(machine.get(L[3]!), first, address.toString(16));
      assert.equal(machine.get(L[1]!), second, address.toString(16));
      assert.equal(memory(address + 16), 0xaabbccddeeff9988n, address.toString(16));
      assert.equal(memory(address + 24) & 255n, 0x88n, address.toString(16));
    }
    assert.equal(machine.vcpu.faults.length, 0);
  });

  test(`${how}: ROM can be read and run, not written, also by an access across pages`, () => {
    const machine = machineFor([accessInsn('ld32', 0, 0), accessInsn('st64', 0, 0)], compile, native);
    const rom = GUEST_MEMORY + RAM_SIZE;
    machine.bytes.fill(0x5a, rom, rom + 0x2000);
    machine.vcpu.map.set(0x26n, { page: ROM, permissions: READ | WRITE | EXEC });
    machine.vcpu.map.set(0x27n, { page: ROM + 0x1000, permissions: READ | WRITE | EXEC });
    runsOften(machine, () => machine.set(L[0]!, 0x20010n));
    for (const address of [0x26010n, 0x26ffdn, 0x27ff8n]) {
      machine.set(L[0]!, address);
      machine.set(L[2]!, 0x1122334455667788n);
      machine.run(CODE);
      assert.equal(machine.get(W[0]!), 0x5a5a5a5an);
    }
    assert.ok(
      machine.bytes.subarray(rom, rom + 0x2000).every((byte) => byte === 0x5a),
      'ROM stays as it is',
    );
    assert.equal(machine.vcpu.faults.length, 0);
  });

  test(`${how}: addresses at the ends of the address space and in its middle fault, whatever points there`, () => {
    for (const pointer of [0, 7]) {
      for (const name of ['ld8u', 'ld64', 'ldv', 'ld32w', 'st8', 'st64', 'stv']) {
        const machine = machineFor([accessInsn(name, pointer, 0)], compile, native);
        machine.vcpu.identity = false;
        machine.vcpu.map.set(1n, { page: CODE, permissions: READ | EXEC });
        runsOften(machine, () => machine.set(L[pointer]!, 0x20010n));
        const { faults } = machine.vcpu;
        faults.length = 0;
        const extremes = [
          0xffffffffffffffffn,
          0xfffffffffffffff9n,
          0xfffffffffffff000n,
          0n,
          0x8000000000000000n,
          0x8000000000000ff8n,
          0x7fffffffffffffffn,
          0x0000800000000000n,
          0xffff800000000000n,
          0x7ffffffffffffffdn,
        ];
        for (const address of extremes) {
          machine.set(L[pointer]!, address);
          machine.run(CODE);
        }
        assert.deepEqual(
          faults.map((fault) => fault.address),
          extremes,
          name,
        );
        assert.ok(faults.every((fault) => fault.pc === BigInt(CODE)));
      }
    }
  });

  test(`${how}: an access across the end of the address space goes on at 0`, () => {
    const machine = machineFor([accessInsn('st64', 0, 0), accessInsn('ld64', 0, 0)], compile, native);
    machine.vcpu.map.set(0xfffffffffffffn, { page: 0x50000, permissions: READ | WRITE });
    machine.vcpu.map.set(0n, { page: 0x60000, permissions: READ | WRITE });
    runsOften(machine, () => machine.set(L[0]!, 0x20010n));
    machine.set(L[2]!, 0x1122334455667788n);
    machine.set(L[0]!, 0xfffffffffffffffdn);
    machine.run(CODE);
    assert.equal(machine.get(L[1]!), 0x1122334455667788n);
    assert.equal(bytesOf(machine, 0x60000, 5), 0x1122334455n);
  });

  test(`${how}: state loads and stores of each width, constant and computed places`, () => {
    const body: Insn = (b) => {
      const index = b.wrap(b.get(L[0]!));
      b.sts8(SCRATCH + 1, b.i32(0x1234), index);
      b.sts16(SCRATCH + 2, b.i32(0x12345678), index);
      b.sts32(SCRATCH + 4, b.i32(-2), index);
      b.sts64(SCRATCH + 8, b.i64(-3, 7), b.i32(16));
      b.stsf64(SCRATCH + 16, b.f64bits(b.i64(0, 0x3ff00000)));
      b.stsv(SCRATCH + 48, b.v128(1, 2, 3, 4));
      b.set(W[0]!, b.lds8(SCRATCH + 1, index));
      b.set(W[1]!, b.lds16(SCRATCH + 2, index));
      b.set(W[2]!, b.lds32(SCRATCH + 4, index));
      b.set(L[1]!, b.lds64(SCRATCH + 24));
      b.set(D[0]!, b.ldsf64(SCRATCH + 16));
      b.set(V[0]!, b.ldsv(SCRATCH + 40, b.i32(8)));
    };
    const machine = machineFor([body], compile, native);
    runsOften(machine, () => machine.set(L[0]!, 0x100000020n));
    machine.set(L[0]!, 0x100000020n);
    machine.run(CODE);
    assert.deepEqual(
      [W[0]!, W[1]!, W[2]!, L[1]!, D[0]!, V[0]!].map((global) => machine.get(global)),
      [0x34n, 0x5678n, 0xfffffffen, 0x7fffffffdn, 0x3ff0000000000000n, 0x00000004000000030000000200000001n],
    );
    assert.equal(machine.view.getUint32(VCPU_BASE + SCRATCH + 0x24, true), 0xfffffffe);
  });

  test(`${how}: leaveif leaves at its own instruction or not at all`, () => {
    const insns: Insn[] = [
      (b) => b.set(L[1]!, b.i64(1)),
      (b) => {
        b.leaveIf(b.wrap(b.get(L[0]!)), OTHER, 77);
        b.set(L[1]!, b.i64(2));
      },
    ];
    const machine = machineFor(insns, compile, native);
    runsOften(machine, () => machine.set(L[0]!, 0n));
    machine.set(L[0]!, 0xffffffff00000000n);
    machine.run(CODE);
    assert.equal(machine.vcpu.leaves.at(-1)!.reason, STOP);
    assert.equal(machine.get(L[1]!), 2n);
    machine.set(L[0]!, 0x80000000n);
    machine.run(CODE);
    assert.deepEqual(machine.vcpu.leaves.at(-1), { reason: OTHER, argument: 77, pc: BigInt(CODE + 2) });
    assert.equal(machine.get(L[1]!), 1n);
  });
}
