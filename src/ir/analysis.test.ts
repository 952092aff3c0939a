import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlockAnalysis } from './analysis.ts';
import { Builder } from './builder.ts';
import type { Global } from './builder.ts';
import type { Helper } from './helpers.ts';
import { I32, I64, NONE } from './ops.ts';

const globals: Global[] = [
  { name: 'a', index: 0, type: I64, offset: 256 },
  { name: 'b', index: 1, type: I64, offset: 264 },
];
const [A, B] = globals as [Global, Global];
const call = (): number => 0;
const helpers: Helper[] = [
  {
    name: 'pure',
    index: 0,
    params: [I32],
    result: I32,
    touchesGlobals: false,
    mayFault: false,
    body: { kind: 'ir', ir: { arms: 1, arm: () => 0 } },
  },
  { name: 'touches', index: 1, params: [], result: NONE, touchesGlobals: true, mayFault: false, body: { kind: 'host', call } },
  { name: 'faults', index: 2, params: [], result: NONE, touchesGlobals: false, mayFault: true, body: { kind: 'host', call } },
  { name: 'host', index: 3, params: [], result: I32, touchesGlobals: false, mayFault: false, body: { kind: 'host', call } },
];

function analyse(build: (b: Builder) => void, inline = true): BlockAnalysis {
  const b = new Builder(globals);
  b.reset(-1);
  b.insn(0);
  build(b);
  const analysis = new BlockAnalysis(globals.length);
  analysis.run(b.words, b.count, helpers, inline);
  return analysis;
}

test('what nobody uses is dead, and what only it used', () => {
  let [x, y, z] = [0, 0, 0];
  const analysis = analyse((b) => {
    x = b.get(A);
    y = b.i64(1);
    z = b.add64(x, y);
    b.goto(1);
  });
  assert.deepEqual(
    [x, y, z].map((value) => analysis.dead[value]),
    [1, 1, 1],
  );
});

test('accesses to guest memory are never dead', () => {
  const analysis = analyse((b) => {
    b.ld64(b.i64(8));
    b.goto(1);
  });
  assert.equal(analysis.dead[2], 0);
  assert.equal(analysis.uses[1], 1);
});

test('a register write is dead when another follows before anything can see it', () => {
  const sets = (between: (b: Builder) => void): boolean => {
    let at = 0;
    const analysis = analyse((b) => {
      b.set(A, b.i64(1));
      at = b.count - 1;
      between(b);
      b.set(A, b.i64(2));
      b.goto(1);
    });
    return analysis.dead[at] === 1;
  };
  assert.ok(sets(() => undefined));
  assert.ok(sets((b) => b.insn(1)));
  assert.ok(
    sets((b) => b.set(B, b.get(A))),
    'the builder hands the value on',
  );
  assert.ok(!sets((b) => void b.ld8u(b.i64(0))));
  assert.ok(!sets((b) => b.leaveIf(b.i32(1), 16, 0)));
  assert.ok(!sets((b) => void b.call(helpers[1]!)));
  assert.ok(!sets((b) => void b.call(helpers[2]!)));
  assert.ok(sets((b) => void b.call(helpers[0]!, b.i32(0))));
});

test('helpers made of IR are values; others are done for what they do', () => {
  let [pure, host] = [0, 0];
  const analysis = analyse((b) => {
    pure = b.call(helpers[0]!, b.i32(0));
    host = b.call(helpers[3]!);
    b.goto(1);
  });
  assert.deepEqual([analysis.dead[pure], analysis.dead[host]], [1, 0]);
});

test('a value with one use is computed there, so its operands live until then', () => {
  const build = (b: Builder): void => {
    const sum = b.add64(b.get(A), b.get(B)); // 1, 2, 3
    b.set(A, b.i64(5)); // 4, 5
    b.st64(b.i64(0), b.xor64(sum, b.i64(7))); // 6; 7, 8; 9
    b.goto(1);
  };
  const inlined = analyse(build);
  assert.equal(inlined.position[3], 9);
  assert.equal(inlined.last[1], 9);
  const plain = analyse(build, false);
  assert.equal(plain.position[3], 3);
  assert.equal(plain.last[1], 3);
  assert.equal(plain.last[3], 8);
});

test('values are nested within each other so deep and no deeper', () => {
  const analysis = analyse((b) => {
    let sum = b.get(A);
    for (let i = 0; i < 1000; i++) sum = b.add64(sum, b.i64(i));
    b.set(A, sum);
    b.goto(1);
  });
  let kept = 0;
  for (let i = 3; i < 2002; i += 2) if (analysis.position[i] === i) kept++;
  assert.ok(kept >= 9 && kept < 20, `${kept} values on their own`);
});

test('an analysis can be used again for a block of another size', () => {
  const analysis = new BlockAnalysis(globals.length);
  for (const size of [10, 1000, 3]) {
    const b = new Builder(globals);
    b.reset(-1);
    b.insn(0);
    for (let i = 0; i < size; i++) b.set(A, b.add64(b.get(A), b.i64(1)));
    b.goto(1);
    analysis.run(b.words, b.count, helpers, true);
    assert.equal([...analysis.dead.subarray(0, b.count)].filter((dead) => dead).length, size - 1);
  }
});

test('displacements and the condition of a branch are folded into their only users, which then need their operands', () => {
  let [base, constant, address, load, condition] = [0, 0, 0, 0, 0];
  const build = (b: Builder): void => {
    base = b.get(A);
    constant = b.i64(0x1000);
    address = b.add64(base, constant);
    load = b.ld64(address);
    condition = b.ltu64(load, base);
    b.condGoto(condition, 1, 2);
  };
  const folded = analyse(build, false);
  assert.deepEqual([folded.folded[address], folded.folded[condition], folded.folded[load]], [1, 1, 0]);
  assert.equal(folded.uses[constant], 0);
  assert.equal(folded.last[base], condition + 1);
  assert.equal(analyse(build, true).folded[address], 0);
});

test('what has two users or no constant is not folded', () => {
  const analysis = analyse((b) => {
    const address = b.add64(b.get(A), b.i64(8));
    b.st64(address, b.get(B));
    b.set(A, address);
    b.ld64(b.add64(b.get(A), b.get(B)));
    b.ld64(b.add64(b.get(B), b.i64(0, 1)));
    const flag = b.eqz64(b.get(B));
    b.set(B, b.extu(flag));
    b.condGoto(flag, 1, 2);
  }, false);
  assert.ok(analysis.folded.every((folded) => folded === 0));
});

test('what a value is only another name for lives as long as that', () => {
  let [source, name, later] = [0, 0, 0];
  const analysis = analyse((b) => {
    source = b.get(A);
    name = b.wrap(source);
    b.set(A, b.i64(5));
    later = b.add32(name, b.i32(1));
    b.set(B, b.extu(later));
    b.goto(1);
  }, false);
  assert.equal(analysis.last[source], later);
});
