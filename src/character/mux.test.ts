import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type EscapeAction, EscapeFilter, Timestamps } from './mux.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (data: Uint8Array): string => new TextDecoder().decode(data);

function filter() {
  const actions: EscapeAction[] = [];
  return { actions, filter: new EscapeFilter((action) => actions.push(action)) };
}

test('what is typed passes, escapes act', () => {
  const one = filter();
  assert.equal(text(one.filter.filter(bytes('ab\x01hc\x01Xd'))), 'abcd');
  assert.deepEqual(one.actions, ['help', 'exit']);
});

test('an escape may come in two pieces', () => {
  const one = filter();
  assert.equal(text(one.filter.filter(bytes('a\x01'))), 'a');
  assert.equal(text(one.filter.filter(bytes('bz'))), 'z');
  assert.deepEqual(one.actions, ['break']);
});

test('Ctrl-A twice sends one; unknown letters do nothing', () => {
  const one = filter();
  assert.equal(text(one.filter.filter(bytes('\x01\x01\x01z\x01c'))), '\x01');
  assert.deepEqual(one.actions, ['monitor']);
});

test('timestamps at the start of lines, when on', () => {
  let now = 5000;
  const stamps = new Timestamps(() => now);
  assert.equal(text(stamps.mark(bytes('quiet\n'))), 'quiet\n');
  stamps.enabled = true;
  assert.equal(text(stamps.mark(bytes('a\nb'))), '[00:00:00.000] a\n[00:00:00.000] b');
  now += 61_234;
  assert.equal(text(stamps.mark(bytes('c\nd'))), 'c\n[00:01:01.234] d');
});
