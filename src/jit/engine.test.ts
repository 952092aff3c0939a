/** The engine around translated code: faults, budgets, interrupts, what is kept and what is dropped. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { I32, NONE, Op } from '../ir/ops.ts';
import type { Helper } from '../ir/helpers.ts';
import { CTL_CTX, CTL_FAULT, CTL_OTHER_TLB } from '../ir/vcpu-block.ts';
import { FIRST_CODE, GUEST_MEMORY, VCPU_BASE } from './layout.ts';
import {
  DEVICE,
  HOT,
  L,
  NOWHERE,
  READ,
  STOP,
  TestIsa,
  TestMachine,
  UNKNOWN_INSN,
  V,
  W,
  WRITE,
  add,
  jumpBy,
  jumpTo,
  loopBy,
  stop,
} from './test-kit.ts';
import type { Insn, TestOptions } from './test-kit.ts';

const BOTH: readonly [string, TestOptions][] = [
  ['interpreted', { compile: false }],
  ['compiled', { compile: true }],
  ["as the host's code", { compile: false, native: true }],
];

function machineWith(options: TestOptions, helpers: readonly Helper[] = []): TestMachine {
  return new TestMachine(new TestIsa(helpers), options);
}

/** l1 = the 64 bits at l2; then l2 += 8. */
const loadNext: Insn = (b) => {
  const address = b.get(L[2]!);
  b.set(L[1]!, b.ld64(address));
  b.set(L[2]!, b.add64(address, b.i64(8)));
};

test('a loop gives the same interpreted and compiled', () => {
  const machine = machineWith({});
  machine.code(0x1000, [add(0, 3), loopBy(1, -2), stop]);
  machine.set(L[1]!, 10n);
  machine.run(0x1000);
  assert.equal(machine.get(L[0]!), 30n);
  assert.deepEqual(machine.vcpu.leaves, [{ reason: STOP, argument: 0, pc: 0x1006n }]);
  assert.equal(machine.regions, 0);
  machine.runHot(0x1000, () => {
    machine.set(L[0]!, 0n);
    machine.set(L[1]!, 5n);
  });
  assert.equal(machine.regions, 1);
  assert.equal(machine.get(L[0]!), 15n);
});

