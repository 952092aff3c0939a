/** Machines under the host's KVM, whatever that runs: their firmware gets along with real mode. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { Machine } from 'virelay';
import { NO_KVM } from '../../src/kvm/test-kit.ts';
import { machineOf, MIB } from './kvm-kit.ts';

process.env['VIRELAY_KVM_PARTIAL'] = '1';

const LIMIT = { timeout: 60_000, skip: NO_KVM };
const OUT_E9 = [0xba, 0xe9, 0x00, 0xee]; // mov dx, 0e9h; out dx, al

for (const kernelIrqchip of ['on', 'split'] as const) {
  test(
    `a guest goes on from one accelerator to the other, and back, as if nothing had been (kernel-irqchip=${kernelIrqchip})`,
    LIMIT,
    async () => {
      // mov dx, 0e9h; again: out dx, al; inc ax; mov cx, 400; loop $; jmp again
      const counting = [0xba, 0xe9, 0x00, 0xee, 0x40, 0xb9, 0x90, 0x01, 0xe2, 0xfe, 0xeb, 0xf7];
      await using machine = await machineOf(counting, { debugcon: { iobase: 0xe9 }, kernelIrqchip });
      const reader = machine.debugcon!.readable.getReader();
      let next = 0;
      const count = async (bytes: number): Promise<void> => {
        for (let seen = 0; seen < bytes; ) {
          const { value } = await reader.read();
          for (const byte of value!) assert.equal(byte, next++ & 0xff);
          seen += value!.length;
        }
      };
      await machine.start();
      await count(100);
      for (const accelerator of ['jit', 'kvm', 'interp', 'kvm'] as const) {
        await machine.setAccelerator(accelerator);
        await count(1000);
      }
    },
  );
}

test('a translator that cannot be had leaves the guest with KVM', LIMIT, async () => {
  // mov dx, 0e9h; again: out dx, al; mov cx, 4000; loop $; jmp again
  const talking = [0xba, 0xe9, 0x00, 0xee, 0xb9, 0xa0, 0x0f, 0xe2, 0xfe, 0xeb, 0xf8];
  await using machine = await machineOf(talking, { cpu: 'host', debugcon: { iobase: 0xe9 } });
  const reader = machine.debugcon!.readable.getReader();
  await machine.start();
  await assert.rejects(machine.setAccelerator('jit'), /^Error: [^\n]*"host" runs by KVM alone[^\n]*$/);
  for (let seen = 0; seen < 1000; ) seen += (await reader.read()).value!.length;
});

test('a machine may end while a translator is being loaded', LIMIT, async () => {
  // jmp $
  const machine = await machineOf([0xeb, 0xfe]);
  await machine.start();
  const changed = machine.setAccelerator('jit').catch((error: Error) => error.message);
  await machine.quit();
  await machine.ended;
  const why = await Promise.race([changed, new Promise((resolve) => setTimeout(resolve, 1000, 'no answer'))]);
  assert.ok(why === undefined || /ended|no answer/.test(String(why)), String(why));
});

test('what KVM cannot do ends the machine, with the registers as they are', LIMIT, async (t) => {
  // cli; the first byte of an instruction at the top of the address space, then lock hlt, which nobody can execute
  await using machine = await machineOf([0x0f, 0x01, 0x1e, 0, 0, 0xd9, 0xe8, 0xf0, 0xf4]);
  const warnings: string[] = [];
  machine.on('warning', (line) => void warnings.push(line));
  await machine.start();
  const end = await Promise.race([machine.ended, new Promise<null>((resolve) => setTimeout(resolve, 3000, null))]);
  if (end === null) return t.skip('this KVM executes it all');
  if (end.event === 'reset') return t.skip('this KVM gives the guest its exceptions');
  assert.deepEqual(end, { event: 'internal-error', status: 1 });
  assert.match(warnings.join('\n'), /KVM_EXIT_INTERNAL_ERROR[\s\S]*RIP=000000000000fff\w/);
});

test('machines that come and go leave no files open', LIMIT, async () => {
  // A machine's thread ends after it: what it has open is counted when nothing changes any more.
  const count = async (): Promise<number> => {
    let open = readdirSync('/proc/self/fd').length;
    for (let same = 0; same < 5; ) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      const now = readdirSync('/proc/self/fd').length;
      same = now === open ? same + 1 : 0;
      open = now;
    }
    return open;
  };
  const once = async (): Promise<void> => {
    await using machine = await machineOf([...OUT_E9, 0xeb, 0xfe], { debugcon: { iobase: 0xe9 } });
    await machine.start();
    await machine.debugcon!.readable.getReader().read();
    await machine.quit();
  };
  for (let i = 0; i < 2; i++) await once();
  const before = await count();
  for (let i = 0; i < 7; i++) await once();
  assert.ok((await count()) <= before, 'descriptors stay');
});

for (const [machine, cpus, kernelIrqchip] of [
  ['pc', 1, 'on'],
  ['q35', 2, 'on'],
  ['pc', 2, 'split'],
] as const) {
  test(`SeaBIOS looks for something to boot (${machine}, ${cpus} CPUs, kernel-irqchip=${kernelIrqchip})`, LIMIT, async (t) => {
    if (!existsSync('/usr/share/seabios/bios-256k.bin')) return t.skip('there is no SeaBIOS (package seabios)');
    await using one = await Machine.create({
      machine,
      accel: 'kvm',
      cpus,
      kernelIrqchip,
      memory: 64 * MIB,
      textOnSerial: true,
      serials: ['connected'],
    });
    const decoder = new TextDecoder();
    let text = '';
    for await (const chunk of one.serial[0]!.readable) {
      text += decoder.decode(chunk, { stream: true });
      if (text.includes('No bootable device')) break;
    }
    assert.match(text, /SeaBIOS \(version[\s\S]*No bootable device/);
  });
}
