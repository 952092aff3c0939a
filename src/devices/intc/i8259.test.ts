import assert from 'node:assert/strict';
import { test } from 'node:test';
import { I8259Pair } from './i8259.ts';

function ready(icw4 = 1): I8259Pair {
  const pic = new I8259Pair();
  for (const [chip, base, icw3] of [
    [pic.master, 0x20, 4],
    [pic.slave, 0x28, 2],
  ] as const) {
    chip.write(0, 1, 0x11);
    chip.write(1, 1, base);
    chip.write(1, 1, icw3);
    chip.write(1, 1, icw4);
    chip.write(1, 1, 0);
  }
  return pic;
}

test('nothing is requested before initialisation', () => {
  const pic = new I8259Pair();
  pic.line(0).set(true);
  assert.equal(pic.intr, false);
});

test('lower inputs go first and block higher ones until EOI', () => {
  const pic = ready();
  pic.line(4).set(true);
  pic.line(1).set(true);
  assert.equal(pic.acknowledge(), 0x21);
  assert.equal(pic.intr, false);
  pic.line(0).set(true);
  assert.equal(pic.acknowledge(), 0x20);
  pic.master.write(0, 1, 0x20);
  assert.equal(pic.intr, false, 'input 1 is still in service');
  pic.master.write(0, 1, 0x20);
  assert.equal(pic.acknowledge(), 0x24);
});

test('an edge counts once; a level stays', () => {
  const pic = ready();
  const edge = pic.line(3);
  edge.set(true);
  assert.equal(pic.acknowledge(), 0x23);
  pic.master.write(0, 1, 0x20);
  assert.equal(pic.intr, false);
  pic.elcr.write(1, 1, 0x08);
  const level = pic.line(11);
  level.set(true);
  assert.equal(pic.acknowledge(), 0x2b);
  pic.slave.write(0, 1, 0x20);
  pic.master.write(0, 1, 0x20);
  assert.equal(pic.intr, true);
  level.set(false);
  assert.equal(pic.intr, false);
});

test('the slave comes in by input 2, and its in-service bits block it', () => {
  const pic = ready();
  pic.line(12).set(true);
  assert.equal(pic.acknowledge(), 0x2c);
  pic.line(8).set(true);
  assert.equal(pic.intr, false, 'without special fully nested mode the cascade is in service');
  pic.slave.write(0, 1, 0x20);
  pic.master.write(0, 1, 0x20);
  assert.equal(pic.acknowledge(), 0x28);
});

test('rotation puts the ended input last', () => {
  const pic = ready();
  pic.line(2 + 1).set(true);
  assert.equal(pic.acknowledge(), 0x23);
  pic.master.write(0, 1, 0xa0);
  pic.line(1).set(true);
  pic.line(4).set(true);
  assert.equal(pic.acknowledge(), 0x24);
  pic.master.write(0, 1, 0xc0 | 7);
  pic.master.write(0, 1, 0x60 | 4);
  assert.equal(pic.acknowledge(), 0x21);
});

test('automatic EOI leaves nothing in service', () => {
  const pic = ready(3);
  pic.line(5).set(true);
  assert.equal(pic.acknowledge(), 0x25);
  pic.master.write(0, 1, 0x0b);
  assert.equal(pic.master.read(0, 1), 0);
});

test('special mask mode lets lower priorities in', () => {
  const pic = ready();
  pic.line(1).set(true);
  pic.acknowledge();
  pic.line(6).set(true);
  assert.equal(pic.intr, false);
  pic.master.write(1, 1, 0x02);
  pic.master.write(0, 1, 0x68);
  assert.equal(pic.acknowledge(), 0x26);
});

test('a request that goes before its acknowledge turns spurious', () => {
  const pic = ready();
  pic.line(3).set(true);
  pic.line(3).set(false);
  assert.equal(pic.intr, false);
  assert.equal(pic.acknowledge(), 0x27);
  pic.master.write(0, 1, 0x0b);
  assert.equal(pic.master.read(0, 1), 0, 'nothing is in service');
});

test('a poll acknowledges', () => {
  const pic = ready();
  pic.line(6).set(true);
  pic.master.write(0, 1, 0x0c);
  assert.equal(pic.master.read(0, 1), 0x86);
  pic.master.write(0, 1, 0x0c);
  assert.equal(pic.master.read(0, 1), 0);
});

test('masking, IRR read-back, ELCR bits that do not exist', () => {
  const pic = ready();
  pic.master.write(1, 1, 0xff);
  pic.line(7).set(true);
  assert.equal(pic.intr, false);
  pic.master.write(0, 1, 0x0a);
  assert.equal(pic.master.read(0, 1), 0x80);
  pic.elcr.write(0, 1, 0xff);
  assert.equal(pic.elcr.read(0, 1), 0xf8);
});

test('state goes round, and a bad one is refused by name', () => {
  const pic = ready();
  pic.line(4).set(true);
  const copy = new I8259Pair();
  copy.loadState(pic.saveState());
  assert.equal(copy.acknowledge(), 0x24);
  const bad = pic.saveState();
  delete bad.fields.slave;
  assert.throws(() => copy.loadState(bad), /pic: field "slave" is missing/);
});
