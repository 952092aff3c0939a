/** Drivers that write anything anywhere: no card throws, or goes on for ever. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IoHandler } from '../../machine/interfaces.ts';
import { FlatMemory, ManualClock, RecordingLine } from '../mocks.ts';
import { PciBus, type PciDevice } from '../pci.ts';
import { E1000 } from './e1000.ts';
import { E1000e } from './e1000e.ts';
import { Ne2000, Ne2kPci } from './ne2000.ts';
import { Rtl8139 } from './rtl8139.ts';
import { TestNetwork } from './test-network.ts';

const RAM = 1 << 18;
const OPERATIONS = 20_000;

/** Numbers from a seed (xorshift). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** Values that registers and descriptors like: addresses in memory, small counts, all ones, anything. */
function value(next: (below: number) => number): number {
  switch (next(5)) {
    case 0:
      return next(RAM) & ~15;
    case 1:
      return next(300);
    case 2:
      return 0xffffffff;
    case 3:
      return (1 << next(32)) >>> 0;
    default:
      return (next(0x10000) * 0x10000 + next(0x10000)) >>> 0;
  }
}

type Options = { id: string; memory: FlatMemory; clock: ManualClock; backend: TestNetwork; mac: Uint8Array; mitigation: boolean };

const CARDS: readonly (readonly [name: string, make: (options: Options) => PciDevice])[] = [
  ['e1000', (options) => new E1000(options)],
  ['e1000e', (options) => new E1000e(options)],
  ['rtl8139', (options) => new Rtl8139(options)],
  ['ne2k_pci', (options) => new Ne2kPci(options)],
];

for (const [name, make] of CARDS) {
  test(`${name} survives what makes no sense`, () => {
    for (let seed = 1; seed <= 3; seed++) {
      const next = random(seed * 0x9e3779b9);
      const memory = new FlatMemory(RAM);
      for (let i = 0; i < RAM; i += 4) memory.write(i, 4, value(next));
      const clock = new ManualClock();
      const backend = new TestNetwork();
      const handlers: IoHandler[] = [];
      const place = (handler: IoHandler) => {
        handlers.push(handler);
        return { remove: () => undefined };
      };
      const bus = new PciBus({
        memory: { addMmio: (_base, _size, handler) => place(handler) },
        ports: { register: (_base, _count, handler) => place(handler) },
        messages: { sendMsi: () => undefined },
      });
      const card = make({ id: 'nic0', memory, clock, backend, mac: Uint8Array.of(2, 0, 0, 0, 0, 1), mitigation: true });
      bus.plug(card, 3);
      for (let bar = 0; bar < 4; bar++) card.configWrite(0x10 + 4 * bar, 4, 0xc000);
      card.configWrite(4, 2, 7);
      const frame = new Uint8Array(1514).fill(0xff);
      for (let i = 0; i < OPERATIONS; i++) {
        const handler = handlers[next(handlers.length)]!;
        const size = [1, 2, 4][next(3)]!;
        const offset = next(3) === 0 ? next(0x6000) & ~3 : next(0x100);
        if (next(3) === 0) handler.read(offset & ~(size - 1), size);
        else handler.write(offset & ~(size - 1), size, value(next));
        if (next(8) === 0) backend.onReceive!(frame.subarray(0, 14 + next(1500)), null);
        if (next(50) === 0) backend.room = next(20);
        if (next(50) === 0) backend.onWritable!();
        if (next(20) === 0) clock.run(next(1_000_000));
        if (next(500) === 0) card.loadState(card.saveState());
        backend.sent.length = 0;
      }
      card.reset();
    }
  });
}

test('an NE2000 survives by itself, too', () => {
  const next = random(77);
  const backend = new TestNetwork();
  const chip = new Ne2000({ id: 'ne', backend, mac: new Uint8Array(6) }, new RecordingLine());
  for (let i = 0; i < 50_000; i++) {
    if (next(2) === 0) chip.ports.write(next(32), [1, 2, 4][next(3)]!, value(next));
    else chip.ports.read(next(31), [1, 2, 4][next(3)]!);
    backend.onReceive!(new Uint8Array(next(1600)).fill(0xff), null);
    backend.sent.length = 0;
  }
  assert.ok(true);
});
