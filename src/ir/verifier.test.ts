import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Builder } from './builder.ts';
import type { Global } from './builder.ts';
import { I64 } from './ops.ts';
import { printBlock } from './printer.ts';
import { verify } from './verifier.ts';

const globals: Global[] = [
  { name: 'a', index: 0, type: I64, offset: 256 },
  { name: 'b', index: 1, type: I64, offset: 264 },
];
const names = { globals, helpers: [] };

function begin(): Builder {
  const b = new Builder(globals);
  b.reset(-1);
  b.insn(0);
  return b;
}

test('a sound block passes and prints', () => {
  const b = begin();
  const sum = b.add64(b.get(globals[0]!), b.i64(5));
  b.st32(sum, b.wrap(sum));
  b.set(globals[1]!, sum);
  b.goto(4);
  assert.deepEqual(verify(b, names), []);
  const text = printBlock(b, names);
  assert.match(text, /v1 = getg64 a/);
  assert.match(text, /v3 = add64 v1, v2/);
  assert.match(text, /setg64 v3, b/);
});

test('operand types are checked', () => {
  const b = begin();
  b.add32(b.i64(1), b.i32(2));
  b.goto(1);
  assert.match(verify(b, names)[0]!, /operand 1 is i64 instead of i32/);
});

test('values are defined before they are used', () => {
  const b = begin();
  b.eqz32(7);
  b.goto(1);
  assert.match(verify(b, names)[0]!, /not defined before/);
});

test('a register write before a memory access is an error, in the same instruction only', () => {
  const b = begin();
  b.set(globals[0]!, b.i64(1));
  b.insn(3);
  const v = b.ld64(b.i64(0));
  b.set(globals[0]!, v);
  b.leaveIf(b.eqz64(v), 20, 0);
  b.goto(6);
  const problems = verify(b, names);
  assert.equal(problems.length, 1);
  assert.match(problems[0]!, /may fault after record/);
});

test('there is one exit, at the end', () => {
  const b = begin();
  b.goto(1);
  b.goto(2);
  assert.match(verify(b, names)[0]!, /exit before the end/);
  const open = begin();
  open.i32(1);
  assert.match(verify(open, names)[0]!, /no exit/);
});

test('a block begins with an instruction', () => {
  const b = new Builder(globals);
  b.reset(-1);
  b.goto(0);
  assert.match(verify(b, names)[0]!, /does not begin/);
});
