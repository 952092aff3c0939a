import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AddressSpace, PAGE_HAS_CODE } from './address-space.ts';

function space() {
  const bytes = new Uint8Array(new SharedArrayBuffer(0x8000));
  return { bytes, mem: new AddressSpace(bytes) };
}

test('RAM by bytes, words and across pages', () => {
  const { bytes, mem } = space();
  mem.addRam(0, 0x2000, 0x1000);
  mem.write(0xffe, 4, 0x11223344);
  assert.equal(mem.read(0xffe, 4), 0x11223344);
  assert.equal(bytes[0x1ffe], 0x44);
  mem.write(0x10, 2, 0xfffe);
  assert.equal(mem.read(0x11, 1), 0xff);
  assert.equal(mem.hostPage(0x1fff), 0x2000);
  assert.equal(mem.hostPage(0x2000), -1);
});

test('an access half in RAM, half in nothing', () => {
  const lines: string[] = [];
  const { mem } = space();
  mem.trace = (category) => lines.push(category);
  mem.addRam(0, 0x1000, 0);
  mem.write(0xffe, 4, 0);
  assert.equal(mem.read(0xffe, 4), 0xffff0000);
  assert.ok(lines.includes('unassigned-mmio'));
});

test('ROM reads and ignores writes; it can be turned into RAM', () => {
  const { bytes, mem } = space();
  bytes[0x3000] = 7;
  mem.addRom(0xf0000, 0x1000, 0x3000);
  mem.write(0xf0000, 1, 9);
  mem.writeBytes(0xf0000, Uint8Array.of(9));
  assert.equal(mem.read(0xf0000, 1), 7);
  assert.equal(mem.isWritable(0xf0000), false);
  const ram = mem.addRam(0xf0000, 0x1000, 0x4000);
  assert.equal(mem.isWritable(0xf0000), true);
  ram.remove();
  assert.equal(mem.isWritable(0xf0000), false);
  assert.equal(mem.read(0xf0000, 1), 7);
});

test('memory over memory: priority first, then what came last; what was hidden shows again', () => {
  const mem = new AddressSpace(new Uint8Array(0x10000));
  const bios = mem.addRom(0xe0000, 0x2000, 0x1000, -1);
  mem.addRam(0xe0000, 0x1000, 0x4000);
  const window = mem.addRam(0xdf000, 0x4000, 0x6000, -2);
  assert.deepEqual(
    [0xdf000, 0xe0000, 0xe1000, 0xe2000].map((at) => mem.hostPage(at)),
    [0x6000, 0x4000, 0x2000, 0x9000],
  );
  bios.remove();
  assert.equal(mem.hostPage(0xe1000), 0x8000);
  window.remove();
  window.remove();
  assert.equal(mem.hostPage(0xe1000), -1);
  assert.equal(mem.hostPage(0xe0000), 0x4000);
});

test('a write shadow takes writes while reads see the ROM', () => {
  const { bytes, mem } = space();
  bytes[0x3004] = 7;
  mem.addRom(0xf0000, 0x1000, 0x3000);
  const shadow = mem.addWriteShadow(0xf0000, 0x2000, 0x4000);
  mem.write(0xf0004, 1, 9);
  mem.writeBytes(0xf1004, Uint8Array.of(8));
  assert.equal(mem.read(0xf0004, 1), 7);
  assert.deepEqual([bytes[0x4004], bytes[0x5004]], [9, 8]);
  shadow.remove();
  mem.write(0xf0004, 1, 1);
  assert.equal(bytes[0x4004], 9);
});

test('RAM above 4 GiB and across the border', () => {
  const { mem } = space();
  mem.addRam(0xfffff000, 0x3000, 0);
  mem.write(0xffffffff, 4, 0xa1b2c3d4);
  assert.equal(mem.read(0x1_0000_0000, 2), 0xb2c3);
  assert.equal(mem.hostPage(0x1_0000_1fff), 0x2000);
  assert.equal(mem.hostPage(0x1_0000_2000), -1);
  assert.equal(mem.isWritable(0x1_0000_0000), true);
});

test('registers: dispatch, first come first served, removal, edges', () => {
  const { mem } = space();
  const seen: string[] = [];
  const handler = (name: string) => ({
    read: (offset: number, size: number) => (seen.push(`${name} ${offset} ${size}`), 0xab),
    write: (offset: number, size: number, value: number) => {
      seen.push(`${name} ${offset} ${size} ${value}`);
    },
  });
  const first = mem.addMmio(0xfee00000, 0x100, handler('first'), 'first');
  mem.addMmio(0xfee00000, 0x1000, handler('second'), 'second');
  mem.read(0xfee00010, 4);
  mem.write(0xfee00200, 2, 5);
  mem.read(0xfee00010, 1);
  first.remove();
  mem.read(0xfee00010, 4);
  assert.deepEqual(seen, ['first 16 4', 'second 512 2 5', 'first 16 1', 'second 16 4']);
  assert.equal(mem.read(0xfee00ffe, 4), 0xffffabab);
  assert.equal(mem.read(0xd0000000, 2), 0xffff);
});

test('bulk transfers cross pages, holes and registers', () => {
  const { mem } = space();
  mem.addRam(0, 0x1000, 0);
  mem.addRam(0x2000, 0x1000, 0x1000);
  mem.addMmio(0x1ffe, 2, { read: () => 0x55, write: () => undefined }, 'two');
  mem.writeBytes(0xfff, new Uint8Array(0x1002).fill(3));
  const got = new Uint8Array(0x1002);
  mem.readBytes(0xfff, got);
  assert.deepEqual([got[0], got[1], got[0xfff], got[0x1001]], [3, 0xff, 0x55, 3]);
});

test('writes into pages with code are told', () => {
  const { mem } = space();
  const told: [number, number][] = [];
  mem.onCodeWrite = (offset, length) => told.push([offset, length]);
  mem.addRam(0, 0x4000, 0);
  mem.pageFlags[1] = PAGE_HAS_CODE;
  mem.write(0x0ffc, 4, 1);
  mem.write(0x1004, 2, 1);
  mem.writeBytes(0xff0, new Uint8Array(0x1020));
  assert.deepEqual(told, [
    [0x1004, 2],
    [0x1000, 0x1000],
  ]);
});

test('visible memory is what shows after hiding, joined where it lies together', () => {
  const { mem } = space();
  mem.addRam(0, 0x2000, 0);
  mem.addRam(0x2000, 0x2000, 0x2000);
  const hidden = mem.addRom(0x1000, 0x1000, 0x6000, 1);
  mem.addRam(0x1_0000_0000, 0x1000, 0x5000);
  assert.deepEqual(mem.visibleMemory(), [
    { base: 0, size: 0x1000, hostOffset: 0, writable: true },
    { base: 0x1000, size: 0x1000, hostOffset: 0x6000, writable: false },
    { base: 0x2000, size: 0x2000, hostOffset: 0x2000, writable: true },
    { base: 0x1_0000_0000, size: 0x1000, hostOffset: 0x5000, writable: true },
  ]);
  hidden.remove();
  assert.deepEqual(mem.visibleMemory()[0], { base: 0, size: 0x4000, hostOffset: 0, writable: true });
});
