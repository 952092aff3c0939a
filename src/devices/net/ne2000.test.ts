import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IoHandler } from '../../machine/interfaces.ts';
import { RecordingLine } from '../mocks.ts';
import { Ne2kIsa } from './ne2000.ts';
import { TestNetwork } from './test-network.ts';

const MAC = [0x52, 0x54, 0, 1, 2, 3];
/** Registers of page 0 by the data sheet's names; page 1 where it is said. */
const R = {
  CR: 0,
  PSTART: 1,
  PSTOP: 2,
  BNRY: 3,
  TPSR: 4,
  TBCR: 5,
  ISR: 7,
  RSAR: 8,
  RBCR: 10,
  RCR: 12,
  TCR: 13,
  DCR: 14,
  IMR: 15,
  CURR: 7,
} as const;
const DATA = 0x10;
const RESET = 0x1f;
const [FIRST, START, STOP] = [0x40, 0x46, 0x60] as const;

function start() {
  const irq = new RecordingLine();
  const network = new TestNetwork();
  let ports: IoHandler | null = null;
  const bus = {
    register(base: number, count: number, handler: IoHandler) {
      assert.deepEqual([base, count], [0x300, 32]);
      ports = handler;
      return { remove: () => undefined };
    },
  };
  const card = new Ne2kIsa({ id: 'ne', backend: network, mac: Uint8Array.from(MAC) }, { ports: bus, base: 0x300, irq });
  const read = (at: number, size = 1): number => ports!.read(at, size);
  const write = (at: number, value: number, size = 1): void => ports!.write(at, size, value);
  const write16 = (at: number, value: number): void => {
    write(at, value & 0xff);
    write(at + 1, value >> 8);
  };
  const dma = (command: number, address: number, count: number): void => {
    write16(R.RSAR, address);
    write16(R.RBCR, count);
    write(R.CR, command | 2);
  };
  const fetch = (address: number, count: number): Uint8Array => {
    dma(0x08, address, count);
    return Uint8Array.from({ length: count }, (_, i) => (i % 2 === 0 ? read(DATA, 2) : 0));
  };
  /** As drivers set it up: words, frames for it and for all. */
  const open = (): void => {
    write(R.CR, 0x21);
    write(R.DCR, 0x49);
    write(R.RCR, 0x04);
    for (const [at, value] of [
      [R.PSTART, START],
      [R.PSTOP, STOP],
      [R.BNRY, START],
      [R.ISR, 0xff],
      [R.IMR, 0x3f],
    ] as const)
      write(at, value);
    write(R.CR, 0x61);
    MAC.forEach((byte, i) => write(1 + i, byte));
    write(R.CURR, START + 1);
    write(R.CR, 0x22);
  };
  const current = (): number => {
    write(R.CR, 0x62);
    const page = read(R.CURR);
    write(R.CR, 0x22);
    return page;
  };
  return { irq, network, card, read, write, write16, dma, fetch, open, current };
}

function frame(length: number): Uint8Array {
  const bytes = new Uint8Array(length).fill(0x77);
  bytes.set(MAC);
  return bytes;
}

test('a reset is seen, and the address, each byte of it twice', () => {
  const { read, write, dma } = start();
  read(RESET);
  assert.equal(read(R.ISR), 0x80);
  write(R.DCR, 0x48);
  dma(0x08, 0, 32);
  const bytes = Array.from({ length: 32 }, () => read(DATA));
  assert.deepEqual(
    bytes.slice(0, 12),
    MAC.flatMap((byte) => [byte, byte]),
  );
  assert.deepEqual(bytes.slice(28), [0x57, 0x57, 0x57, 0x57]);
  assert.equal(read(R.ISR) & 0xc0, 0x40, 'all has been moved');
});

test('a frame is put into memory and sent, once the network takes it', () => {
  const { irq, network, read, write, write16, dma, open } = start();
  open();
  const sent = frame(100);
  dma(0x10, FIRST * 256, 100);
  for (let i = 0; i < 100; i += 4) write(DATA, sent[i]! | (sent[i + 1]! << 8) | (sent[i + 2]! << 16) | (sent[i + 3]! << 24), 4);
  assert.equal(read(R.ISR), 0x40);
  write(R.ISR, 0x40);
  network.room = 0;
  write(R.TPSR, FIRST);
  write16(R.TBCR, 100);
  write(R.CR, 0x26);
  assert.equal(read(R.CR) & 4, 4, 'on its way');
  network.room = 1;
  network.onWritable!();
  assert.equal(read(R.CR) & 4, 0);
  assert.deepEqual(network.sent[0]!.frame, sent);
  assert.equal(irq.level, true);
  write(R.ISR, 2);
  assert.equal(irq.level, false);
});

test('frames lie in the ring one behind the other, and wait while it is full', () => {
  const { irq, network, write, fetch, open, current } = start();
  open();
  assert.equal(network.onReceive!(frame(300), null), true);
  assert.equal(current(), START + 3);
  const header = fetch((START + 1) * 256, 4);
  assert.deepEqual([header[0]! & 0xff, header[2]! & 0xff], [1, 304 & 0xff]);
  assert.equal(irq.level, true);
  for (let i = 0; i < 3; i++) assert.equal(network.onReceive!(frame(1514), null), true);
  assert.equal(network.onReceive!(frame(1514), null), false, 'no room for it and a page between');
  write(R.BNRY, START + 8);
  assert.equal(network.resumed, 1);
  assert.equal(network.onReceive!(frame(1514), null), true);
  assert.equal(current(), START + 1, 'round the end');
});

test('no more frames come at a time than drivers look at', () => {
  const { network, write, open } = start();
  open();
  let count = 0;
  while (network.onReceive!(frame(60), null)) count++;
  assert.equal(count, 8);
  write(R.ISR, 1);
  assert.equal(network.resumed, 1);
  assert.equal(network.onReceive!(frame(60), null), true);
});

test('rings and places that make no sense hold nothing', () => {
  const { network, write, write16, open } = start();
  open();
  write(R.TPSR, 0xff);
  write16(R.TBCR, 0xffff);
  write(R.CR, 0x26);
  assert.equal(network.sent.length, 0);
  for (const [first, last] of [
    [0x60, 0x40],
    [0, 0],
    [0xf0, 0xff],
    [0, 0xff],
  ] as const) {
    write(R.PSTART, first);
    write(R.PSTOP, last);
    assert.equal(network.onReceive!(frame(1514), null), true);
  }
});

test('state is kept', () => {
  const { card, network, open, current } = start();
  open();
  network.onReceive!(frame(300), null);
  const saved = card.saveState();
  card.reset();
  card.loadState(saved);
  assert.equal(current(), START + 3);
});