for (const [how, options] of BOTH) {
  test(`${how}: a fault reports its instruction, with what was before done and nothing after`, () => {
    const machine = machineWith(options);
    const setContext: Insn = (b) => {
      b.set(L[4]!, b.i64(9));
      b.ctx = 42;
    };
    machine.code(0x1000, [add(0, 1), setContext, loadNext, add(3, 1), loopBy(5, -8), stop]);
    machine.vcpu.map.set(0x31n, null);
    const begin = (from: bigint) => (): void => {
      machine.set(L[0]!, 0n);
      machine.set(L[3]!, 0n);
      machine.set(L[5]!, 10n);
      machine.set(L[2]!, from);
      machine.view.setInt32(VCPU_BASE + CTL_CTX, 7, true);
    };
    machine.runHot(0x1000, begin(0x30000n));
    for (const [from, rounds] of [
      [0x30ff0n, 3n],
      [0x31000n, 1n],
      [0x30ffdn, 1n],
    ] as const) {
      begin(from)();
      machine.vcpu.faults.length = 0;
      machine.run(0x1000);
      const { faults } = machine.vcpu;
      assert.deepEqual(
        faults.map(({ pc, ctx, address }) => [pc, ctx, address]),
        [[0x1004n, 42, 0x31000n]],
      );
      assert.equal(machine.get(L[0]!), rounds, 'instructions before have been executed');
      assert.equal(machine.get(L[3]!), rounds - 1n, 'instructions after have not');
      assert.equal(machine.get(L[2]!), from + 8n * (rounds - 1n));
    }
  });

  test(`${how}: a fault in code whose context is that of its entry`, () => {
    const machine = machineWith(options);
    machine.code(0x1000, [loadNext, stop]);
    machine.runHot(0x1000, () => machine.set(L[2]!, 0x3000n));
    machine.vcpu.map.set(0x31n, null);
    machine.set(L[2]!, 0x31008n);
    machine.view.setInt32(VCPU_BASE + CTL_CTX, 1234, true);
    machine.run(0x1000);
    assert.equal(machine.vcpu.faults[0]!.ctx, 1234);
    assert.equal(machine.vcpu.faults[0]!.pc, 0x1000n);
  });

  test(`${how}: kick from a device stops soon`, () => {
    const machine = machineWith(options);
    const poke: Insn = (b) => b.st32(b.i64(DEVICE), b.i32(1));
    machine.code(0x1000, [poke, add(0, 1), loopBy(1, -4), stop]);
    const begin = (): void => {
      machine.set(L[0]!, 0n);
      machine.set(L[1]!, 500n);
    };
    machine.runHot(0x1000, begin);
    begin();
    let pokes = 0;
    machine.onDevice = () => {
      if (++pokes === 10) {
        machine.engine.kick();
        machine.vcpu.stopped = true;
      }
      return 0;
    };
    machine.run(0x1000, 10_000);
    assert.ok(machine.get(L[0]!) <= 14n, `${machine.get(L[0]!)} rounds`);
    assert.ok(pokes >= 10);
  });

  test(`${how}: a helper that faults leaves the state as it made it`, () => {
    let fail = 0;
    let machine: TestMachine | null = null;
    const helper: Helper = {
      name: 'count',
      index: 0,
      params: [I32],
      result: I32,
      touchesGlobals: true,
      mayFault: true,
      body: {
        kind: 'host',
        call: (step) => {
          machine!.set(L[1]!, machine!.get(L[1]!) + BigInt(step));
          machine!.view.setInt32(VCPU_BASE + CTL_FAULT, fail, true);
          if (fail) machine!.vcpu.walk(0, 0x12345, 0, { page: 0, permissions: 0, global: false, bits: 12 });
          return 5;
        },
      },
    };
    machine = machineWith(options, [helper]);
    const call: Insn = (b) => {
      const old = b.get(L[1]!);
      const result = b.call(helper, b.i32(10));
      b.set(L[2]!, old);
      b.set(W[0]!, result);
      b.set(L[3]!, b.get(L[1]!));
    };
    machine.code(0x1000, [add(0, 1), add(1, 1), call, add(0, 1), stop]);
    const begin = (): void => {
      for (let i = 0; i < 4; i++) machine!.set(L[i]!, BigInt(100 * i));
      machine!.set(W[0]!, 0n);
    };
    machine.runHot(0x1000, begin);
    assert.deepEqual(
      [0, 1, 2, 3].map((i) => machine!.get(L[i]!)),
      [2n, 111n, 101n, 111n],
    );
    assert.equal(machine.get(W[0]!), 5n);
    begin();
    fail = 1;
    machine.run(0x1000);
    assert.deepEqual(
      [0, 1, 2, 3].map((i) => machine!.get(L[i]!)),
      [1n, 111n, 200n, 300n],
    );
    assert.equal(machine.vcpu.faults[0]!.pc, 0x1004n);
  });

  test(`${how}: a helper can be a function of the vCPU's`, () => {
    const helper: Helper = {
      name: 'asks',
      index: 0,
      params: [],
      result: I32,
      touchesGlobals: false,
      mayFault: false,
      body: { kind: 'vcpu', name: 'answer' },
    };
    const machine = machineWith(options, [helper]);
    let answer = 5;
    Object.assign(machine.vcpu, { helpers: { answer: () => answer++ } });
    machine.code(0x1000, [add(1, 1), (b) => b.set(W[0]!, b.call(helper)), stop]);
    machine.runHot(0x1000);
    const before = machine.get(W[0]!);
    machine.run(0x1000);
    assert.equal(machine.get(W[0]!), before + 1n);
    assert.equal(BigInt(answer), before + 2n);
  });

  test(`${how}: an earlier fault does not count against a helper that may fault`, () => {
    const helper: Helper = {
      name: 'nothing',
      index: 0,
      params: [],
      result: NONE,
      touchesGlobals: false,
      mayFault: true,
      body: { kind: 'host', call: () => undefined },
    };
    const machine = machineWith(options, [helper]);
    const call: Insn = (b) => void b.call(helper);
    const load: Insn = (b) => b.set(L[1]!, b.ld64(b.get(L[2]!)));
    machine.code(0x1000, [call, stop]);
    machine.code(0x1100, [load, stop]);
    machine.runHot(0x1000);
    machine.set(L[2]!, 0xfffffff000n);
    machine.run(0x1100);
    assert.equal(machine.vcpu.faults.length, 1);
    machine.run(0x1000);
    assert.equal(machine.vcpu.faults.length, 1);
  });

  test(`${how}: a vCPU that halts stops running`, () => {
    const machine = machineWith(options);
    machine.code(0x1000, [add(0, 1), stop]);
    machine.vcpu.onLeave = () => {
      machine.vcpu.halted = true;
    };
    machine.run(0x1000);
    machine.resume();
    assert.equal(machine.get(L[0]!), 1n);
    assert.equal(machine.pc, 0x1004n);
  });

  test(`${how}: interrupts wait for one instruction in a shadow, no longer`, () => {
    const machine = machineWith(options);
    machine.code(0x1000, [add(0, 1), add(0, 1), add(0, 1), stop]);
    machine.runHot(0x1000);
    machine.set(L[0]!, 0n);
    const { vcpu } = machine;
    vcpu.interruptShadow = true;
    vcpu.interruptWaiting = true;
    vcpu.onPoll = () => {
      vcpu.stopped = true;
    };
    machine.run(0x1000);
    assert.equal(vcpu.interruptShadow, false);
    assert.equal(machine.pc, 0x1002n, 'one instruction, then the interrupt is looked for');
    machine.engine.kick();
    vcpu.interruptShadow = true;
    vcpu.interruptWaiting = false;
    machine.run(0x1000);
    assert.equal(vcpu.interruptShadow, false);
    assert.equal(machine.get(L[0]!), 4n, 'nothing waits: on through the block');
  });

  test(`${how}: jumps to the ends of the address space are faults or code, never errors`, () => {
    const machine = machineWith(options);
    machine.code(0x1000, [jumpTo(0)]);
    machine.runHot(0x1000, () => machine.set(L[0]!, 0x900000000n));
    machine.vcpu.faults.length = 0;
    const places = [
      0xffffffffffffffffn,
      0xfffffffffffff000n,
      0xfffffffffffffffen,
      0x8000000000000000n,
      0x7fffffffffffffffn,
      0x800000000000n,
      0xffff7fffffffffffn,
      0x100000000n,
    ];
    for (const place of places) {
      machine.set(L[0]!, place);
      machine.run(0x1000);
      assert.equal(machine.pc, place);
    }
    assert.deepEqual(
      machine.vcpu.faults.map((fault) => fault.address),
      places,
    );
    // Page 0 is mapped and holds no instructions.
    machine.set(L[0]!, 0n);
    machine.run(0x1000);
    machine.run(0x1000);
    assert.deepEqual(
      machine.vcpu.leaves.slice(-2).map(({ reason, pc }) => [reason, pc]),
      [
        [UNKNOWN_INSN, 0n],
        [UNKNOWN_INSN, 0n],
      ],
    );
    machine.set(L[0]!, BigInt(NOWHERE));
    machine.run(0x1000);
    assert.equal(machine.vcpu.fetchesFromNowhere, 1);
  });

  test(`${how}: code runs across the end of the address space`, () => {
    const machine = machineWith(options);
    machine.vcpu.map.set(0xfffffffffffffn, { page: 0x50000, permissions: 7 });
    machine.vcpu.map.set(0n, { page: 0x60000, permissions: 7 });
    machine.code(0x50ffc, [add(0, 1), add(0, 2)]);
    machine.code(0x60000, [add(0, 4), stop]);
    machine.runHot(0xfffffffffffffffcn, () => machine.set(L[0]!, 0n));
    assert.equal(machine.get(L[0]!), 7n);
    assert.equal(machine.vcpu.leaves.at(-1)!.pc, 4n);
    // An instruction with one byte on each side.
    const split = machine.encoded(add(0, 100));
    machine.physical.writeBytes(0x50fff, split.subarray(0, 1));
    machine.physical.writeBytes(0x60000, Uint8Array.of(split[1]!, ...machine.encoded(stop)));
    machine.runHot(0xffffffffffffffffn, () => machine.set(L[0]!, 0n));
    assert.equal(machine.get(L[0]!), 100n);
    assert.equal(machine.vcpu.leaves.at(-1)!.pc, 3n);
  });

  test(`${how}: an instruction that runs into a page that cannot be fetched`, () => {
    const machine = machineWith(options);
    const [low, high] = machine.encoded(add(0, 1)) as unknown as [number, number];
    machine.physical.writeBytes(0x2fff, Uint8Array.of(low));
    machine.vcpu.map.set(3n, { page: 0x3000, permissions: READ | WRITE });
    machine.run(0x2fff);
    assert.deepEqual(
      machine.vcpu.faults.map(({ pc, address }) => [pc, address]),
      [[0x2fffn, 0x3000n]],
    );
    // The second page is no memory at all.
    machine.vcpu.map.set(3n, { page: NOWHERE, permissions: 7 });
    machine.run(0x2fff);
    assert.equal(machine.vcpu.fetchesFromNowhere, 1);
    assert.equal(machine.vcpu.faults.length, 1);
    // Blocks that reach the end of the page stop before it.
    machine.code(0x2ffb, [add(0, 1), stop]);
    machine.run(0x2ffb);
    assert.equal(machine.vcpu.leaves.length, 1);
    machine.vcpu.map.set(3n, { page: 0x3000, permissions: 7 });
    machine.physical.writeBytes(0x3000, Uint8Array.of(high, ...machine.encoded(stop)));
    machine.run(0x2fff);
    assert.equal(machine.pc, 0x3003n);
  });

  test(`${how}: code with a base, where a pc is not the address of its code`, () => {
    const machine = machineWith({ ...options, hotThreshold: 1_000_000 });
    const { vcpu } = machine;
    vcpu.codeBase = 0x10000;
    machine.engine.selectContext(2, 0, 5);
    // Every round goes through a computed jump, hence through the host.
    const count: Insn = (b, next, at) => {
      const left = b.sub64(b.get(L[1]!), b.i64(1));
      b.set(L[1]!, left);
      b.condGoto(b.ne64(left, b.i64(0)), at - 4, next);
    };
    machine.code(0x11000, [add(0, 1), jumpTo(2), count, stop]);
    machine.set(L[1]!, 60_000n);
    machine.set(L[2]!, 0x1004n);
    machine.run(0x1000, 1_000_000);
    assert.equal(machine.get(L[0]!), 60_000n);
    assert.equal(vcpu.leaves.at(-1)!.pc, 0x1008n);
  });

  test(`${how}: the code area fills up and is emptied, as often as need be`, () => {
    const machine = machineWith({ ...options, codeEnd: FIRST_CODE + 0x6000 });
    const { engine } = machine;
    let expected = 0n;
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 300; i++) {
        const at = 0x10000 + 64 * i;
        if (round === 0) machine.code(at, [add(0, 1), add(1, 2), stop]);
        machine.run(at);
        expected++;
      }
    }
    assert.equal(machine.get(L[0]!), expected);
    assert.ok(engine.statistics.blocks > 600, 'blocks were translated anew');
    // Compiled code is dropped and made again.
    machine.code(0x1000, [add(0, 1), loopBy(2, -2), stop]);
    machine.set(L[0]!, 0n);
    for (let i = 0; i < 600; i++) {
      machine.set(L[2]!, 100n);
      machine.run(0x1000);
      machine.run(0x10000 + 64 * (i % 300));
    }
    assert.equal(machine.get(L[0]!), 60_600n);
    if (options.compile) assert.ok(machine.regions > 2);
  });

  test(`${how}: entry cells run out, and come back`, () => {
    const machine = machineWith(options);
    const { blocks } = machine.engine;
    machine.code(0x1000, [add(0, 1), loopBy(1, -2), stop]);
    const begin = (): void => machine.set(L[1]!, 50n);
    machine.runHot(0x1000, begin);
    while (blocks.cellsLeft > 100) blocks.newCell(1, 0);
    machine.code(0x2000, [add(0, 5), stop]);
    machine.set(L[0]!, 0n);
    machine.run(0x2000);
    assert.equal(machine.get(L[0]!), 5n);
    assert.ok(blocks.cellsLeft > 1000);
    machine.runHot(0x1000, begin);
    machine.run(0x2000);
    assert.equal(machine.get(L[0]!) % 5n, 0n);
  });
}

