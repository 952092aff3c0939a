import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GSO_TCP4, type IoHandler, NO_OFFLOADS } from '../../machine/interfaces.ts';
import { FlatMemory, ManualClock } from '../mocks.ts';
import { Rtl8139 } from './rtl8139.ts';
import { busOfNames, TestNetwork } from './test-network.ts';

const MAC = [0x52, 0x54, 0, 1, 2, 3];
/** Registers by the data sheet's names. */
const R = {
  ...{ MAR0: 0x08, TSD0: 0x10, TSAD0: 0x20, RBSTART: 0x30, CR: 0x37, CAPR: 0x38, CBR: 0x3a, IMR: 0x3c, ISR: 0x3e },
  ...{ TCR: 0x40, RCR: 0x44, TCTR: 0x48, EEPROM: 0x50, TIMER: 0x54, MSR: 0x58, BMSR: 0x64 },
  ...{ TNPDS: 0x20, TPPOLL: 0xd9, CPCR: 0xe0, RDSAR: 0xe4 },
} as const;
const [TX, RX, DATA, BUFFERS] = [0x1000, 0x2000, 0x10000, 0x20000] as const;
const RECEIVED = 1;
const SENT = 4;
const OVERFLOW = 16;

function start() {
  const memory = new FlatMemory(1 << 20);
  const clock = new ManualClock();
  const network = new TestNetwork();
  const { bus, handlers } = busOfNames();
  const card = new Rtl8139({ id: 'nic0', memory, clock, backend: network, mac: Uint8Array.from(MAC) });
  bus.plug(card, 3);
  card.configWrite(0x10, 4, 0xc000);
  card.configWrite(4, 2, 7);
  const io = (): IoHandler => handlers.get('rtl8139-io') ?? { read: () => 0xffff, write: () => undefined };
  const read = (at: number, size: number): number => io().read(at, size) >>> 0;
  const write = (at: number, size: number, value: number): void => io().write(at, size, value >>> 0);
  const view = new DataView(memory.bytes.buffer);
  const descriptor = (at: number, ...words: number[]): void =>
    words.forEach((word, i) => view.setUint32(at + 4 * i, word >>> 0, true));
  write(R.RCR, 4, 0x0f);
  return { memory, clock, network, card, read, write, view, descriptor, level: () => bus.level(2) };
}

/** A frame to the card, of TCP over IPv4. */
function tcpFrame(length: number): Uint8Array {
  const frame = Uint8Array.from({ length }, (_, i) => i & 0xff);
  frame.set([...MAC, 2, 2, 2, 2, 2, 2, 8, 0, 0x45, 0, (length - 14) >> 8, (length - 14) & 0xff, 0, 1, 0, 0, 64, 6, 0, 0]);
  frame.set([10, 0, 2, 15, 10, 0, 2, 2], 26);
  frame.set([0x50, 0x18, 0, 0, 0, 0], 46);
  return frame;
}

