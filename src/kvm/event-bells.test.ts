import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import type { VisibleRegisters } from '../machine/address-space.ts';
import { EXIT } from './constants.ts';
import { placesOf } from './doorbells.ts';
import { EventBells } from './event-bells.ts';
import { Kicker } from './kicker.ts';
import { makeGuest, NO_KVM, startAt, CODE, type TestGuest } from './test-kit.ts';

const options = { skip: NO_KVM, timeout: 30_000 };
/** Beyond the guest's memory, as its segment 2000h. */
const REGISTERS = 0x2_0000;
const PORT = 0x90;

/** mov ax, 2000h; mov ds, ax; mov word [0], 7; mov dword [4], 1; mov ax, 2; out PORT, ax; jmp $ */
const RINGS = [
  ...[0xb8, 0x00, 0x20, 0x8e, 0xd8, 0xc7, 0x06, 0x00, 0x00, 0x07, 0x00],
  ...[0x66, 0xc7, 0x06, 0x04, 0x00, 0x01, 0x00, 0x00, 0x00, 0xb8, 0x02, 0x00, 0xe7, PORT, 0xeb, 0xfe],
];

const descriptors = (): number => readdirSync('/proc/self/fd').length;

/** Registers of which those at 0 and, for the value 1, at 4 are doorbells. */
function bells(seen: string[], { base = REGISTERS, eventfd = true } = {}): VisibleRegisters {
  const write = (offset: number, size: number, value: number): void => void seen.push(`${offset}: ${value}, ${size} bytes`);
  const doorbells = [
    { offset: 0, value: null, eventfd },
    { offset: 4, value: 1, size: 4 as const, eventfd },
  ];
  return { base, size: 16, handler: { read: () => 0, write, doorbells } };
}

function portBell(seen: string[]): VisibleRegisters {
  const write = (_offset: number, size: number, value: number): void => void seen.push(`port: ${value}, ${size} bytes`);
  const doorbells = [{ offset: 0, value: 2, size: 2 as const, eventfd: true }];
  return { base: PORT, size: 4, handler: { read: () => 0, write, doorbells } };
}

/** Runs the guest as a machine's thread does, until something comes of it. */
async function runUntil({ vcpu }: TestGuest, kicker: Kicker, bells: EventBells, done: () => boolean): Promise<void> {
  while (!done()) {
    while (kicker.enter(1000)) {
      bells.answer();
      if (done()) break;
      assert.equal(vcpu.enter(), EXIT.KVM_EXIT_INTR);
    }
    kicker.leave();
    bells.answer();
    await new Promise<void>((resolve) => kicker.afterEvents(resolve));
  }
}

test('a vCPU in the thread of the devices rings without leaving the guest', options, async (t) => {
  const before = descriptors();
  const guest = makeGuest(RINGS);
  const kicker = new Kicker(guest.kvm.libc);
  kicker.watch(guest.vcpu);
  const events = new EventBells(guest.vm, kicker.cells);
  try {
    if (guest.vm.check('KVM_CAP_IOEVENTFD_ANY_LENGTH') === 0) return t.skip('this KVM answers for no doorbells');
    const seen: string[] = [];
    events.update(placesOf([bells(seen)]), placesOf([portBell(seen)]));
    await runUntil(guest, kicker, events, () => seen.length >= 3);
    assert.deepEqual(seen.sort(), ['0: 0, 4 bytes', '4: 1, 4 bytes', 'port: 2, 2 bytes']);
    assert.equal(events.rung, 3);
    // Others are written to as ever.
    events.update(placesOf([bells(seen, { eventfd: false })]), []);
    startAt(guest.vcpu, CODE);
    // A call that came too late makes it leave once.
    const reason = guest.vcpu.enter();
    assert.equal(reason === EXIT.KVM_EXIT_INTR ? guest.vcpu.enter() : reason, EXIT.KVM_EXIT_MMIO);
  } finally {
    events.close();
    kicker.close();
    guest.close();
  }
  // Threads end a little later, and with them their event loops.
  while (descriptors() > before) await new Promise((resolve) => setTimeout(resolve, 10));
});

test('what has been rung by then is not lost when a doorbell goes, nor when all is to stand still', options, () => {
  const { vm, vcpu, close } = makeGuest([...RINGS.slice(0, -2), 0xe6, 0x80]); // out 80h, al
  const events = new EventBells(vm, new Int32Array(new SharedArrayBuffer(32)));
  const seen: string[] = [];
  const ring = (): void => {
    startAt(vcpu, CODE);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
  };
  try {
    events.update(placesOf([bells(seen)]), placesOf([portBell(seen)]));
    ring();
    // Whether or not the thread has begun by then.
    events.update(placesOf([bells([], { base: REGISTERS + 0x1000 })]), placesOf([portBell(seen)]));
    assert.deepEqual(seen.splice(0), ['0: 0, 4 bytes', '4: 1, 4 bytes']);
    events.answerAll();
    assert.deepEqual(seen.splice(0), ['port: 2, 2 bytes']);
    events.answerAll();
    assert.deepEqual(seen, []);
  } finally {
    events.close();
    close();
  }
});

test('should the thread that waits for them end, vCPUs leave the guest again', options, async () => {
  const { vm, vcpu, close } = makeGuest(RINGS);
  const events = new EventBells(vm, new Int32Array(new SharedArrayBuffer(32)));
  try {
    events.update(placesOf([bells([])]), []);
    await events['worker']!.terminate();
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_MMIO);
    events.update(placesOf([bells([])]), []);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_MMIO);
  } finally {
    events.close();
    close();
  }
});

test('registers that move without an end need no more eventfds than there are at one time', options, () => {
  const { vm, close } = makeGuest(RINGS);
  const events = new EventBells(vm, new Int32Array(new SharedArrayBuffer(32)));
  try {
    events.update(placesOf([bells([])]), []);
    for (let round = 1; round < 50; round++) events.update(placesOf([bells([], { base: REGISTERS + 0x1000 * round })]), []);
    assert.equal(events['eventfds'].length, 2);
    // More than there can be: those beyond are left to the other ways.
    const many = Array.from({ length: 130 }, (_, index) => bells([], { base: REGISTERS + 0x1000 * index }));
    events.update(placesOf(many), []);
    assert.equal(events['eventfds'].length, 256);
    events.update([], []);
  } finally {
    events.close();
    close();
  }
});
