/** Hyper-V's interface for guests under the host's KVM, or (test/kvm.long.test.ts) under a whole one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Machine } from 'virelay';
import { supportedHyperv } from '../../src/kvm/hyperv.ts';
import { Kvm } from '../../src/kvm/system.ts';
import { NO_KVM } from '../../src/kvm/test-kit.ts';
import { savedAndEnded, streamOf } from '../saved-machine.ts';
import { firmwareOf, machineOf, MIB } from './kvm-kit.ts';

process.env['VIRELAY_KVM_PARTIAL'] = '1';

const LIMIT = { timeout: 60_000, skip: NO_KVM };
/** Why there is nothing to see; false where there is. */
const NONE: string | false = (() => {
  if (NO_KVM !== false) return NO_KVM;
  const kvm = new Kvm();
  try {
    return supportedHyperv(kvm).includes('hv-time') ? false : 'this KVM has no Hyper-V';
  } finally {
    kvm.close();
  }
})();

/** Writes an MSR of Hyper-V's once, and says for ever what CPUID and the MSR say. */
const SAYS_HYPERV = [
  ...[0xba, 0xe9, 0x00], // mov dx, 0e9h
  ...[0x66, 0xb9, 0x00, 0x00, 0x00, 0x40], // mov ecx, 40000000h (what the guest is)
  ...[0x66, 0xb8, 0x5a, 0x00, 0x00, 0x00], // mov eax, 5ah
  ...[0x66, 0x31, 0xd2, 0x0f, 0x30], // xor edx, edx; wrmsr
  // again:
  ...[0x66, 0xb8, 0x01, 0x00, 0x00, 0x40, 0x66, 0x31, 0xc9, 0x0f, 0xa2], // mov eax, 40000001h; xor ecx, ecx; cpuid
  ...[0xba, 0xe9, 0x00, 0xee], // mov dx, 0e9h; out dx, al ("H")
  ...[0x66, 0xb8, 0x00, 0x01, 0x00, 0x40, 0x66, 0x31, 0xc9, 0x0f, 0xa2], // mov eax, 40000100h; xor ecx, ecx; cpuid
  ...[0x88, 0xd8, 0xba, 0xe9, 0x00, 0xee], // mov al, bl; mov dx, 0e9h; out dx, al ("K")
  ...[0x66, 0xb9, 0x00, 0x00, 0x00, 0x40, 0x0f, 0x32], // mov ecx, 40000000h; rdmsr
  ...[0xba, 0xe9, 0x00, 0xee], // mov dx, 0e9h; out dx, al
  ...[0xeb, 0xd2], // jmp again
];

test(
  "a guest finds Hyper-V's interface before KVM's; it moves with it to another machine, but to no translator",
  LIMIT,
  async (t) => {
    if (NONE) return t.skip(NONE);
    const more = { debugcon: { iobase: 0xe9 }, cpu: 'max,hv-relaxed,hv-vpindex,hv-time,hv-reset' };
    const said = async (machine: Machine): Promise<string> => {
      const reader = machine.debugcon!.readable.getReader();
      let text = '';
      while (text.length < 600) text += new TextDecoder().decode((await reader.read()).value);
      return text;
    };
    const machine = await machineOf(SAYS_HYPERV, more);
    await machine.start();
    assert.match(await said(machine), /^(HKZ)+H?K?$/);
    await assert.rejects(
      machine.setAccelerator('jit'),
      /^Error: its CPU has hv-relaxed, hv-vpindex, hv-time, hv-reset, which KVM/,
    );
    await machine.pause();
    const pieces = await savedAndEnded(machine);
    const config = {
      ...more,
      accel: 'kvm',
      memory: 8 * MIB,
      bios: firmwareOf(SAYS_HYPERV),
      serials: [],
      noReboot: true,
    } as const;
    await using again = await Machine.restore(streamOf(pieces), config);
    await again.start();
    assert.match(await said(again), /^H?K?(ZHK)+Z?H?$/);
    const other = Machine.restore(streamOf(pieces), { ...config, cpu: 'max' });
    await assert.rejects(other, /^Error: saved state: cpu: hv-relaxed was true when it was saved, and is not there here$/);
  },
);

test("a translator says that Hyper-V's interface needs KVM, and does without", async () => {
  await using machine = await machineOf([0xf4], { accel: 'jit', cpu: 'max,hv-relaxed' });
  assert.deepEqual(machine.warnings, ['CPU max: hv-relaxed can be had by KVM alone (-accel kvm)']);
});
