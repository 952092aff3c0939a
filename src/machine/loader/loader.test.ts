import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AddressSpace } from '../address-space.ts';
import { buildE820 } from '../firmware/e820.ts';
import { type BootImage, type BootPlace, loadKernel } from './loader.ts';

const RAM = 64 * 2 ** 20;

function place(): BootPlace & { mem: AddressSpace } {
  const mem = new AddressSpace(new Uint8Array(RAM));
  mem.addRam(0, RAM, 0);
  return { mem, memory: mem, e820: buildE820(RAM, RAM, null), lowEnd: RAM, rsdp: 0xf0000 };
}

function bzImage(change: (view: DataView, file: Uint8Array) => void = () => undefined): Uint8Array {
  const file = new Uint8Array(0x3000);
  const view = new DataView(file.buffer);
  file[0x1f1] = 3;
  view.setUint16(0x1fe, 0xaa55, true);
  file[0x201] = 0x6a;
  view.setUint32(0x202, 0x53726448, true);
  view.setUint16(0x206, 0x020f, true);
  file[0x211] = 1;
  view.setUint32(0x22c, 0x7fffffff, true);
  view.setUint32(0x230, 0x200000, true);
  file[0x234] = 1;
  view.setUint16(0x236, 1, true);
  view.setUint32(0x238, 100, true);
  view.setUint32(0x258, 0x1000000, true);
  view.setUint32(0x260, 0x800000, true);
  file.fill(0x90, 0x800);
  change(view, file);
  return file;
}

function image(kernel: Uint8Array, extra: Partial<BootImage> = {}): BootImage {
  return { kernel, kernelName: 'k', initrd: null, commandLine: 'console=ttyS0', ...extra };
}

test('bzImage: 64-bit entry, zero page, page tables, initrd', () => {
  const p = place();
  const initrd = new Uint8Array(5000).fill(7);
  const state = loadKernel(image(bzImage(), { initrd }), p);
  assert.equal(state.mode, 'long64');
  assert.equal(state.rip, 0x1000200);
  assert.equal(p.mem.read(0x1000000, 1), 0x90);
  const zero = state.rsi;
  assert.equal(p.mem.read(zero + 0x1fe, 2), 0xaa55);
  assert.equal(p.mem.read(zero + 0x210, 1), 0xff);
  assert.equal(p.mem.read(zero + 0x21c, 4), 5000);
  const at = p.mem.read(zero + 0x218, 4);
  assert.equal(at % 4096, 0);
  assert.ok(at + 5000 <= RAM && at >= 0x1800000);
  assert.equal(p.mem.read(at, 1), 7);
  const line = p.mem.read(zero + 0x228, 4);
  assert.equal(p.mem.read(line + 13, 1), 0);
  assert.equal(p.mem.read(line, 1), 'c'.charCodeAt(0));
  assert.equal(p.mem.read(zero + 0x1e8, 1), p.e820.length);
  assert.equal(p.mem.read(zero + 0x2d0 + 20 + 8, 4), 0xa0000 - 0x9fc00);
  assert.equal(p.mem.read(zero + 0x70, 4), 0xf0000);
  // The last 2 MiB of the 4 GiB map to themselves.
  assert.equal(p.mem.read(state.cr3 + 0x6000 - 8, 4), 0xffe00083);
  assert.equal(p.mem.read(state.gdtBase + 0x10 + 4, 4), 0x00af9b00);
});

test('bzImage without a 64-bit entry starts in protected mode', () => {
  const p = place();
  const state = loadKernel(image(bzImage((view) => view.setUint16(0x236, 0, true))), p);
  assert.equal(state.mode, 'prot32');
  assert.equal(state.rip, 0x1000000);
  assert.equal(state.rsi, 0x10000);
  assert.equal(state.cr0 >>> 31, 0);
});

test('a kernel that does not fit where it wants to be is moved, if it can', () => {
  const p = place();
  const high = bzImage((view) => view.setUint32(0x258, 0x4000000, true));
  assert.equal(loadKernel(image(high), p).rip, 0x200200);
  high[0x234] = 0;
  assert.throws(() => loadKernel(image(high), p), /^Error: kernel k: needs 8388608 bytes/);
});

