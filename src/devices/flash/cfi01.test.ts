import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ParallelFlash } from './cfi01.ts';

const SIZE = 65536;

function setUp(options: { readOnly?: boolean; fails?: boolean } = {}) {
  const bytes = new Uint8Array(SIZE).fill(0xff);
  const stored = bytes.slice();
  const seen = { mapped: 0, changed: [] as [number, number][] };
  const flash = new ParallelFlash({
    id: 'pflash1',
    bytes,
    readOnly: options.readOnly === true,
    backend: {
      size: SIZE,
      readOnly: false,
      read: () => undefined,
      readPieces: () => undefined,
      writePieces: () => undefined,
      write: (offset, from) => {
        if (options.fails === true) throw new Error('no space');
        stored.set(from, offset);
      },
      flush: () => undefined,
      discard: () => undefined,
      close: () => undefined,
    },
    map: () => {
      seen.mapped++;
      return { remove: () => void seen.mapped-- };
    },
    changed: (at, length) => void seen.changed.push([at, length]),
  });
  const write = (offset: number, ...values: number[]): void => values.forEach((value) => flash.mmio.write(offset, 1, value));
  return { flash, bytes, stored, seen, write, read: (at: number) => flash.mmio.read(at, 1) };
}

test('the array is mapped but for while a command shows something else', () => {
  const { seen, write, read } = setUp();
  assert.equal(seen.mapped, 1);
  write(0, 0x70);
  assert.deepEqual([seen.mapped, read(5)], [0, 0x80]);
  write(0, 0xff);
  assert.equal(seen.mapped, 1);
});

test('firmware tells flash from RAM and ROM by a status that can be cleared', () => {
  const { write, read, seen } = setUp();
  write(7, 0x50);
  assert.equal(seen.mapped, 1);
  write(7, 0x70);
  assert.equal(read(7), 0);
});

test('programming clears bits, erasing a block sets them all, and both reach the image', () => {
  const { bytes, stored, seen, write, read } = setUp();
  write(0x1234, 0x10, 0x5a, 0x40, 0xf0);
  assert.equal(bytes[0x1234], 0x50);
  assert.equal(stored[0x1234], 0x50);
  assert.equal(read(0x1234), 0x80, 'the status shows until the array is asked for');
  write(0x1fff, 0x40, 0);
  write(0x2000, 0x40, 0);
  write(0x1800, 0x20, 0xd0, 0xff);
  assert.deepEqual([stored[0x1234], stored[0x1fff], stored[0x2000]], [0xff, 0xff, 0]);
  assert.deepEqual(seen.changed.at(-1), [0x1000, 0x1000]);
});

test('an erase that is not confirmed does nothing but say so', () => {
  const { bytes, write, read } = setUp();
  bytes[0] = 1;
  write(0, 0x20, 0x70);
  assert.equal(bytes[0], 1);
  assert.equal(read(0) & 0x30, 0x30);
});

test('buffered programming takes a count, data and a confirmation', () => {
  const { flash, bytes, write, read } = setUp();
  write(0x800, 0xe8);
  assert.equal(read(0x800), 0x80);
  write(0x800, 3);
  flash.mmio.write(0x810, 4, 0x04030201);
  assert.equal(bytes[0x810], 0xff, 'nothing happens before the confirmation');
  write(0x800, 0xd0, 0xff);
  assert.deepEqual([...bytes.subarray(0x80f, 0x815)], [0xff, 1, 2, 3, 4, 0xff]);
});

test('read-only flash and images that cannot be written are errors for the guest', () => {
  for (const options of [{ readOnly: true }, { fails: true }]) {
    const { bytes, write, read } = setUp(options);
    write(0, 0x40, 0x12);
    assert.equal(read(0) & 0x10, 0x10);
    if ('readOnly' in options) assert.equal(bytes[0], 0xff);
  }
});

test('the query structure gives the command set and the geometry', () => {
  const { write, read } = setUp();
  write(0x55, 0x98);
  assert.equal(String.fromCharCode(read(0x10), read(0x11), read(0x12)), 'QRY');
  assert.deepEqual([read(0x13), read(0x27), read(0x2d), read(0x30)], [1, 16, 15, 0]);
  write(0x55, 0x90);
  assert.deepEqual([read(0), read(1)], [0x89, 0x18]);
});

test('a reset shows the array, a saved state what was shown', () => {
  const one = setUp();
  one.write(0, 0xe8, 1);
  const state = one.flash.saveState();
  const other = setUp();
  other.flash.loadState(state);
  other.write(4, 0x11);
  other.write(5, 0x22);
  other.write(0, 0xd0);
  assert.deepEqual([other.bytes[4], other.bytes[5], other.seen.mapped], [0x11, 0x22, 0]);
  other.flash.reset();
  assert.equal(other.seen.mapped, 1);
});
