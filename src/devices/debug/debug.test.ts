import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RecordingBackend } from '../mocks.ts';
import { DebugConsole, DebugExit } from './debug.ts';

test('the debug console prints and answers E9h', () => {
  const backend = new RecordingBackend();
  const { ports } = new DebugConsole(backend);
  for (const c of 'ok') ports.write(0, 1, c.charCodeAt(0));
  assert.equal(backend.output, 'ok');
  assert.equal(ports.read(0, 1), 0xe9);
});

test('the debug exit gives odd codes', () => {
  const codes: number[] = [];
  const { ports } = new DebugExit((code) => codes.push(code));
  ports.write(0, 1, 0x10);
  ports.write(0, 4, 0xffffffff);
  assert.deepEqual(codes, [0x21, 0xffffffff]);
});
