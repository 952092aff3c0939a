import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keySequence, textSequence } from './keys.ts';
import { encodePng } from './png.ts';
import { characterOf, linesOf } from './text.ts';

test('keys go down in order and up in reverse; extended ones after E0h', () => {
  assert.deepEqual(keySequence('ctrl-alt-delete'), [[0x1d], [0x38], [0xe0, 0x53], [0xe0, 0xd3], [0xb8], [0x9d]]);
  assert.deepEqual(textSequence('a!'), [[0x1e], [0x9e], [0x2a], [0x02], [0x82], [0xaa]]);
  assert.throws(() => keySequence('constructor'), /there is no key "constructor"/);
  assert.throws(() => textSequence('ä'), /no key types "ä"/);
});

test('every printable ASCII character can be typed', () => {
  for (let code = 32; code < 127; code++) assert.ok(textSequence(String.fromCharCode(code)).length >= 2);
});

test('code page 437', () => {
  assert.deepEqual([0xc9, 0xdb, 0x41, 0xe1, 0xff, 0x1b].map(characterOf), ['╔', '█', 'A', 'ß', '\u00a0', '←']);
  const cells = Uint16Array.from([0x741, 0x720, 0x742, 0x720, 0x720, 0x720]);
  assert.deepEqual(linesOf({ columns: 3, rows: 2, cells, cursor: -1 }), ['A B', '']);
});

test('a picture as PNG has its size, its check sums and its pixels', async () => {
  const pixels = Uint8Array.of(1, 2, 3, 255, 4, 5, 6, 255);
  const png = await encodePng({ width: 2, height: 1, pixels });
  const view = new DataView(png.buffer);
  assert.deepEqual([view.getUint32(16), view.getUint32(20)], [2, 1]);
  // The check sum of an empty IEND chunk is known.
  assert.equal(view.getUint32(png.length - 4), 0xae426082);
  const length = view.getUint32(33);
  const data = new Blob([png.slice(41, 41 + length)]).stream().pipeThrough(new DecompressionStream('deflate'));
  assert.deepEqual([...new Uint8Array(await new Response(data).arrayBuffer())], [0, 1, 2, 3, 4, 5, 6]);
});
