import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NO_OFFLOADS } from '../../machine/interfaces.ts';
import { FlatMemory, ManualClock } from '../mocks.ts';
import { E1000 } from './e1000.ts';
import { busOfNames, TestNetwork as Network } from './test-network.ts';

const MAC = [0x52, 0x54, 0, 1, 2, 3];
/** Registers by the manual's names. */
const R = {
  ...{ CTRL: 0, STATUS: 8, EECD: 0x10, EERD: 0x14, MDIC: 0x20, ICR: 0xc0, ITR: 0xc4, ICS: 0xc8, IMS: 0xd0, IMC: 0xd8 },
  ...{ RCTL: 0x100, TCTL: 0x400, RDBAL: 0x2800, RDLEN: 0x2808, RDH: 0x2810, RDT: 0x2818 },
  ...{ TDBAL: 0x3800, TDBAH: 0x3804, TDLEN: 0x3808, TDH: 0x3810, TDT: 0x3818, GPRC: 0x4074, GPTC: 0x4080, GOTCL: 0x4090 },
  ...{ MTA: 0x5200, VFTA: 0x5600 },
} as const;
const [TX, RX, BUFFERS, DATA] = [0x1000, 0x2000, 0x10000, 0x40000] as const;
const RING = 8;

function start() {
  const memory = new FlatMemory(1 << 20);
  const clock = new ManualClock();
  const network = new Network();
  const { bus, handlers } = busOfNames();
  const make = (id: string) => new E1000({ id, memory, clock, backend: network, mac: Uint8Array.from(MAC), mitigation: true });
  const card = make('nic0');
  bus.plug(card, 3);
  card.configWrite(0x10, 4, 0xfe000000);
  card.configWrite(0x14, 4, 0xc000);
  card.configWrite(4, 2, 7);
  const line = () => bus.level(2);
  const read = (offset: number): number => handlers.get('e1000-mmio')!.read(offset, 4) >>> 0;
  const write = (offset: number, value: number): void => handlers.get('e1000-mmio')!.write(offset, 4, value >>> 0);
  const view = new DataView(memory.bytes.buffer);
  let tail = 0;
  /** Puts a descriptor at the transmit ring's tail. */
  const put = (low: number, high: number, command: number, last: number): void => {
    [low, high, command, last].forEach((word, i) => view.setUint32(TX + 16 * tail + 4 * i, word, true));
    tail = (tail + 1) % RING;
  };
  const go = (): void => write(R.TDT, tail);
  write(R.TDBAL, TX);
  write(R.TDLEN, 16 * RING);
  write(R.TCTL, 2);
  for (let i = 0; i < RING; i++) view.setUint32(RX + 16 * i, BUFFERS + 2048 * i, true);
  write(R.RDBAL, RX);
  write(R.RDLEN, 16 * RING);
  write(R.RDT, RING - 1);
  return { memory, clock, network, card, make, line, read, write, view, put, go, ports: handlers.get('e1000-io')! };
}

const bytes = (length: number, to: readonly number[] = MAC): Uint8Array => Uint8Array.from({ length }, (_, i) => to[i] ?? i);
const CMD = { eop: 1 << 24, ic: 4 << 24, tse: 4 << 24, rs: 8 << 24, ext: 0x20 << 24, vle: 0x40 << 24, data: 1 << 20 };

