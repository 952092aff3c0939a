import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IoHandler, MappedRegion } from '../../machine/interfaces.ts';
import { PciBus } from '../pci.ts';
import { Vga } from './vga.ts';

const MEMORY = 1 << 20;

function adapter() {
  const bytes = new Uint8Array(MEMORY);
  const map = new Map<number, { base: number; handler: IoHandler }>();
  const mapped: string[] = [];
  let window: IoHandler | null = null;
  const region: MappedRegion = { remove: () => undefined };
  const ports = {
    register: (base: number, count: number, handler: IoHandler) => {
      for (let i = 0; i < count; i++) map.set(base + i, { base, handler });
      return region;
    },
  };
  const memory = {
    addMmio: (base: number, _size: number, handler: IoHandler) => {
      if (base === 0xa0000) window = handler;
      return region;
    },
  };
  const vga = new Vga({
    memory,
    ports,
    bytes,
    rom: null,
    mapMemory: (base, size, at) => {
      const entry = `${base.toString(16)}+${size.toString(16)}:${at.toString(16)}`;
      mapped.push(entry);
      return { remove: () => void mapped.splice(mapped.indexOf(entry), 1) };
    },
  });
  new PciBus({ memory, ports }).plug(vga, 2);
  vga.reset();
  const out = (port: number, value: number, size = 1): void => {
    const { base, handler } = map.get(port)!;
    handler.write(port - base, size, value);
  };
  const inp = (port: number, size = 1): number => {
    const { base, handler } = map.get(port)!;
    return handler.read(port - base, size);
  };
  const set = (port: number, index: number, value: number): void => {
    out(port, index);
    out(port + 1, value);
  };
  const vbe = (index: number, value: number): void => {
    out(0x1ce, index, 2);
    out(0x1d0, value, 2);
  };
  out(0x3c2, 0x67);
  return { vga, bytes, mapped, out, inp, set, vbe, window: window! as IoHandler };
}

type Adapter = ReturnType<typeof adapter>;

const SEQ = 0x3c4;
const GFX = 0x3ce;
const CRT = 0x3d4;

function palette({ inp, out }: Adapter, index: number, red: number, green: number, blue: number): void {
  inp(0x3da);
  out(0x3c8, index);
  for (const value of [red, green, blue]) out(0x3c9, value);
}

/** 80 by 25 characters of 8 by 16 dots; colour n of 16 is DAC entry n. */
function textMode(a: Adapter): void {
  const { set, inp, out } = a;
  set(SEQ, 1, 1);
  set(SEQ, 2, 3);
  set(SEQ, 4, 2);
  set(GFX, 5, 0x10);
  set(GFX, 6, 0x0e);
  set(CRT, 0x11, 0);
  for (const [index, value] of [
    [1, 79],
    [7, 0x02],
    [9, 15],
    [0x0a, 14],
    [0x0b, 15],
    [0x12, 0x8f],
    [0x13, 40],
  ]) {
    set(CRT, index!, value!);
  }
  inp(0x3da);
  for (let i = 0; i < 16; i++) {
    out(0x3c0, i);
    out(0x3c0, i);
  }
  out(0x3c0, 0x20);
}

const pixel = ({ vga }: Adapter, x: number, y: number): number[] => {
  const { width, pixels } = vga.picture();
  return [...pixels.subarray((y * width + x) * 4, (y * width + x) * 4 + 4)];
};

test('text mode: characters and attributes in even and odd bytes, cursor, colours, glyphs', () => {
  const a = adapter();
  textMode(a);
  palette(a, 1, 0, 0, 63);
  palette(a, 4, 63, 0, 0);
  a.window.write(0x18000 + 2 * 81, 2, 0x1441);
  a.set(CRT, 0x0f, 5);
  const screen = a.vga.text()!;
  assert.deepEqual([screen.columns, screen.rows, screen.cursor], [80, 25, 5]);
  assert.equal(screen.cells[81], 0x1441);
  assert.equal(a.window.read(0x18000 + 162, 2), 0x1441);
  // The glyph's first line, in plane 2.
  a.bytes[0x41 * 32 * 4 + 2] = 0x80;
  assert.deepEqual(pixel(a, 8, 16), [255, 0, 0, 255], 'foreground');
  assert.deepEqual(pixel(a, 9, 16), [0, 0, 255, 255], 'background');
  a.set(CRT, 0x0c, 0);
  a.set(CRT, 0x0d, 80);
  assert.equal(a.vga.text()!.cells[1], 0x1441, 'the start address scrolls');
});