function sum(bytes: Uint8Array, from = 0): number {
  let total = from;
  for (let i = 0; i < bytes.length; i += 2) total += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

/** The sum of a frame's pseudo-header and segment, which is FFFFh when its checksum is right. */
const transportSum = (frame: Uint8Array): number => sum(frame.subarray(34), sum(frame.subarray(26, 34), 6 + frame.length - 34));

test('the four buffers are sent in turn, each reported', () => {
  const { memory, network, read, write, level } = start();
  write(R.CR, 1, 4);
  write(R.IMR, 2, SENT);
  assert.equal(read(R.TSD0, 4), 0x2000, 'free');
  for (let i = 0; i < 5; i++) {
    memory.bytes.fill(i, DATA, DATA + 100);
    write(R.TSAD0 + 4 * (i % 4), 4, DATA);
    write(R.TSD0 + 4 * (i % 4), 4, 100);
    assert.equal(read(R.TSD0 + 4 * (i % 4), 4), 0xa064, 'sent');
    assert.equal(level(), true);
    write(R.ISR, 2, 0xffff);
    assert.equal(level(), false);
  }
  assert.deepEqual(
    network.sent.map(({ frame }) => [frame.length, frame[0]]),
    [0, 1, 2, 3, 4].map((i) => [100, i]),
  );
});

test('frames lie in a ring of bytes, which the driver empties', () => {
  const { memory, network, read, write } = start();
  write(R.RBSTART, 4, BUFFERS);
  write(R.CR, 1, 8);
  assert.equal(read(R.CR, 1), 9, 'empty');
  const frame = tcpFrame(1000);
  assert.equal(network.onReceive!(frame, null), true);
  assert.equal(read(R.CR, 1), 8);
  assert.deepEqual([...memory.bytes.subarray(BUFFERS, BUFFERS + 4)], [0x01, 0x40, 1004 & 0xff, 1004 >> 8]);
  assert.deepEqual(memory.bytes.subarray(BUFFERS + 4, BUFFERS + 1004), frame);
  assert.equal(read(R.CBR, 2), 1008);
  let taken = 1;
  while (network.onReceive!(frame, null)) taken++;
  assert.equal(taken, 8, 'of 8 KiB');
  assert.equal(read(R.ISR, 2) & (RECEIVED | OVERFLOW), RECEIVED | OVERFLOW);
  write(R.CAPR, 2, 1008 - 16);
  assert.equal(network.resumed, 1, 'there is room again');
  assert.equal(network.onReceive!(frame, null), true);
  const wrapped = memory.bytes.subarray(BUFFERS, BUFFERS + 9 * 1008 - 8192);
  assert.deepEqual(wrapped.subarray(0, -4), frame.subarray(1000 - (wrapped.length - 4)), 'goes on at the start');
  write(R.CAPR, 2, 9 * 1008 - 8192 - 16);
  assert.equal(read(R.CR, 1), 9);
});

test('frames for others are left alone', () => {
  const { network, read, write } = start();
  write(R.RBSTART, 4, BUFFERS);
  write(R.CR, 1, 8);
  const counts = (first: readonly number[], control: number): boolean => {
    write(R.RCR, 4, control);
    const before = read(R.CBR, 2);
    const frame = tcpFrame(60);
    frame.set(first);
    network.onReceive!(frame, null);
    return read(R.CBR, 2) !== before;
  };
  const group = [1, 0, 0x5e, 0, 0, 1];
  assert.equal(counts(MAC, 2), true);
  assert.equal(counts([2, 3, 4, 5, 6, 7], 2), false);
  assert.equal(counts([2, 3, 4, 5, 6, 7], 1), true);
  assert.equal(counts([255, 255, 255, 255, 255, 255], 2), false);
  assert.equal(counts([255, 255, 255, 255, 255, 255], 8), true);
  assert.equal(counts(group, 4), false);
  // The CRC of that address is B3D1C4FAh by the standard's order of bits; its first six choose bit 31.
  write(R.MAR0, 4, 0x80000000);
  assert.equal(counts(group, 4), true);
});

const [OWN, LAST_OF_RING, FIRST, LAST, LARGE] = [0x80000000, 0x40000000, 0x20000000, 0x10000000, 0x08000000];

function withRings() {
  const all = start();
  all.write(R.CPCR, 2, 0x23);
  all.write(R.TNPDS, 4, TX);
  all.write(R.TNPDS + 4, 4, 0);
  all.write(R.RDSAR, 4, RX);
  all.write(R.RDSAR + 4, 4, 0);
  all.write(R.CR, 1, 0x0c);
  return all;
}

test('a frame of several pieces is sent, its checksums left to the network or made', () => {
  for (const offloads of [NO_OFFLOADS, { ...NO_OFFLOADS, checksum: true }]) {
    const { memory, network, write, view, descriptor } = withRings();
    network.offloads = offloads;
    memory.bytes.set(tcpFrame(101), DATA);
    descriptor(TX, OWN | FIRST | 0x50000 | 50, 0, DATA, 0);
    descriptor(TX + 16, OWN | LAST | LAST_OF_RING | 51, 0, DATA + 50, 0);
    write(R.TPPOLL, 1, 0x40);
    const [{ frame, offload }] = network.sent as [(typeof network.sent)[0]];
    assert.equal(frame.length, 101);
    assert.equal(sum(frame.subarray(14, 34)), 0xffff, "the header's");
    if (offload === null) assert.equal(transportSum(frame), 0xffff);
    else assert.deepEqual([offload.checksumStart, offload.checksumOffset], [34, 16]);
    assert.equal(view.getUint32(TX, true) >>> 31, 0);
    assert.equal(view.getUint32(TX + 16, true) >>> 31, 0);
  }
});

test('a large frame is cut, by the network if that can', () => {
  for (const offloads of [NO_OFFLOADS, { ...NO_OFFLOADS, checksum: true, tso4: true }]) {
    const { memory, network, write, descriptor } = withRings();
    network.offloads = offloads;
    memory.bytes.set(tcpFrame(54 + 3000), DATA);
    descriptor(TX, OWN | FIRST | LAST | LAST_OF_RING | LARGE | (1400 << 16) | 3054, 0, DATA, 0);
    write(R.TPPOLL, 1, 0x40);
    if (offloads === NO_OFFLOADS) {
      assert.deepEqual(
        network.sent.map(({ frame }) => frame.length),
        [1454, 1454, 254],
      );
      for (const { frame } of network.sent) {
        assert.equal(sum(frame.subarray(14, 34)), 0xffff);
        assert.equal(transportSum(frame), 0xffff);
      }
    } else
      assert.deepEqual(
        [network.sent.length, network.sent[0]!.offload!.gso, network.sent[0]!.offload!.segmentSize],
        [1, GSO_TCP4, 1400],
      );
  }
});

test('frames fill descriptors; when there is none the network waits, and is asked again', () => {
  const { memory, clock, network, read, view, descriptor } = withRings();
  descriptor(RX, OWN | 1536, 0, BUFFERS, 0);
  descriptor(RX + 16, LAST_OF_RING, 0, BUFFERS + 2048, 0);
  const frame = tcpFrame(200);
  assert.equal(network.onReceive!(frame, null), true);
  assert.equal(view.getUint32(RX, true), (FIRST | LAST | (1 << 26) | (1 << 17) | 204) >>> 0);
  assert.deepEqual(memory.bytes.subarray(BUFFERS, BUFFERS + 200), frame);
  assert.equal(network.onReceive!(frame, null), false);
  assert.equal(read(R.ISR, 2), RECEIVED | OVERFLOW);
  descriptor(RX + 16, OWN | LAST_OF_RING | 1536, 0, BUFFERS + 2048, 0);
  const before = network.resumed;
  clock.run(2_000_000);
  assert.equal(network.resumed, before + 1);
  assert.equal(network.onReceive!(frame, null), true);
});

test('rings that never end, and pieces that lie nowhere, are lost and hold nobody up', () => {
  const { network, write, view, descriptor } = withRings();
  for (let i = 0; i < 64; i++) descriptor(TX + 16 * i, OWN | 1500, 0, DATA, 0);
  write(R.TPPOLL, 1, 0x40);
  assert.equal(network.sent.length, 0);
  assert.equal(view.getUint32(TX, true) >>> 31, 0, 'lost');
  descriptor(TX, OWN | FIRST | LAST | LAST_OF_RING | 100, 0, 0xfffffff0, 0xffffffff);
  write(R.TPPOLL, 1, 0x40);
  assert.equal(network.sent.length, 0);
  write(R.TNPDS + 4, 4, 0xffffffff);
  write(R.TPPOLL, 1, 0x40);
  assert.equal(network.sent.length, 0);
});

test('the EEPROM gives the address on three wires, the timer interrupts', () => {
  const { clock, read, write, level } = start();
  const word = (address: number): number => {
    const clocked = (bit: number): number => {
      write(R.EEPROM, 1, 0x88 | (bit << 1));
      write(R.EEPROM, 1, 0x8c | (bit << 1));
      return read(R.EEPROM, 1) & 1;
    };
    write(R.EEPROM, 1, 0x80);
    for (let i = 8; i >= 0; i--) clocked(((0x180 | address) >> i) & 1);
    let value = 0;
    for (let i = 0; i < 16; i++) value = (value << 1) | clocked(0);
    write(R.EEPROM, 1, 0);
    return value;
  };
  assert.equal(word(0), 0x8129);
  assert.deepEqual([word(7), word(8), word(9)], [0x5452, 0x0100, 0x0302]);
  write(R.IMR, 2, 0x4000);
  write(R.TCTR, 4, 0);
  write(R.TIMER, 4, 1000);
  clock.run(29_000);
  assert.equal(level(), false);
  clock.run(2000);
  assert.equal(level(), true);
});

test('its state goes on in another card', () => {
  const { card, read, write } = withRings();
  write(R.IMR, 2, 0x1234);
  const saved = card.saveState();
  card.reset();
  assert.equal(read(R.IMR, 2), 0xffff, 'nothing answers after a reset');
  card.loadState(saved);
  assert.equal(read(R.IMR, 2), 0x1234);
  assert.equal(read(R.RDSAR, 4), RX);
});
