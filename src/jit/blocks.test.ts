/** What goes when bytes of code are written to. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { BlockTable, PAGE_HAS_CODE } from './blocks.ts';
import type { Block, Region } from './blocks.ts';
import { CELLS, CELL_FUNCTION, CELL_SIZE, FN_DISPATCH, FN_INTERPRETER, FN_LOOKUP } from './layout.ts';

const buffer = new ArrayBuffer(CELLS + 0x10000);
const words = new Int32Array(buffer);
let flags: Uint8Array;
let table: BlockTable;

beforeEach(() => {
  flags = new Uint8Array(64);
  table = new BlockTable(buffer, flags);
});

function put(block: Block, length: number): Block {
  block.length = length;
  block.ip = 0x2000000 + block.id * 64;
  table.installed(block);
  return block;
}

const make = (page: number, offset: number, length: number, mode = 0): Block => put(table.get(page, offset, mode), length);
const functionOf = (block: Block): number => words[(block.cell + CELL_FUNCTION) >> 2]!;

function makeRegion(entry: Block, ranges: number[], slot = 20): Region {
  const region: Region = { entry, slot, ranges, entries: 0, alive: true };
  entry.region = region;
  table.addRegion(region);
  table.setCell(entry.cell, slot, 0);
  return region;
}

test('a block is found by place and mode, and keeps its cell', () => {
  const block = make(1, 0x10, 8);
  assert.equal(table.get(1, 0x10, 0), block);
  assert.notEqual(table.get(1, 0x10, 5), block);
  assert.equal(table.find(1, 0x11, 0), undefined);
  assert.equal(table.find(9, 0, 0), undefined);
  const { cell } = block;
  assert.equal(functionOf(block), FN_INTERPRETER);
  table.invalidate(0x1010, 1);
  assert.equal(functionOf(block), FN_LOOKUP);
  put(block, 8);
  assert.equal(block.cell, cell);
});

test('a write drops what it touches and nothing else', () => {
  for (const [start, length, hit] of [
    [0x1000, 0x10, []],
    [0x1000, 0x11, [0]],
    [0x1017, 1, [0]],
    [0x1018, 8, []],
    [0x101f, 2, [1]],
    [0x1000, 4096, [0, 1]],
    [0xf00, 0x200, [0, 1]],
    [0x2000, 4096, []],
    [0x0, 0x1011, [0]],
  ] as const) {
    const blocks = [make(1, 0x10, 8), make(1, 0x20, 8)];
    assert.equal(table.invalidate(start, length), hit.length > 0, `${start.toString(16)}+${length}`);
    blocks.forEach((block, i) => assert.equal(block.ip === 0, (hit as readonly number[]).includes(i)));
    table.invalidate(0x1000, 4096);
    assert.equal(flags[1], 0);
  }
});

test('a page is watched while it has code', () => {
  const block = table.get(1, 0, 0);
  block.ip = 64;
  block.length = 4;
  assert.deepEqual(table.installed(block), [1]);
  assert.equal(flags[1], PAGE_HAS_CODE);
  const other = table.get(1, 8, 0);
  other.ip = 128;
  other.length = 4;
  assert.deepEqual(table.installed(other), []);
  table.invalidate(0x1000, 1);
  assert.equal(flags[1], PAGE_HAS_CODE);
  table.invalidate(0x1008, 1);
  assert.equal(flags[1], 0);
});

test('an instruction across pages goes with either page, each variant alone', () => {
  const block = table.get(1, 0xffe, 0);
  const [first, second] = [table.variant(block, 2), table.variant(block, 3)];
  put(first, 4);
  put(second, 4);
  assert.equal(table.variant(block, 2), first);
  assert.equal(functionOf(block), FN_DISPATCH);
  assert.deepEqual([flags[1], flags[2], flags[3]], [1, 1, 1]);
  table.invalidate(0x2002, 1);
  assert.ok(first.ip !== 0);
  table.invalidate(0x2001, 1);
  assert.equal(first.ip, 0);
  assert.ok(second.ip !== 0);
  assert.deepEqual([flags[1], flags[2], flags[3]], [1, 0, 1]);
  put(first, 4);
  table.invalidate(0x1ffe, 1);
  assert.deepEqual([first.ip, second.ip], [0, 0]);
  assert.deepEqual([flags[1], flags[2], flags[3]], [0, 0, 0]);
});

test('a block that once ended in its page must be forgotten by place before its cell dispatches', () => {
  const told: Block[] = [];
  table.onCrossing = (one) => told.push(one);
  const block = make(1, 0xffe, 2);
  table.invalidate(0x1ffe, 1);
  table.variant(block, 2);
  assert.equal(functionOf(block), FN_DISPATCH);
  table.variant(block, 3);
  assert.deepEqual(told, [block], 'once');
});

test('a region goes with any of its bytes; its entry goes back to the interpreter or with them', () => {
  const entry = make(1, 0x10, 8);
  make(2, 0x100, 8);
  make(2, 0x200, 8);
  const region = makeRegion(entry, [1, 0x10, 0x18, 2, 0x100, 0x180]);
  assert.equal(table.invalidate(0x2180, 4), false);
  assert.equal(functionOf(entry), 20);
  assert.equal(table.invalidate(0x2150, 4), true);
  assert.equal(region.alive, false);
  assert.equal(functionOf(entry), FN_INTERPRETER);
  assert.ok(entry.ip !== 0 && entry.region === null);
  const again = makeRegion(entry, [1, 0x10, 0x18, 2, 0x100, 0x180], 21);
  assert.equal(table.invalidate(0x1010, 1), true);
  assert.equal(again.alive, false);
  assert.equal(functionOf(entry), FN_LOOKUP);
  assert.equal(flags[1], 0);
  assert.equal(flags[2], PAGE_HAS_CODE);
  table.invalidate(0x2000, 4096);
  assert.equal(flags[2], 0);
});

test('a page that is written beside its code again and again loses it', () => {
  const block = make(1, 0, 4);
  for (let i = 0; i < 100 && block.ip !== 0; i++) table.invalidate(0x1800, 4);
  assert.equal(block.ip, 0);
  assert.equal(flags[1], 0);
  put(block, 4);
  assert.equal(table.invalidate(0x1800, 4), false, 'and counts anew');
});

test('code that goes with its page comes back if its bytes are the same, and is borne with longer', () => {
  const bytes = new Uint8Array(buffer);
  bytes.set([1, 2, 3, 4], 0x1000);
  const block = make(1, 0, 4);
  table.invalidate(0x1800, 4);
  table.invalidate(0x1000, 4);
  assert.equal(table.revive(block), false, 'nothing was kept while the page was clean');
  put(block, 4);
  const { ip } = block;
  const drop = (): number => {
    let writes = 0;
    for (; writes < 1000 && block.ip !== 0; writes++) table.invalidate(0x1800, 4);
    return writes;
  };
  const first = drop();
  assert.equal(table.revive(block), true);
  assert.equal(block.ip, ip);
  table.installed(block);
  assert.equal(functionOf(block), FN_INTERPRETER);
  assert.ok(drop() > first);
  bytes[0x1002] = 9;
  assert.equal(table.revive(block), false, 'other code');
});

test('bytes whose code has gone are data', () => {
  make(1, 0x100, 4);
  const block = make(1, 0, 4);
  assert.equal(table.invalidate(0x1000, 4), true);
  const { changes } = table;
  assert.equal(table.invalidate(0x1000, 4), false);
  assert.equal(table.invalidate(0x1000, 4), false);
  assert.equal(table.changes, changes + 1);
  put(block, 4);
  assert.equal(table.invalidate(0x1000, 4), true);
});

test('all is forgotten', () => {
  const left = table.cellsLeft;
  makeRegion(make(1, 0, 4), [1, 0, 4]);
  make(2, 0, 4);
  assert.equal(table.cellsLeft, left - 2);
  table.clear();
  assert.deepEqual([flags[1], flags[2], table.all.length, table.cellsLeft], [0, 0, 0, left]);
  assert.equal(make(1, 0, 4).cell % CELL_SIZE, 0);
});
