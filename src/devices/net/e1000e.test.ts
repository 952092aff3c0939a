import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FlatMemory, ManualClock } from '../mocks.ts';
import { E1000e } from './e1000e.ts';
import { busOfNames, TestNetwork } from './test-network.ts';

const MAC = [0x52, 0x54, 0, 1, 2, 3];
/** Registers by the data sheet's names. */
const R = {
  ...{
    CTRL: 0,
    STATUS: 8,
    EERD: 0x14,
    CTRL_EXT: 0x18,
    MDIC: 0x20,
    ICR: 0xc0,
    ICS: 0xc8,
    IMS: 0xd0,
    IMC: 0xd8,
    EIAC: 0xdc,
    IAM: 0xe0,
    IVAR: 0xe4,
  },
  ...{ RCTL: 0x100, TCTL: 0x400, RDBAL: 0x2800, RDLEN: 0x2808, RDT: 0x2818, TDBAL: 0x3800, TDLEN: 0x3808, TDT: 0x3818 },
  ...{ RFCTL: 0x5008, SWSM: 0x5b50, SYSTIML: 0xb600, SYSTIMH: 0xb604, TIMINCA: 0xb608 },
} as const;
const [RX, TX, BUFFERS, DATA] = [0x1000, 0x2000, 0x10000, 0x40000] as const;
const RXQ0 = 1 << 20;
const TXQ0 = 1 << 22;
const OTHER = 1 << 24;
const LSC = 4;
/** Receive to vector 0, transmit to 1, the rest to 2. */
const IVAR = 0x000a0908;

function start() {
  const memory = new FlatMemory(1 << 20);
  const clock = new ManualClock();
  const network = new TestNetwork();
  const messages: number[] = [];
  const { bus, handlers } = busOfNames({
    messages: { sendMsi: (_address, data) => void messages.push(data) },
  });
  const card = new E1000e({ id: 'nic0', memory, clock, backend: network, mac: Uint8Array.from(MAC), mitigation: true });
  bus.plug(card, 3);
  card.configWrite(0x10, 4, 0xfe000000);
  card.configWrite(0x1c, 4, 0xfe100000);
  card.configWrite(4, 2, 7);
  const read = (offset: number): number => handlers.get('e1000-mmio')!.read(offset, 4) >>> 0;
  const write = (offset: number, value: number): void => handlers.get('e1000-mmio')!.write(offset, 4, value >>> 0);
  const useMessages = (): void => {
    for (let vector = 0; vector < 5; vector++) {
      handlers.get('e1000e-msix')!.write(16 * vector + 8, 4, vector);
      handlers.get('e1000e-msix')!.write(16 * vector + 12, 4, 0);
    }
    card.configWrite(0xa2, 2, 0x8000);
    write(R.IVAR, IVAR);
  };
  const view = new DataView(memory.bytes.buffer);
  for (let i = 0; i < 8; i++) view.setUint32(RX + 16 * i, BUFFERS + 2048 * i, true);
  write(R.RDBAL, RX);
  write(R.RDLEN, 128);
  write(R.RDT, 7);
  write(R.RCTL, 0x8002);
  write(R.TDBAL, TX);
  write(R.TDLEN, 128);
  write(R.TCTL, 2);
  return { memory, clock, network, card, messages, view, read, write, useMessages, level: () => bus.level(2) };
}

function frame(): Uint8Array {
  const bytes = new Uint8Array(100).fill(0x55);
  bytes.set(MAC);
  return bytes;
}

test("the EEPROM, the PHY and the semaphore are an 82574's", () => {
  const { read, write } = start();
  write(R.EERD, (1 << 2) | 1);
  assert.equal(read(R.EERD), 0x01000006);
  write(R.MDIC, (2 << 26) | (1 << 21) | (3 << 16));
  assert.equal(read(R.MDIC) & 0xffff, 0x0cb1);
  assert.equal(read(R.SWSM) & 1, 0, 'free');
  assert.equal(read(R.SWSM) & 1, 1, 'taken by the look at it');
  write(R.SWSM, 2);
  assert.equal(read(R.SWSM) & 3, 2);
  assert.notEqual(read(R.STATUS) & 0x80000, 0);
  write(R.CTRL, 4);
  assert.equal(read(R.STATUS) & 0x80000, 0, 'asks for memory no more');
});

test('extended descriptors say what came', () => {
  const { network, memory, view, write } = start();
  write(R.RFCTL, 0x8000);
  network.onReceive!(frame(), null);
  assert.equal(view.getUint32(RX, true), 0);
  assert.equal(view.getUint32(RX + 8, true), 7, 'done, its end, checksums not looked at');
  assert.equal(view.getUint16(RX + 12, true), 104);
  assert.deepEqual(memory.bytes.subarray(BUFFERS, BUFFERS + 100), frame());
});

test('each queue has a message, which clears and masks its cause', () => {
  const { network, view, messages, read, write, useMessages } = start();
  useMessages();
  write(R.EIAC, RXQ0 | TXQ0);
  write(R.CTRL_EXT, 1 << 24);
  write(R.IMS, RXQ0 | TXQ0 | OTHER | LSC);
  network.onReceive!(frame(), null);
  assert.deepEqual(messages, [0]);
  network.onReceive!(frame(), null);
  assert.deepEqual(messages, [0], 'masked');
  write(R.IMS, RXQ0);
  assert.deepEqual(messages, [0, 0], 'what came meanwhile');
  view.setUint32(TX, DATA, true);
  view.setUint32(TX + 8, 60 | 0x09000000, true);
  write(R.TDT, 1);
  assert.deepEqual(messages, [0, 0, 1]);
  network.onLinkChange!(false);
  assert.deepEqual(messages, [0, 0, 1, 2]);
  assert.equal(read(R.ICR) & (OTHER | LSC | RXQ0 | TXQ0), OTHER | LSC);
  assert.equal(read(R.ICR) & (OTHER | LSC), 0, 'reading clears');
  write(R.ICS, OTHER);
  assert.deepEqual(messages, [0, 0, 1, 2, 2]);
});

test('without messages an interrupt says that it is one, and masks itself as it is read', () => {
  const { network, level, read, write } = start();
  write(R.IAM, 0xffffffff);
  write(R.CTRL_EXT, 1 << 27);
  write(R.IMS, 0x80);
  network.onReceive!(frame(), null);
  assert.equal(level(), true);
  assert.equal(read(R.ICR) >>> 31, 1);
  assert.equal(level(), false);
  network.onReceive!(frame(), null);
  assert.equal(level(), false, 'masked');
  assert.equal(read(R.ICR) >>> 31, 0);
});

test('time goes on by what it is told', () => {
  const { clock, read, write } = start();
  write(R.TIMINCA, 0x01000000 | 40);
  write(R.SYSTIML, 5);
  write(R.SYSTIMH, 1);
  clock.run(4000);
  assert.equal(read(R.SYSTIML), 4005);
  assert.equal(read(R.SYSTIMH), 1);
});

test('state goes on in another card', () => {
  const { card, read, write } = start();
  write(R.IVAR, IVAR);
  write(R.RFCTL, 0x8000);
  const saved = card.saveState();
  write(R.CTRL, 1 << 26);
  assert.equal(read(R.IVAR), 0);
  card.loadState(saved);
  assert.equal(read(R.IVAR), IVAR);
  assert.equal(read(R.RFCTL), 0x8000);
});
