import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StateBlock } from '../devices/state.ts';
import type { DeviceState, StateOwner } from '../machine/interfaces.ts';
import { loadMachine, saveMachine, type StateParts } from './machine-state.ts';
import { type MemoryBlock, PAGE, SECTION_PAGES } from './ram.ts';
import { HEADER_SIZE, SECTION, sectionBytes, streamHeader } from './stream.ts';

class Register implements StateOwner {
  readonly id: string;
  readonly block: StateBlock<{ value: number; name: string; big: bigint; bytes: Uint8Array; list: number[] }>;
  loads = 0;

  constructor(id: string) {
    this.id = id;
    const powerOn = () => ({ value: 0, name: '', big: 0n, bytes: new Uint8Array(4), list: [0, 0] });
    this.block = new StateBlock(id, 1, powerOn, { value: 255 });
  }

  saveState(): DeviceState {
    return this.block.save();
  }

  loadState(state: DeviceState): void {
    this.block.load(state);
    this.loads++;
  }
}

function parts(pages = 600): StateParts & { memory: MemoryBlock[]; owners: Register[]; changes: [number, number][] } {
  const changes: [number, number][] = [];
  const block = (id: string, count: number): MemoryBlock => ({
    id,
    bytes: new Uint8Array(count * PAGE),
    changed: (offset, length) => void changes.push([offset, length]),
  });
  return {
    configuration: {
      machine: { type: 'pc', memory: pages * PAGE },
      devices: { one: { type: 'a' }, two: { type: 'b', size: 5 } },
    },
    memory: [block('ram', pages), block('video', 3)],
    owners: [new Register('one'), new Register('two')],
    changes,
  };
}

/** A machine with something in it. */
function used() {
  const machine = parts();
  const [ram] = machine.memory;
  for (let page = 0; page < 600; page += 3) ram!.bytes.fill(page & 0xff, page * PAGE + 100, page * PAGE + 3000);
  for (let at = 400 * PAGE; at < 500 * PAGE; at++) ram!.bytes[at] = Math.imul(at, 0x9e3779b1) >>> 13;
  machine.memory[1]!.bytes[PAGE] = 1;
  Object.assign(machine.owners[0]!.block.value, { value: 7, name: 'seven', big: -5n });
  machine.owners[1]!.block.value.list[1] = 0.25;
  return machine;
}

async function bytesOf(machine: StateParts, compress = true): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of saveMachine(machine, compress)) pieces.push(piece.slice());
  // A plain array: a slice of it is a copy.
  return new Uint8Array(Buffer.concat(pieces));
}

async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** The stream's sections: where each begins and ends, and its id. */
function sections(bytes: Uint8Array): { from: number; to: number; id: string; bodyAt: number }[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const found = [];
  for (let at = HEADER_SIZE; at < bytes.length; ) {
    const idLength = bytes[at + 1]!;
    const bodyAt = at + 12 + idLength + 4;
    const to = bodyAt + view.getUint32(at + 8, true) + 4;
    found.push({ from: at, to, bodyAt, id: new TextDecoder().decode(bytes.subarray(at + 12, at + 12 + idLength)) });
    at = to;
  }
  return found;
}

for (const compress of [true, false]) {
  test(`a machine's state comes back, whatever pieces it comes in (${compress ? 'compressed' : 'as it is'})`, async () => {
    const machine = used();
    const bytes = await bytesOf(machine, compress);
    for (const size of [1 << 20, 4097, 100, 1]) {
      const other = parts();
      // What was there before is replaced, by zeros too.
      other.memory[0]!.bytes.fill(9);
      await loadMachine(other, inPieces(bytes, size));
      for (const i of [0, 1]) assert.ok(Buffer.from(other.memory[i]!.bytes).equals(machine.memory[i]!.bytes));
      assert.deepEqual(
        other.owners.map((one) => one.saveState()),
        machine.owners.map((one) => one.saveState()),
      );
      if (size === 100) break;
    }
  });
}

test('zero pages cost next to nothing, and equal pages little', async () => {
  assert.ok((await bytesOf(parts(20_000))).length < 1500);
  const machine = parts(10 * SECTION_PAGES);
  machine.memory[0]!.bytes.fill(1);
  assert.ok((await bytesOf(machine)).length < 20_000);
});

test('pages may come again: the later ones count', async () => {
  const [first, second] = [used(), used()];
  second.memory[0]!.bytes.fill(3, 0, 10 * PAGE);
  const [a, b] = [await bytesOf(first), await bytesOf(second)];
  const pages = (bytes: Uint8Array) => sections(bytes).filter(({ id }) => id === 'ram');
  const cut = pages(a).at(-1)!.to;
  const again = pages(b).map(({ from, to }) => b.subarray(from, to));
  const other = parts();
  await loadMachine(other, inPieces(Buffer.concat([a.subarray(0, cut), ...again, a.subarray(cut)]), 1 << 16));
  assert.ok(Buffer.from(other.memory[0]!.bytes).equals(second.memory[0]!.bytes));
});