test('blocks of many and large instructions are cut to what the interpreter has room for', () => {
  for (const options of [{ compile: false }, { compile: true }, { compile: true, codeEnd: FIRST_CODE + 0x50000 }]) {
    const machine = machineWith(options);
    const large: Insn = (b) => {
      let sum = b.get(V[0]!);
      for (let i = 0; i < 110; i++) sum = b.add8x16(sum, b.xorv(b.v128(i, 1, 2, 3), b.get(V[1]!)));
      b.set(V[0]!, sum);
    };
    machine.code(0x1000, [...Array<Insn>(64).fill(large), stop]);
    for (let i = 0; i < 40; i++) machine.run(0x1000);
    machine.set(V[0]!, 0n);
    machine.set(V[1]!, 0n);
    machine.run(0x1000);
    // 64 times the sum of 0…109 in the first byte of each lane, of 1, 2, 3 in the others.
    assert.equal(machine.get(V[0]!) & 0xffn, BigInt((64 * 5995) & 255));
    assert.equal((machine.get(V[0]!) >> 32n) & 0xffn, BigInt((64 * 110) & 255));
  }
});

test('hot code with hardly an entry cell left leaves the TLB alone', () => {
  const machine = machineWith({});
  const { blocks } = machine.engine;
  // A region with many ways out needs many cells at once.
  const branches: Insn[] = [];
  for (let i = 0; i < 60; i++) branches.push((b, next, at) => b.condGoto(b.eqz64(b.get(L[3]!)), at + 0x200, next));
  machine.code(0x1000, [...branches, loopBy(1, -120), stop]);
  const begin = (): void => {
    machine.set(L[3]!, 1n);
    machine.set(L[1]!, 2n);
  };
  begin();
  machine.run(0x1000);
  while (blocks.cellsLeft > 260) blocks.newCell(1, 0);
  for (let i = 0; i < 3 * HOT; i++) {
    begin();
    machine.run(0x1000);
  }
  assert.ok(blocks.cellsLeft >= 0);
});

