import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { VisibleRegisters } from '../machine/address-space.ts';
import { EXIT, exitName } from './constants.ts';
import { DoorbellButtons, Doorbells } from './doorbells.ts';
import { Kicker } from './kicker.ts';
import { LateWrites } from './late-writes.ts';
import type { RunPage } from './run-page.ts';
import { makeGuest, NO_KVM } from './test-kit.ts';
import { VcpuThread } from './vcpu-thread.ts';

const options = { skip: NO_KVM, timeout: 30_000 };
/** Beyond the guest's memory, as its segment 2000h. */
const REGISTERS = 0x2_0000;

/** Registers of which those at 0 and, for the value 1, at 4 are doorbells. */
function bells(seen: string[], base = REGISTERS): VisibleRegisters {
  const write = (offset: number, _size: number, value: number): void => void seen.push(`${offset}: ${value}`);
  const doorbells = [
    { offset: 0, value: null },
    { offset: 4, value: 1 },
  ];
  return { base, size: 16, handler: { read: () => 0, write, doorbells } };
}

test('a vCPU that rings does not wait; what it asks afterwards comes afterwards', options, async () => {
  const code = [
    ...[0xb8, 0x00, 0x20, 0x8e, 0xd8], // mov ax, 2000h; mov ds, ax
    ...[0xc7, 0x06, 0x00, 0x00, 0x07, 0x00], // mov word [0], 7
    ...[0xc7, 0x06, 0x04, 0x00, 0x01, 0x00], // mov word [4], 1
    ...[0xc7, 0x06, 0x04, 0x00, 0x02, 0x00], // mov word [4], 2
    ...[0xeb, 0xfe],
  ];
  const { kvm, vcpu, close } = makeGuest(code);
  const kicker = new Kicker(kvm.libc);
  const doorbells = new Doorbells();
  const seen: string[] = [];
  doorbells.update([bells(seen)]);
  const thread = new VcpuThread(vcpu, kicker, () => undefined, assert.fail, false, doorbells.cells);
  try {
    while (thread.channel.request === null) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(exitName(thread.channel.request), 'KVM_EXIT_MMIO');
    assert.deepEqual([vcpu.run.mmioAddress, vcpu.run.mmioLow & 0xffff], [REGISTERS + 4, 2], 'only that one is asked');
    assert.equal(doorbells.answer(), true);
    assert.deepEqual(seen, ['0: 0', '4: 1']);
    assert.equal(doorbells.answer(), false);
  } finally {
    await thread.end();
    kicker.close();
    close();
  }
});

test('registers that have moved ring where they are', options, async () => {
  const code = [
    ...[0xb8, 0x00, 0x20, 0x8e, 0xd8], // mov ax, 2000h; mov ds, ax
    ...[0xc6, 0x06, 0x00, 0x00, 0x01], // mov byte [0], 1
    ...[0xc6, 0x06, 0x00, 0x10, 0x01], // mov byte [1000h], 1
    ...[0xe6, 0x80, 0xeb, 0xfe], // out 80h, al
  ];
  const { kvm, vcpu, close } = makeGuest(code);
  const kicker = new Kicker(kvm.libc);
  const doorbells = new Doorbells();
  const seen: string[] = [];
  doorbells.update([bells(seen)]);
  doorbells.update([bells(seen, REGISTERS + 0x1000)]);
  const thread = new VcpuThread(vcpu, kicker, () => undefined, assert.fail, false, doorbells.cells);
  const request = async (): Promise<string> => {
    while (thread.channel.request === null) await new Promise((resolve) => setImmediate(resolve));
    return exitName(thread.channel.request);
  };
  try {
    assert.equal(await request(), 'KVM_EXIT_MMIO');
    assert.equal(vcpu.run.mmioAddress, REGISTERS);
    thread.channel.answer();
    assert.equal(await request(), 'KVM_EXIT_IO');
    doorbells.answer();
    assert.deepEqual(seen, ['0: 0']);
  } finally {
    await thread.end();
    kicker.close();
    close();
  }
});

test('a note is of the doorbell that it was left for, whatever has come and gone meanwhile', () => {
  const doorbells = new Doorbells();
  const buttons = new DoorbellButtons(null as never, doorbells.cells, new Int32Array(new SharedArrayBuffer(32)));
  const seen: string[] = [];
  const other = bells([], REGISTERS - 0x1000);
  const mine = bells(seen);
  doorbells.update([other, mine]);
  const run = { mmioIsWrite: true, mmioAddress: REGISTERS + 4, mmioLow: 1, mmioLength: 2 };
  assert.equal(buttons.press(run as RunPage), true);
  doorbells.update([mine]);
  assert.equal(doorbells.answer(), true);
  assert.deepEqual(seen.splice(0), ['4: 1']);
  // Entries of what has gone are used again, and there is an end of them.
  for (let round = 0; round < 200; round++) doorbells.update([bells([], REGISTERS + 0x1000 * round), mine]);
  assert.equal(buttons.press(run as RunPage), true);
  doorbells.answer();
  assert.deepEqual(seen.splice(0), ['4: 1']);
  doorbells.update(Array.from({ length: 200 }, (_, index) => bells([], REGISTERS + 0x1000 * index)));
  assert.equal(buttons.press({ ...run, mmioAddress: REGISTERS + 198 * 0x1000 + 4 } as RunPage), false, 'that one is asked');
});

test('writes that a device does not mind are collected, and brought in their order', options, (t) => {
  const code = [
    ...[0xb8, 0x00, 0x20, 0x8e, 0xd8], // mov ax, 2000h; mov ds, ax
    ...[0xc7, 0x06, 0x02, 0x00, 0x34, 0x12], // mov word [2], 1234h
    ...[0xc6, 0x06, 0x03, 0x00, 0x56], // mov byte [3], 56h
    ...[0xe6, 0x80], // out 80h, al
    ...[0xc6, 0x06, 0x00, 0x00, 0x01], // mov byte [0], 1
  ];
  const { vm, vcpu, close } = makeGuest(code);
  try {
    if (vm.check('KVM_CAP_COALESCED_MMIO') === 0) return t.skip('this KVM collects none');
    const seen: number[][] = [];
    const write = (address: number, size: number, value: number): void => void seen.push([address, size, value]);
    const late = new LateWrites(vm, vcpu.run, { read: () => 0, write });
    const registers = { base: REGISTERS, size: 16, handler: { read: () => 0, write, collectsWrites: true } };
    late.update([registers]);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    late.bring();
    assert.deepEqual(seen, [
      [REGISTERS + 2, 2, 0x1234],
      [REGISTERS + 3, 1, 0x56],
    ]);
    late.update([]);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_MMIO);
  } finally {
    close();
  }
});