test('a machine that is made otherwise is refused, and the difference named', async () => {
  const bytes = await bytesOf(used());
  const refused = async (change: (machine: ReturnType<typeof parts>) => void, message: RegExp): Promise<void> => {
    const machine = parts();
    change(machine);
    await assert.rejects(loadMachine(machine, inPieces(bytes, 4096)), { message });
  };
  const configure = (more: object) => (machine: ReturnType<typeof parts>) => {
    Object.assign(machine.configuration, more);
  };
  const devices = { one: { type: 'a' }, two: { type: 'b', size: 5 } };
  await refused(
    configure({ machine: { type: 'q35', memory: 600 * PAGE } }),
    /^saved state: machine: type was "pc" when it was saved, and is "q35" here$/,
  );
  await refused(
    configure({ devices: { ...devices, two: { type: 'b', size: 6 } } }),
    /^saved state: device "two": size was 5 when it was saved, and is 6 here$/,
  );
  await refused(
    configure({ devices: { one: { type: 'a' } } }),
    /^saved state: it has a device "two" \(b\), which this machine lacks$/,
  );
  await refused(
    configure({ devices: { ...devices, three: { type: 'c' } } }),
    /^saved state: it lacks the device "three" \(c\), which this machine has$/,
  );
  await refused((machine) => machine.owners.pop(), /^saved state: section "two": this machine has no such device$/);
  await refused((machine) => machine.owners.push(new Register('three')), /^saved state: section "three" is missing$/);
  await refused((machine) => machine.memory.pop(), /^saved state: memory "video": this machine has none of that name$/);
});

test('sections that are missing, doubled or unknown are named', async () => {
  const bytes = await bytesOf(used());
  const all = sections(bytes);
  const load = (picked: readonly Uint8Array[]): Promise<void> =>
    loadMachine(parts(), inPieces(Buffer.concat([bytes.subarray(0, HEADER_SIZE), ...picked]), 1 << 16));
  const raw = all.map(({ from, to }) => bytes.subarray(from, to));
  for (const [i, { id }] of all.entries()) {
    const without = raw.filter((_, at) => at !== i);
    await assert.rejects(load(without), (error: Error) => error.message.includes(`"${id}"`) || /cut off/.test(error.message));
  }
  const one = all.findIndex(({ id }) => id === 'one');
  await assert.rejects(load(raw.toSpliced(one, 0, raw[one]!)), /section "one": is there twice/);
  const odd = Buffer.concat(sectionBytes({ type: 9, id: 'odd', instance: 0, version: 1 }, new Uint8Array(3)));
  await assert.rejects(load(raw.toSpliced(one, 0, odd)), /section "odd": has type 9, which is not known/);
  const strange = Buffer.concat(sectionBytes({ type: SECTION.fields, id: 'three', instance: 0, version: 1 }, Uint8Array.of(0)));
  await assert.rejects(load(raw.toSpliced(one, 0, strange)), /section "three": this machine has no such device/);
  const newer = Buffer.concat(sectionBytes({ type: SECTION.fields, id: 'one', instance: 0, version: 2 }, Uint8Array.of(0)));
  await assert.rejects(load(raw.toSpliced(one, 1, newer)), /section "one": one: saved state has version 2, this device has 1/);
});

test('a stream that is damaged or cut off anywhere is refused with one line that says where', async () => {
  const machine = used();
  const bytes = await bytesOf(machine);
  const all = sections(bytes);
  let seed = 7;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 4) % below;
  };
  const places = [
    // Every byte of the headers, and some of the bodies.
    ...Array.from({ length: HEADER_SIZE }, (_, i) => i),
    ...all.flatMap(({ from, bodyAt }) => Array.from({ length: bodyAt - from }, (_, i) => from + i)),
    ...Array.from({ length: 100 }, () => random(bytes.length)),
  ];
  for (const at of places) {
    const damaged = bytes.slice();
    damaged[at]! ^= 1 << random(8);
    await assert.rejects(loadMachine(parts(), inPieces(damaged, 1 << 16)), { message: /^saved state: [^\n]+$/ }, `byte ${at}`);
  }
  for (let i = 0; i < 60; i++) {
    const length = i < 40 ? random(2000) : random(bytes.length);
    await assert.rejects(
      loadMachine(parts(), inPieces(bytes.subarray(0, length), 1000)),
      { message: /^saved state: [^\n]*(ends|cut off)[^\n]*$/ },
      `${length} bytes`,
    );
  }
});

test('bodies with a right checksum and wrong contents are refused, or load', async () => {
  const bytes = await bytesOf(used(), false);
  const all = sections(bytes);
  let seed = 99;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 4) % below;
  };
  for (let i = 0; i < 600; i++) {
    const { id, from, to, bodyAt } = all[random(all.length - 1)]!;
    const body = bytes.slice(bodyAt, to - 4);
    for (let k = 0; k <= random(3); k++) body[random(Math.min(body.length, 200))] = random(256);
    const type = bytes[from]!;
    const made = Buffer.concat(sectionBytes({ type, id, instance: 0, version: 1 }, body.subarray(0, body.length - (i % 3))));
    const stream = Buffer.concat([bytes.subarray(0, from), made, bytes.subarray(to)]);
    await loadMachine(parts(), inPieces(stream, 1 << 16)).catch((error: Error) => {
      assert.match(error.message, /^saved state: [^\n]+$/);
      // One of the others may be what is missed.
      assert.ok(error.message.includes('"'), error.message);
    });
  }
});

test('what a header claims takes no memory before it has come', async () => {
  const head = Buffer.concat(
    sectionBytes({ type: SECTION.fields, id: 'configuration', instance: 0, version: 1 }, new Uint8Array(1)),
  );
  head.writeUInt32LE(0xffffffff, 8);
  await assert.rejects(loadMachine(parts(), inPieces(Buffer.concat([streamHeader(), head]), 100)), /damaged header|claims/);
});

test('zeros without end are refused', async () => {
  const bytes = await bytesOf(parts(SECTION_PAGES));
  const all = sections(bytes);
  const ram = all.find(({ id }) => id === 'ram')!;
  const section = bytes.subarray(ram.from, ram.to);
  const many = [bytes.subarray(0, ram.from), ...new Array<Uint8Array>(100).fill(section), bytes.subarray(ram.to)];
  await assert.rejects(loadMachine(parts(SECTION_PAGES), inPieces(Buffer.concat(many), 1 << 16)), /zero over and over again/);
});