const FLUSHES: readonly [string, (engine: TestMachine['engine'], page: number) => void][] = [
  ['the page', (engine, page) => engine.flushPage(page, 0)],
  ['the address space', (engine) => engine.flushAddressSpace(-1)],
  ['everything', (engine) => engine.flushAll()],
];

for (const [what, flush] of FLUSHES) {
  test(`a region is left alone when a page is remapped that it has code in: by dropping ${what}`, () => {
    const machine = machineWith({});
    const { vcpu, engine } = machine;
    vcpu.map.set(2n, { page: 0x2000, permissions: 7 });
    machine.code(0x1ffc, [add(0, 1), jumpBy(2), add(0, 10), loopBy(1, -6), stop]);
    machine.code(0x5000, [add(0, 1000), loopBy(1, -6), stop]);
    const begin = (): void => {
      machine.set(L[0]!, 0n);
      machine.set(L[1]!, 40n);
    };
    machine.runHot(0x1ffc, begin);
    for (let i = 0; i < 40; i++) {
      begin();
      machine.run(0x1ffc);
    }
    assert.equal(machine.get(L[0]!), 440n);
    vcpu.map.set(2n, { page: 0x5000, permissions: 7 });
    flush(engine, 0x2000);
    begin();
    machine.run(0x1ffc);
    assert.equal(machine.get(L[0]!), 40n * 1001n);
    vcpu.map.set(2n, null);
    flush(engine, 0x2000);
    begin();
    machine.run(0x1ffc);
    assert.equal(machine.get(L[0]!), 1n);
    assert.equal(vcpu.faults.at(-1)!.pc, 0x2000n);
    vcpu.map.set(2n, { page: 0x2000, permissions: 7 });
    flush(engine, 0x2000);
    begin();
    machine.run(0x1ffc);
    assert.equal(machine.get(L[0]!), 440n);
  });

  test(`what regions remember of each other's places is forgotten when these are remapped: by dropping ${what}`, () => {
    const machine = machineWith({});
    const { vcpu, engine } = machine;
    // A round through more pages than one region has code in.
    const [first, last, changing] = [0x2000, 0xd000, 0x8000];
    for (let page = first; page < last; page += 0x1000) machine.code(page, [add(0, 1), jumpBy(0xffe)]);
    machine.code(last, [add(0, 1), loopBy(1, first - last - 2), stop]);
    machine.code(0x20000, [add(0, 100), jumpBy(0xffe)]);
    const run = (): bigint => {
      machine.set(L[0]!, 0n);
      machine.set(L[1]!, 40n);
      machine.run(first);
      return machine.get(L[0]!);
    };
    for (let i = 0; i < 20; i++) assert.equal(run(), 40n * 12n);
    assert.ok(machine.regions > 1);
    for (const [page, sum] of [
      [0x20000, 40n * 111n],
      [changing, 40n * 12n],
      [0x20000, 40n * 111n],
    ] as const) {
      vcpu.map.set(BigInt(changing >> 12), { page, permissions: 7 });
      flush(engine, changing);
      for (let i = 0; i < 20; i++) assert.equal(run(), sum);
    }
  });
}

