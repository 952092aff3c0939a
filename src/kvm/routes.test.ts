import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { EXIT } from './constants.ts';
import { Routes } from './routes.ts';
import { CODE, makeGuest, NO_KVM, startAt } from './test-kit.ts';
import type { Vm } from './vm.ts';

const options = { skip: NO_KVM, timeout: 30_000 };
const INPUTS = 24;
/** Spurious-interrupt vector register: bit 8 turns a local APIC on. */
const APIC_SPURIOUS = 0xf0;
const MESSAGE = 0xfee0_0000;

/** mov word [25h * 4], 2000h; mov word [26h * 4], 2100h; out 99h, al; sti; hlt; out 98h, al */
const WAITS = [0xc7, 0x06, 0x94, 0x00, 0x00, 0x20, 0xc7, 0x06, 0x98, 0x00, 0x00, 0x21, 0xe6, 0x99, 0xfb, 0xf4, 0xe6, 0x98];
/** mov al, VALUE; iret */
const handler = (value: number): number[] => [0xb0, value, 0xcf];

for (const [name, prepare] of [
  ["all chips are the kernel's", (vm: Vm) => vm.createIrqchip()],
  ["only local APICs are the kernel's", (vm: Vm) => vm.createSplitIrqchip(INPUTS)],
] as const) {
  test(`a message by an eventfd wakes a halted guest; messages are told apart (${name})`, options, () => {
    const { vm, vcpu, memory, close } = makeGuest(WAITS, prepare);
    const sent: number[] = [];
    const signalMsi = vm.signalMsi.bind(vm);
    vm.signalMsi = (address, high, data) => {
      sent.push(data);
      return signalMsi(address, high, data);
    };
    const routes = new Routes(vm, INPUTS);
    try {
      memory.set(handler(0x55), 0x2000);
      memory.set(handler(0x66), 0x2100);
      const { regs } = vcpu.get('lapic');
      new DataView(regs.buffer).setUint32(APIC_SPURIOUS, 0x1ff, true);
      vcpu.set('lapic', { regs });
      const taken = (data: number, byEventfd: boolean, still: boolean): number => {
        startAt(vcpu, CODE);
        assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
        routes.send(MESSAGE, data, byEventfd);
        if (still) routes.awaitMessages();
        assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
        assert.equal(vcpu.run.ioPort, 0x98);
        // Ended, so that the next one comes.
        const after = vcpu.get('lapic');
        new DataView(after.regs.buffer).setUint32(0x110, 0, true);
        vcpu.set('lapic', after);
        return vcpu.run.ioValue(0);
      };
      assert.equal(taken(0x25, true, false), 0x55);
      assert.equal(taken(0x26, true, true), 0x66);
      // The chips' own routes may change meanwhile.
      routes.setOwn([]);
      assert.equal(taken(0x25, true, false), 0x55);
      assert.deepEqual(sent, []);
      assert.equal(taken(0x26, false, false), 0x66);
      assert.deepEqual(sent, [0x26]);
    } finally {
      routes.close();
      close();
    }
  });
}

test('messages without an end take no more eventfds than there may be, and are all sent', options, () => {
  const before = readdirSync('/proc/self/fd').length;
  const { vm, close } = makeGuest(WAITS, (one) => one.createIrqchip());
  let sent = 0;
  vm.signalMsi = () => {
    sent++;
    return true;
  };
  const routes = new Routes(vm, INPUTS);
  try {
    for (let data = 0; data < 200; data++) routes.send(MESSAGE, data, true);
    assert.equal(sent, 200 - 128);
    assert.ok(readdirSync('/proc/self/fd').length < before + 140);
  } finally {
    routes.close();
    close();
  }
  assert.ok(readdirSync('/proc/self/fd').length <= before);
});