test('planes: write modes, masks, latches, both read modes', () => {
  const { set, window, bytes } = adapter();
  set(SEQ, 2, 0x0f);
  set(SEQ, 4, 6);
  set(GFX, 6, 5);
  set(GFX, 8, 0xff);
  window.write(0, 1, 0xa5);
  assert.deepEqual([...bytes.subarray(0, 4)], [0xa5, 0xa5, 0xa5, 0xa5]);
  // Set/reset in two planes, and only some bits: the others come from the latches.
  window.read(0, 1);
  set(GFX, 0, 0x01);
  set(GFX, 1, 0x03);
  set(GFX, 8, 0x0f);
  window.write(0, 1, 0x00);
  assert.deepEqual([...bytes.subarray(0, 4)], [0xaf, 0xa0, 0xa0, 0xa0]);
  // Mode 1 copies latches.
  window.read(0, 1);
  set(GFX, 5, 1);
  window.write(1, 1, 0);
  assert.deepEqual([...bytes.subarray(4, 8)], [0xaf, 0xa0, 0xa0, 0xa0]);
  // Mode 2: a colour for the bits of the mask.
  set(GFX, 5, 2);
  set(GFX, 8, 0xff);
  window.write(2, 1, 0x06);
  assert.deepEqual([...bytes.subarray(8, 12)], [0, 0xff, 0xff, 0]);
  // Mode 3: the byte is a mask.
  window.read(2, 1);
  set(GFX, 5, 3);
  set(GFX, 0, 0x09);
  window.write(2, 1, 0xf0);
  assert.deepEqual([...bytes.subarray(8, 12)], [0xf0, 0x0f, 0x0f, 0xf0]);
  // Only some planes.
  set(GFX, 5, 0);
  set(GFX, 1, 0);
  set(SEQ, 2, 4);
  window.write(3, 1, 0x11);
  assert.deepEqual([...bytes.subarray(12, 16)], [0, 0, 0x11, 0]);
  // Read mode 1 compares colours.
  set(GFX, 5, 8);
  set(GFX, 2, 0x09);
  set(GFX, 7, 0x0f);
  assert.equal(window.read(2, 1), 0xf0);
  // Logical functions: exclusive or.
  set(GFX, 5, 0);
  set(SEQ, 2, 15);
  set(GFX, 3, 0x18);
  window.read(2, 1);
  window.write(2, 1, 0xff);
  assert.deepEqual([...bytes.subarray(8, 12)], [0x0f, 0xf0, 0xf0, 0x0f]);
});

test('chain 4 maps the window onto memory; other modes take it away again', () => {
  const { set, mapped, vbe } = adapter();
  set(SEQ, 2, 15);
  set(GFX, 6, 5);
  set(SEQ, 4, 14);
  assert.deepEqual(mapped, ['a0000+10000:0']);
  vbe(5, 3);
  assert.deepEqual(mapped, ['a0000+10000:30000']);
  set(SEQ, 4, 6);
  assert.deepEqual(mapped, []);
});

test('256 colours: a byte is two dots, lines are doubled', () => {
  const a = adapter();
  textMode(a);
  a.set(SEQ, 4, 14);
  a.set(GFX, 5, 0x40);
  a.set(GFX, 6, 5);
  a.set(CRT, 9, 0x41);
  palette(a, 200, 63, 63, 0);
  a.bytes[320 + 10] = 200;
  const { width, height } = a.vga.picture();
  assert.deepEqual([width, height], [640, 400]);
  assert.deepEqual(pixel(a, 21, 3), [255, 255, 0, 255]);
  assert.deepEqual(pixel(a, 22, 3), [0, 0, 0, 255]);
});

test('the Bochs interface: capabilities, modes, offsets, memory that is kept or cleared', () => {
  const a = adapter();
  const { vbe, inp, out, bytes } = a;
  const read = (index: number): number => {
    out(0x1ce, index, 2);
    return inp(0x1d0, 2);
  };
  assert.equal(read(0), 0xb0c5);
  assert.equal(read(10), MEMORY / 65536);
  bytes[0] = 1;
  vbe(1, 320);
  vbe(2, 200);
  vbe(3, 32);
  vbe(4, 0xc1);
  assert.equal(bytes[0], 1, 'kept');
  bytes.set([0x10, 0x20, 0x30, 0], 320 * 4);
  assert.deepEqual(pixel(a, 0, 1), [0x30, 0x20, 0x10, 255]);
  vbe(9, 1);
  assert.deepEqual(pixel(a, 0, 0), [0x30, 0x20, 0x10, 255]);
  vbe(6, 640);
  assert.equal(read(7), Math.floor(MEMORY / (640 * 4)));
  vbe(4, 0);
  vbe(4, 0x41);
  assert.equal(bytes[320 * 4], 0, 'cleared');
  vbe(4, 2);
  assert.deepEqual([read(1), read(3)], [16000, 32]);
});

test('whatever a guest writes, there is a picture of bounded size', () => {
  const a = adapter();
  let seed = 1;
  const random = (): number => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) >>> 8;
  const ports = [0x3c0, 0x3c2, 0x3c4, 0x3c5, 0x3ce, 0x3cf, 0x3d4, 0x3d5];
  for (let i = 0; i < 20_000; i++) {
    a.out(ports[random() % ports.length]!, random() & 0xff);
    if (i % 50 === 0) a.vbe(random() % 12, random() & 0xffff);
    a.window.write(random() % 0x20000, 1, random() & 0xff);
    if (i % 1000 !== 0) continue;
    const { width, height, pixels } = a.vga.picture();
    assert.equal(pixels.length, width * height * 4);
  }
});

test('state survives a round trip', () => {
  const a = adapter();
  textMode(a);
  const b = adapter();
  b.vga.loadState(a.vga.saveState());
  assert.deepEqual(b.vga.saveState(), a.vga.saveState());
  assert.equal(b.vga.text()!.columns, 80);
});