test('a region takes in what has run a quarter as often as makes a block hot, and nothing that is reached less', () => {
  for (const [runs, taken] of [
    [HOT / 4 - 1, false],
    [HOT / 4, true],
  ] as const) {
    const machine = machineWith({});
    const branch: Insn = (b, next) => b.condGoto(b.eqz64(b.get(L[3]!)), 0x100, next);
    machine.code(0x1000, [branch, stop]);
    machine.code(0x1100, [add(0, 1), stop]);
    for (let i = 0; i < runs; i++) {
      machine.set(L[3]!, 0n);
      machine.run(0x1000);
    }
    machine.runHot(0x1000, () => machine.set(L[3]!, 1n));
    const { region } = machine.engine.blocks.get(GUEST_MEMORY / 4096 + 1, 0, 0);
    const starts = region!.ranges.filter((_, i) => i % 3 === 1);
    assert.equal(starts.includes(0x100), taken);
    machine.set(L[3]!, 0n);
    machine.run(0x1000);
    assert.equal(machine.get(L[0]!), BigInt(runs + 1));
  }
});

/** Changes to the other supervisor context, or stops when that may not be. */
const changeContext: Insn = (b, next) => {
  b.leaveIf(b.eqz32(b.lds32(CTL_OTHER_TLB)), STOP, 0);
  b.changeContext();
  b.jump(b.add64(b.emit(Op.pcbase, 0, 0, 0, 0, 0, 0), b.i64(next)), true);
};

