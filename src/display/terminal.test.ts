/** A screen on a terminal: cells in, bytes out, and the keys that come back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TextScreen } from '../machine/interfaces.ts';
import { keySequence } from './keys.ts';
import { TerminalKeys } from './terminal-keys.ts';
import { graphicsMessage, messageScreen, TerminalScreen } from './terminal-screen.ts';

const GREY = 0x07;

function text(rows: readonly string[], { attribute = GREY, cursor = -1 } = {}): TextScreen {
  const columns = rows[0]!.length;
  const cells = Uint16Array.from(rows.join(''), (character) => (attribute << 8) | character.charCodeAt(0));
  return { columns, rows: rows.length, cells, cursor };
}

const visible = (bytes: string): string => bytes.replaceAll('\x1b', '^');

test('only what changes is written, with its colours, and the cursor goes where it belongs', () => {
  const screen = new TerminalScreen(4, 2);
  assert.equal(visible(screen.show(text(['ab  ', '   c'], { cursor: 2 }))), '^[?25l^[1;1H^[0;37;40mab^[2;4Hc^[0m^[1;3H^[?25h');
  assert.equal(screen.show(text(['ab  ', '   c'], { cursor: 2 })), '');
  assert.equal(visible(screen.show(text(['ab  ', '   c'], { cursor: 3 }))), '^[1;4H^[?25h');
  assert.equal(visible(screen.show(text(['ax  ', '   c']))), '^[?25l^[1;2H^[0;37;40mx^[0m^[?25l');
});

test('attributes: VGA has blue and red the other way round, bit 3 is bright, bit 7 blinks', () => {
  const screen = new TerminalScreen(1, 1);
  assert.match(visible(screen.show(text(['a'], { attribute: 0x1c }))), /\^\[0;91;44ma/);
  assert.match(visible(screen.show(text(['a'], { attribute: 0xce }))), /\^\[0;93;41;5ma/);
});

test('characters are those of code page 437', () => {
  const screen = new TerminalScreen(3, 1);
  assert.match(screen.show(text(['\xc9\x00\x1b'])), /╔ ←/);
});

test('a smaller screen stands in the middle, of a larger one the part with the cursor is seen', () => {
  assert.match(visible(new TerminalScreen(10, 5).show(text(['abcd']))), /\^\[3;4H\^\[0;37;40mabcd/);
  const small = new TerminalScreen(2, 1);
  assert.match(visible(small.show(text(['abcd', 'efgh'], { cursor: 0 }))), /ab\^\[0m\^\[1;1H/);
  assert.match(visible(small.show(text(['abcd', 'efgh'], { cursor: 7 }))), /gh\^\[0m\^\[1;2H/);
});

test('after another size or a disturbance everything is drawn again', () => {
  const screen = new TerminalScreen(2, 1);
  screen.show(text(['ab']));
  assert.match(visible(screen.redraw(4, 3)), /\^\[2J$/);
  assert.match(visible(screen.show(text(['ab']))), /\^\[2;2H\^\[0;37;40mab/);
});

test('graphics are told of in words', () => {
  assert.equal(graphicsMessage({ width: 640, height: 480 }), '640 x 480 Graphic mode');
  assert.equal(graphicsMessage({ width: 0, height: 0 }), 'VGA Blank mode');
  assert.match(new TerminalScreen(80, 25).show(messageScreen('VGA Blank mode')), /VGA Blank mode/);
});

const keysOf = (...pieces: string[]): string[] => {
  const keys = new TerminalKeys();
  return [...pieces.flatMap((piece) => keys.feed(Buffer.from(piece, 'latin1'))), ...keys.flush()];
};

test('characters, control characters and Alt', () => {
  assert.deepEqual(keysOf('aA! \r\t\x7f'), ['a', 'shift-a', 'shift-1', 'spc', 'ret', 'tab', 'backspace']);
  assert.deepEqual(keysOf('\x03\x00\x1c\x1a'), ['ctrl-c', 'ctrl-spc', 'ctrl-backslash', 'ctrl-z']);
  assert.deepEqual(keysOf('\x1bx\x1bX\x1b1'), ['alt-x', 'alt-shift-x', 'alt-1']);
  // What no key types is left out.
  assert.deepEqual(keysOf('a\xc3\xa4b'), ['a', 'b']);
});

test('keys with sequences, as xterm, the Linux console and rxvt send them', () => {
  assert.deepEqual(keysOf('\x1b[A\x1bOB\x1b[H\x1b[4~\x1b[3~\x1b[6~'), ['up', 'down', 'home', 'end', 'delete', 'pgdn']);
  assert.deepEqual(keysOf('\x1bOP\x1b[[B\x1b[15~\x1b[17~\x1b[24~'), ['f1', 'f2', 'f5', 'f6', 'f12']);
  assert.deepEqual(keysOf('\x1b[1;5C\x1b[3;3~\x1b[1;2P\x1b[Z'), ['ctrl-right', 'alt-delete', 'shift-f1', 'shift-tab']);
});

test('a sequence may come in pieces; an escape that nothing follows is the key', () => {
  assert.deepEqual(keysOf('\x1b', '[', '1;5', 'A', 'b'), ['ctrl-up', 'b']);
  const keys = new TerminalKeys();
  assert.deepEqual(keys.feed(Buffer.from('\x1b')), []);
  assert.equal(keys.waiting, true);
  assert.deepEqual(keys.flush(), ['esc']);
  assert.equal(keys.waiting, false);
  assert.deepEqual(keys.feed(Buffer.from('\x1b[')), []);
  assert.deepEqual(keys.flush(), ['alt-bracket_left']);
});

test('whatever is typed, the keyboard has the keys', () => {
  const keys = new TerminalKeys();
  for (let first = 0; first < 256; first++) {
    for (const bytes of [
      [first],
      [0x1b, first],
      [0x1b, 0x5b, first],
      [0x1b, 0x4f, first],
      [0x1b, 0x5b, 0x31, 0x3b, 0x38, first],
    ]) {
      for (const key of [...keys.feed(Uint8Array.from(bytes)), ...keys.flush()]) assert.ok(keySequence(key).length >= 2, key);
    }
  }
});
