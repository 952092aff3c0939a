import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCharacter } from './spec.ts';

test('every kind', () => {
  assert.deepEqual(parseCharacter('stdio'), { kind: 'stdio', mux: false });
  assert.deepEqual(parseCharacter('mon:stdio'), { kind: 'stdio', mux: true });
  assert.deepEqual(parseCharacter('null'), { kind: 'null' });
  assert.deepEqual(parseCharacter('vc:80Cx24C'), { kind: 'null' });
  assert.deepEqual(parseCharacter('none'), { kind: 'none' });
  assert.deepEqual(parseCharacter('pty'), { kind: 'pty' });
  assert.deepEqual(parseCharacter('file:/a:b,c'), { kind: 'file', path: '/a:b,c' });
});

test('sockets, with the old and the new way to write their options', () => {
  assert.deepEqual(parseCharacter('unix:/tmp/s,server=on,wait=off'), { kind: 'unix', path: '/tmp/s', server: true, wait: false });
  assert.deepEqual(parseCharacter('tcp:localhost:4444,server,nowait'), {
    kind: 'tcp',
    host: 'localhost',
    port: 4444,
    server: true,
    wait: false,
  });
  assert.deepEqual(parseCharacter('tcp::0'), { kind: 'tcp', host: '', port: 0, server: false, wait: true });
  assert.deepEqual(parseCharacter('tcp:[::1]:99,server'), { kind: 'tcp', host: '::1', port: 99, server: true, wait: true });
});

test('what cannot be used', () => {
  const bad = [
    '',
    'foo',
    'foo:bar',
    'file:',
    'unix:',
    'tcp:localhost',
    'tcp:h:70000',
    'tcp:h:x',
    'mon:null',
    'unix:/s,server=maybe',
    'unix:/s,color=on',
    'constructor:x',
  ];
  for (const text of bad) assert.throws(() => parseCharacter(text), Error, text);
});
