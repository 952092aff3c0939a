import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseList, parseNumber, parseSize, parseSwitch, parseUuid, splitCommas } from './values.ts';

test('sizes with and without suffix', () => {
  assert.equal(parseSize('512', 'm'), 512 * 2 ** 20);
  assert.equal(parseSize('512M', 'm'), 512 * 2 ** 20);
  assert.equal(parseSize('1G', 'm'), 2 ** 30);
  assert.equal(parseSize('1.5g', 'm'), 1.5 * 2 ** 30);
  assert.equal(parseSize('0x100k', 'b'), 2 ** 18);
  assert.equal(parseSize('4096', 'b'), 4096);
  for (const bad of ['', 'M', '12Q', '-1', '1 G', '1e3', '9999999P', '0.3b']) {
    assert.throws(() => parseSize(bad, 'm'), /size/, bad);
  }
});

test('numbers within limits', () => {
  assert.equal(parseNumber('0xf4', 0, 0xffff), 0xf4);
  for (const bad of ['', 'x', '-1', '65536', '1.5']) {
    assert.throws(() => parseNumber(bad, 0, 0xffff), /not a number from 0 to 65535/, bad);
  }
});

test('switches', () => {
  assert.equal(parseSwitch('sleep', 'on'), true);
  assert.equal(parseSwitch('sleep', 'no'), false);
  assert.throws(() => parseSwitch('sleep', 'maybe'), /sleep takes on or off/);
});

test('lists: implied first key, bare words, doubled commas', () => {
  assert.deepEqual(splitCommas('a,,b,c'), ['a,b', 'c']);
  const list = parseList('pc,accel=jit,usb', 'type');
  assert.deepEqual(
    [...list],
    [
      ['type', 'pc'],
      ['accel', 'jit'],
      ['usb', 'on'],
    ],
  );
  assert.deepEqual(
    [...parseList('server,nowait', null, ['wait'])],
    [
      ['server', 'on'],
      ['wait', 'off'],
    ],
  );
  assert.throws(() => parseList('a,,,b,', null), /empty item/);
});

test('UUIDs', () => {
  const bytes = parseUuid('00112233-4455-6677-8899-aabbccddeeff');
  assert.deepEqual([...bytes.subarray(0, 3), bytes[15]], [0, 0x11, 0x22, 0xff]);
  assert.throws(() => parseUuid('00112233'), /not a UUID/);
});