test('bad bzImages are refused in one line', () => {
  const p = place();
  const fails = (kernel: Uint8Array, extra: Partial<BootImage>, pattern: RegExp) => {
    assert.throws(
      () => loadKernel(image(kernel, extra), p),
      (error: Error) => pattern.test(error.message) && !error.message.includes('\n'),
    );
  };
  fails(new Uint8Array(0), {}, /^kernel k: not a Linux bzImage or PVH ELF/);
  fails(bzImage().slice(0, 0x600), {}, /truncated/);
  fails(
    bzImage((_, file) => (file[0x211] = 0)),
    {},
    /not a bzImage/,
  );
  fails(bzImage(), { commandLine: 'x'.repeat(101) }, /command line of 101 bytes/);
  fails(bzImage(), { initrd: new Uint8Array(60 * 2 ** 20) }, /initrd of \d+ bytes does not fit/);
  fails(
    bzImage((view) => view.setUint32(0x260, 0xffffffff, true)),
    {},
    /needs 4294967295 bytes/,
  );
});

function elf(change: (view: DataView) => void = () => undefined): Uint8Array {
  const file = new Uint8Array(0x1000);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
  view.setUint32(32, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 2, true);
  const header = (at: number, ...[type, offset, paddr, f, m]: number[]) => {
    view.setUint32(at, type!, true);
    view.setUint32(at + 8, offset!, true);
    view.setUint32(at + 24, paddr!, true);
    view.setUint32(at + 32, f!, true);
    view.setUint32(at + 40, m!, true);
  };
  header(64, 1, 0x800, 0x1000000, 0x100, 0x2000);
  header(120, 4, 0x200, 0, 40, 40);
  // A foreign note first, then the one with the entry.
  view.setUint32(0x200, 3, true);
  view.setUint32(0x204, 0, true);
  view.setUint32(0x210, 4, true);
  view.setUint32(0x214, 8, true);
  view.setUint32(0x218, 18, true);
  view.setUint32(0x21c, 0x006e6558, true);
  view.setUint32(0x220, 0x1000050, true);
  file.fill(0xcc, 0x800, 0x900);
  change(view);
  return file;
}

test('PVH: entry by note, start info, zeroed bss', () => {
  const p = place();
  p.mem.write(0x1001fff, 1, 0xff);
  const state = loadKernel(image(elf(), { initrd: Uint8Array.of(1, 2, 3) }), p);
  assert.equal(state.mode, 'prot32');
  assert.equal(state.rip, 0x1000050);
  assert.equal(p.mem.read(0x1000000, 1), 0xcc);
  assert.equal(p.mem.read(0x1001fff, 1), 0);
  const info = state.rbx;
  assert.equal(p.mem.read(info, 4), 0x336ec578);
  assert.equal(p.mem.read(info + 12, 4), 1);
  const module = p.mem.read(info + 16, 4);
  assert.equal(p.mem.read(module + 8, 4), 3);
  assert.equal(p.mem.read(p.mem.read(module, 4), 4) & 0xffffff, 0x030201);
  assert.equal(p.mem.read(info + 32, 4), 0xf0000);
  assert.equal(p.mem.read(info + 48, 4), p.e820.length);
});

test('bad ELF files are refused', () => {
  const p = place();
  const fails = (change: (view: DataView) => void, pattern: RegExp) => {
    assert.throws(() => loadKernel(image(elf(change)), p), pattern);
  };
  fails((v) => v.setUint32(0x218, 17, true), /no PVH entry note/);
  fails((v) => v.setUint32(32, 0xfff0, true), /program headers lie outside/);
  fails((v) => v.setUint32(64 + 32, 0xffffffff, true), /segment 0 lies outside the file/);
  fails((v) => v.setUint32(64 + 40, 0x7fffffff, true), /does not fit into RAM/);
  fails((v) => v.setUint32(64 + 24, 0x1000, true), /does not fit into RAM/);
  fails((v) => v.setUint32(0x204, 0xfffffff0, true), /no PVH entry note/);
});