for (const [how, options] of BOTH) {
  test(`${how}: code changes to the other supervisor context and back by itself`, () => {
    const machine = machineWith(options);
    const { vcpu, engine } = machine;
    let changes = 0;
    Object.assign(vcpu, {
      contextChanged: () => {
        changes++;
        vcpu.map.set(8n, { page: 0x8000, permissions: changes & 1 ? READ : 0 });
      },
    });
    vcpu.map.set(8n, { page: 0x8000, permissions: 0 });
    machine.physical.writeBytes(0x8000, Uint8Array.of(7));
    engine.selectContext(0, 0, 0, 1);
    machine.code(0x1000, [add(0, 1), changeContext, loadNext, changeContext, add(0, 1), loopBy(3, -10), stop]);
    machine.code(0x1100, [loadNext, stop]);
    const begin = (): void => {
      for (const [register, value] of [0n, 0n, 0x8000n, 5n].entries()) machine.set(L[register]!, value);
    };
    machine.runHot(0x1000, begin);
    assert.deepEqual(vcpu.faults, []);
    assert.deepEqual([machine.get(L[0]!), machine.get(L[2]!)], [10n, 0x8028n]);
    machine.physical.writeBytes(0x8020, Uint8Array.of(9));
    begin();
    machine.run(0x1000);
    assert.equal(machine.get(L[1]!), 9n);
    assert.equal(changes % 2, 0);
    // What the other may read the first may not, though the page has been in use.
    machine.set(L[2]!, 0x8000n);
    machine.run(0x1100);
    assert.deepEqual(
      vcpu.faults.map(({ address }) => address),
      [0x8000n],
    );
    // A flush reaches both.
    vcpu.map.set(8n, { page: 0x9000, permissions: 0 });
    engine.flushAll();
    Object.assign(vcpu, { contextChanged: () => vcpu.map.set(8n, { page: 0x9000, permissions: READ }) });
    begin();
    machine.run(0x1000);
    assert.equal(machine.get(L[1]!), 0n);
    // And where it is not ready the code must leave.
    engine.selectContext(0, 0, 0);
    vcpu.leaves.length = 0;
    begin();
    machine.run(0x1000);
    assert.deepEqual([machine.get(L[0]!), vcpu.leaves[0]!.pc], [1n, 0x1002n]);
  });

  test(`${how}: an instruction across two pages follows the second page's mapping`, () => {
    const machine = machineWith(options);
    const { vcpu, engine } = machine;
    const first = add(0, 1);
    const second = add(0, 100);
    const [low, high] = machine.encoded(first) as unknown as [number, number];
    // The numbers must differ in the byte on the second page.
    while (machine.isa.insns.length < 300) machine.isa.number(() => undefined);
    machine.isa.insns[0x100 | low] = second;
    machine.physical.writeBytes(0x1fff, Uint8Array.of(low));
    machine.physical.writeBytes(0x2000, Uint8Array.of(high, ...machine.encoded(stop)));
    machine.physical.writeBytes(0x5000, Uint8Array.of(1, ...machine.encoded(stop)));
    const begin = (): void => machine.set(L[0]!, 0n);
    machine.runHot(0x1fff, begin);
    assert.equal(machine.get(L[0]!), 1n);
    for (const [page, sum] of [
      [0x5000, 100n],
      [0x2000, 1n],
      [0x5000, 100n],
    ] as const) {
      vcpu.map.set(2n, { page, permissions: 7 });
      engine.flushPage(0x2000, 0);
      for (let i = 0; i < 3 * HOT; i++) {
        begin();
        machine.run(0x1fff);
        assert.equal(machine.get(L[0]!), sum);
      }
    }
    const { blocks } = engine.statistics;
    for (const page of [0x5000, 0x2000]) {
      vcpu.map.set(2n, { page, permissions: 7 });
      engine.flushPage(0x2000, 0);
      machine.run(0x1fff);
    }
    assert.equal(engine.statistics.blocks, blocks, 'what is known of either page serves again');
    vcpu.map.set(2n, { page: 0x2000, permissions: READ | WRITE });
    engine.flushPage(0x2000, 0);
    machine.run(0x1fff);
    assert.deepEqual(
      vcpu.faults.map(({ pc, address }) => [pc, address]),
      [[0x1fffn, 0x2000n]],
    );
  });
}