/** A TCP segment in IPv4, whose sums are as a driver leaves them for cutting or for a checksum. */
function tcp(payload: number): Uint8Array {
  const frame = new Uint8Array(54 + payload);
  frame.set([...MAC, 2, 0, 0, 0, 0, 9, 8, 0, 0x45, 0, 0, 0, 0, 7, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
  frame.set([0, 1, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0x50, 0x19], 34);
  // The pseudo-header without the length: 0a00 + 0001 + 0a00 + 0002 + 6.
  frame.set([0x14, 0x09], 50);
  for (let i = 0; i < payload; i++) frame[54 + i] = i;
  return frame;
}

function sum(data: Uint8Array, from = 0): number {
  let total = from;
  data.forEach((byte, i) => (total += i % 2 === 0 ? byte << 8 : byte));
  while (total > 0xffff) total = (total & 0xffff) + (total >> 16);
  return total;
}

test('the EEPROM holds the address and adds up, by its wires and by the quick register', () => {
  const { read, write } = start();
  const fast = (address: number): number => {
    write(R.EERD, (address << 8) | 1);
    assert.equal(read(R.EERD) & 0x10, 0x10);
    return read(R.EERD) >>> 16;
  };
  const wires = (address: number): number => {
    write(R.EECD, 0x40);
    assert.equal(read(R.EECD) & 0x180, 0x180);
    const clock = (bit: number): number => {
      write(R.EECD, 0x42 | (bit << 2));
      write(R.EECD, 0x43 | (bit << 2));
      const out = (read(R.EECD) >> 3) & 1;
      write(R.EECD, 0x42 | (bit << 2));
      return out;
    };
    for (let i = 8; i >= 0; i--) clock((((6 << 6) | address) >> i) & 1);
    let word = 0;
    for (let i = 0; i < 16; i++) word = (word << 1) | clock(0);
    write(R.EECD, 0);
    return word;
  };
  const words = Array.from({ length: 64 }, (_, i) => fast(i));
  assert.deepEqual(words.slice(0, 3), [0x5452, 0x0100, 0x0302]);
  assert.equal(words.reduce((a, b) => a + b) & 0xffff, 0xbaba);
  assert.deepEqual(
    Array.from({ length: 64 }, (_, i) => wires(i)),
    words,
  );
});

test('the PHY is a Marvell whose link is up until the cable is pulled', () => {
  const { read, write, network } = start();
  const phy = (register: number): number => {
    write(R.MDIC, (2 << 26) | (1 << 21) | (register << 16));
    assert.equal(read(R.MDIC) >>> 28, 1);
    return read(R.MDIC) & 0xffff;
  };
  assert.deepEqual([phy(2), phy(3), phy(1) & 0x24], [0x0141, 0x0c20, 0x24]);
  assert.equal(read(R.STATUS) & 0xc3, 0x83);
  network.linkUp = false;
  network.onLinkChange!(false);
  assert.equal(read(R.ICR), 4);
  assert.deepEqual([read(R.STATUS) & 2, phy(1) & 0x24], [0, 0]);
  write(R.MDIC, (2 << 26) | (5 << 21));
  assert.equal((read(R.MDIC) >>> 30) & 1, 1, 'nobody at another address');
});

test('registers are reached by ports, and reset there', () => {
  const { ports, read, write } = start();
  write(R.IMS, 0x55);
  ports.write(0, 4, R.IMS);
  assert.equal(ports.read(4, 4), 0x55);
  ports.write(0, 4, R.CTRL);
  ports.write(4, 4, 1 << 26);
  assert.deepEqual([read(R.IMS), read(R.CTRL) & (1 << 26), read(R.RDLEN)], [0, 0, 0]);
  ports.write(0, 4, 0xfffffffc);
  assert.equal(ports.read(4, 4), 0);
});

test('frames of legacy descriptors go out, are reported, and interrupt', () => {
  const { memory, network, put, go, write, read, line, view } = start();
  const frame = bytes(100);
  memory.bytes.set(frame, DATA);
  write(R.IMS, 1);
  put(DATA, 0, 40 | CMD.rs, 0);
  go();
  assert.equal(network.sent.length, 0, 'its end is yet to come');
  put(DATA + 40, 0, 60 | CMD.eop | CMD.rs, 0);
  go();
  assert.deepEqual(network.sent, [{ frame, offload: null }]);
  assert.deepEqual([view.getUint8(TX + 12), view.getUint8(TX + 28), read(R.TDH)], [1, 1, 2]);
  assert.equal(line(), true);
  assert.equal(read(R.ICR), 3);
  assert.equal(line(), false);
  assert.deepEqual([read(R.GPTC), read(R.GPTC), read(R.GOTCL)], [1, 0, 104]);
});

test('a legacy checksum is put where it belongs, and not into memory', () => {
  const { memory, network, put, go } = start();
  memory.bytes.set(bytes(64), DATA);
  put(DATA, 0, 64 | (50 << 16) | CMD.eop | CMD.ic, 34 << 8);
  go();
  const { frame } = network.sent[0]!;
  assert.equal((frame[50]! << 8) | frame[51]!, ~sum(bytes(64).subarray(34)) & 0xffff);
  assert.deepEqual(memory.bytes.slice(DATA, DATA + 64), bytes(64));
});

test('a checksum is left to a network that sums, and done for one that does not', () => {
  const { memory, network, put, go } = start();
  const frame = tcp(101);
  memory.bytes.set(frame, DATA);
  const one = (): void => {
    put(14 | (24 << 8) | (33 << 16), 34 | (50 << 8), CMD.ext, 0);
    put(DATA, 0, frame.length | CMD.data | CMD.ext | CMD.eop, 2 << 8);
    go();
  };
  one();
  assert.deepEqual(network.sent[0], {
    frame,
    offload: { checksumStart: 34, checksumOffset: 16, gso: 0, headerLength: 0, segmentSize: 0 },
  });
  network.offloads = NO_OFFLOADS;
  one();
  const done = network.sent[1]!;
  assert.equal(done.offload, null);
  assert.equal((done.frame[50]! << 8) | done.frame[51]!, ~sum(frame.subarray(34)) & 0xffff);
});

test('a large segment goes to a network that cuts in one piece, with lengths and sums of the whole', () => {
  const { memory, network, put, go } = start();
  const frame = tcp(5000);
  memory.bytes.set(frame, DATA);
  put(14 | (24 << 8) | (33 << 16), 34 | (50 << 8), 5000 | CMD.ext | CMD.tse | (3 << 24), (54 << 8) | (1460 << 16));
  put(DATA, 0, 54 | CMD.data | CMD.ext | CMD.tse, 3 << 8);
  put(DATA + 54, 0, 5000 | CMD.data | CMD.ext | CMD.tse | CMD.eop, 0);
  go();
  const { frame: got, offload } = network.sent[0]!;
  assert.deepEqual(offload, { checksumStart: 34, checksumOffset: 16, gso: 1, headerLength: 54, segmentSize: 1460 });
  assert.equal((got[16]! << 8) | got[17]!, 5040);
  assert.equal(sum(got.subarray(14, 34)), 0xffff);
  assert.equal((got[50]! << 8) | got[51]!, 0x1409 + 5020);
  assert.deepEqual(got.subarray(54), frame.subarray(54));
});

test('a large segment is cut here for another network, and goes on where that was full', () => {
  const { memory, network, put, go, read } = start();
  network.offloads = NO_OFFLOADS;
  network.room = 2;
  const frame = tcp(3000);
  memory.bytes.set(frame, DATA);
  put(14 | (24 << 8) | (33 << 16), 34 | (50 << 8), 3000 | CMD.ext | CMD.tse | (3 << 24), (54 << 8) | (1460 << 16));
  put(DATA, 0, 3054 | CMD.data | CMD.ext | CMD.tse | CMD.eop, 3 << 8);
  go();
  assert.deepEqual([network.sent.length, read(R.TDH)], [2, 1]);
  network.room = Infinity;
  network.onWritable!();
  assert.equal(read(R.TDH), 2);
  const pieces = network.sent.map((one) => one.frame);
  assert.deepEqual(
    pieces.map(({ length }) => length - 54),
    [1460, 1460, 80],
  );
  pieces.forEach((piece, i) => {
    const view = new DataView(piece.buffer);
    assert.deepEqual([view.getUint16(16), view.getUint16(18)], [piece.length - 14, 7 + i]);
    assert.equal(view.getUint32(38), 0x100 + 1460 * i);
    assert.equal(piece[47], i === 2 ? 0x19 : 0x10);
    assert.equal(sum(piece.subarray(14, 34)), 0xffff);
    assert.equal(sum(piece.subarray(34), sum(piece.subarray(26, 34), 6 + piece.length - 34)), 0xffff);
  });
});

test('frames come into buffers, as long as a wire makes them, and interrupt', () => {
  const { memory, network, write, read, line, view } = start();
  write(R.RCTL, 2 | (1 << 26));
  write(R.IMS, 0x80);
  assert.equal(network.onReceive!(bytes(42), null), true);
  assert.deepEqual([view.getUint16(RX + 8, true), view.getUint8(RX + 12), read(R.RDH)], [60, 7, 1]);
  assert.deepEqual(memory.bytes.slice(BUFFERS, BUFFERS + 42), bytes(42));
  assert.equal(line(), true);
  write(R.IMC, 0x80);
  assert.equal(line(), false);
  assert.equal(read(R.GPRC), 1);
});

test('long frames take several buffers, and what finds none is refused until there are some', () => {
  const { network, write, read, view } = start();
  // Buffers of 256 bytes.
  write(R.RCTL, 2 | (1 << 5) | (3 << 16) | (1 << 26));
  assert.equal(network.onReceive!(bytes(600), null), true);
  assert.deepEqual(
    [0, 1, 2].map((i) => [view.getUint16(RX + 16 * i + 8, true), view.getUint8(RX + 16 * i + 12)]),
    [
      [256, 1],
      [256, 1],
      [88, 7],
    ],
  );
  assert.equal(network.onReceive!(bytes(1500), null), false);
  assert.equal(read(R.RDH), 3);
  write(R.RDT, 2);
  assert.equal(network.resumed, 1);
  assert.equal(network.onReceive!(bytes(1500), null), true);
  assert.equal(network.onReceive!(bytes(5000), null), true, 'never fits: lost');
});

test('filters: own address, broadcast, groups by hash, VLANs, whose tags are taken out', () => {
  const { network, write, read, view } = start();
  const come = (to: readonly number[], ...type: number[]): boolean => {
    const frame = bytes(64, to);
    frame.set(type, 12);
    const before = read(R.RDH);
    network.onReceive!(frame, null);
    write(R.RDT, (read(R.RDH) + RING - 1) % RING);
    return read(R.RDH) !== before;
  };
  write(R.RCTL, 2);
  const everybody = [255, 255, 255, 255, 255, 255];
  const group = [1, 0, 0x5e, 0, 0x12, 0x34];
  assert.deepEqual([come(MAC), come([2, 1, 1, 1, 1, 1]), come(everybody), come(group)], [true, false, false, false]);
  write(R.RCTL, 2 | (1 << 15));
  assert.equal(come(everybody), true);
  const hash = 0x3412 >> 4;
  write(R.MTA + 4 * (hash >> 5), 2 ** (hash & 31));
  assert.equal(come(group), true);
  write(R.RCTL, 2 | (1 << 18));
  assert.equal(come(MAC, 0x81, 0, 0, 5), false);
  write(R.VFTA, 1 << 5);
  write(R.CTRL, 1 << 30);
  const at = RX + 16 * read(R.RDH);
  assert.equal(come(MAC, 0x81, 0, 0x20, 5), true);
  assert.deepEqual([view.getUint16(at + 8, true), view.getUint16(at + 14, true), view.getUint8(at + 12) & 8], [64, 0x2005, 8]);
});

test('a tag is put in on the way out', () => {
  const { memory, network, put, go, write } = start();
  memory.bytes.set(bytes(64), DATA);
  write(R.CTRL, 1 << 30);
  put(DATA, 0, 64 | CMD.eop | CMD.vle, 0x2005 << 16);
  go();
  assert.deepEqual([...network.sent[0]!.frame.subarray(10, 18)], [10, 11, 0x81, 0, 0x20, 5, 12, 13]);
});

test('what the PHY loops back is received and never sent', () => {
  const { memory, network, put, go, write, read } = start();
  memory.bytes.set(bytes(64), DATA);
  write(R.RCTL, 2 | (3 << 6) | (1 << 26));
  write(R.MDIC, (1 << 26) | (1 << 21) | 0x4140);
  put(DATA, 0, 64 | CMD.eop, 0);
  go();
  assert.deepEqual([network.sent.length, read(R.RDH)], [0, 1]);
  assert.deepEqual(memory.bytes.slice(BUFFERS, BUFFERS + 64), bytes(64));
});

test('interrupts come no faster than the driver says', () => {
  const { write, read, line, clock } = start();
  write(R.ITR, 100);
  write(R.IMS, 4);
  write(R.ICS, 4);
  assert.equal(line(), true);
  read(R.ICR);
  write(R.ICS, 4);
  assert.equal(line(), false);
  clock.run(100 * 256);
  assert.equal(line(), true);
});

test('hostile rings and descriptors do no harm', () => {
  const { memory, network, put, go, write, read, clock } = start();
  put(0xfffff000, 0xffffffff, 100 | CMD.eop | CMD.rs, 0);
  put(DATA, 0, 0xfffff | CMD.data | CMD.ext | CMD.eop, 3 << 8);
  // Cutting by a context of zeros, and checksums beyond the end.
  put(DATA, 0, 100 | CMD.data | CMD.ext | CMD.tse | CMD.eop, 3 << 8);
  put(255 | (255 << 8), 255 | (255 << 8) | (1 << 16), CMD.ext, 0);
  put(DATA, 0, 60 | CMD.data | CMD.ext | CMD.eop, 3 << 8);
  go();
  assert.equal(read(R.TDH), 5);
  assert.deepEqual(
    network.sent.map(({ frame, offload }) => [frame.length, offload]),
    [[60, null]],
  );
  // A ring of frames without an end.
  for (let i = 0; i < RING - 1; i++) put(DATA, 0, 60, 0);
  go();
  assert.equal(read(R.TDH), 4);
  write(R.TDT, 0xffff);
  assert.equal(read(R.TDH), 4);
  write(R.TDBAH, 0xffffffff);
  write(R.TDT, 0);
  assert.equal(read(R.TDH), 4);
  // Receiving into nowhere.
  memory.bytes.fill(0xff, RX, RX + 16 * RING);
  write(R.RCTL, 2);
  assert.equal(network.onReceive!(bytes(60), null), true);
  write(R.RDBAL, 0xfffffff0);
  assert.equal(network.onReceive!(bytes(60), null), true);
  // The largest ring, full of frames, takes more than one turn.
  write(R.TDBAH, 0);
  write(R.TDBAL, 0);
  memory.bytes.fill(0);
  const descriptors = 0xfff80 / 16;
  for (let i = 0; i < descriptors; i++) memory.bytes.set([0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 1], 16 * i);
  write(R.TDLEN, 0xfff80);
  write(R.TDH, 0);
  write(R.TDT, descriptors - 1);
  assert.ok(read(R.TDH) < 5000);
  clock.run(1e9);
  assert.equal(read(R.TDH), descriptors - 1);
});

test('a saved card goes on where it was', () => {
  const { card, make, write, read } = start();
  write(R.IMS, 0x91);
  write(R.MTA, 0x1234);
  const state = card.saveState();
  write(R.IMC, 0xff);
  write(R.MTA, 0);
  const other = make('nic0');
  other.loadState(structuredClone(state));
  assert.deepEqual(other.saveState(), state);
  card.loadState(state);
  assert.deepEqual([read(R.IMS), read(R.MTA)], [0x91, 0x1234]);
  card.reset();
  assert.equal(card.barBase(0), -1);
});
