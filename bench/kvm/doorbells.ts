/**
 * What it costs a vCPU with a thread of its own to tell a device of work, while the thread of the devices is in the guest
 * itself; three ways, in turn:
 *
 *     asks     like any other access: the vCPU waits until the devices' thread has carried it out
 *     notes    doorbells.ts: the vCPU's thread leaves a note, calls the devices' thread out, and goes back
 *     eventfd  the kernel writes to an eventfd (KVM_IOEVENTFD), for which a further thread waits, as an event loop
 *              must not: it calls the devices' thread out
 *
 *     node --no-warnings bench/kvm/doorbells.ts [SECONDS]
 */
import { Worker } from 'node:worker_threads';
import { EXIT } from '../../src/kvm/constants.ts';
import { Doorbells } from '../../src/kvm/doorbells.ts';
import { realMode } from '../../src/kvm/guest-modes.ts';
import { Kicker } from '../../src/kvm/kicker.ts';
import { Kvm } from '../../src/kvm/system.ts';
import { VcpuThread } from '../../src/kvm/vcpu-thread.ts';
import type { EventThreadData } from './eventfd-thread.ts';

const SECONDS = Number(process.argv[2] ?? 3);
const SIZE = 0x1_0000;
const FIRST = 0x1000;
const SECOND = 0x4000;
/** Where the device says how often it has been told, and where the guest counts; 16 and 32 bits. */
const SEEN = 0x5000;
const TOLD = 0x5004;
const BELL = 0x2_0000;

const SPIN = [0xeb, 0xfe];
/** mov ax, 2000h; mov ds, ax; xor bx, bx */
const BEGIN = [0xb8, 0x00, 0x20, 0x8e, 0xd8, 0x31, 0xdb];
/** again: inc bx; inc dword es:[TOLD]; mov [0], bx */
const COUNT = [0x43, 0x26, 0x66, 0xff, 0x06, 0x04, 0x50];
const TELL = [...COUNT, 0x89, 0x1e, 0x00, 0x00];
const GUESTS = {
  /** Each time the device has to have seen it: wait: cmp es:[SEEN], bx; jne wait; jmp again */
  'to and fro': [...BEGIN, ...TELL, 0x26, 0x39, 0x1e, 0x00, 0x50, 0x75, 0xf9, 0xeb, 0xec],
  /** With some work in between, but no waiting: mov cx, 20; loop $; jmp again */
  stream: [...BEGIN, ...TELL, 0xb9, 0x14, 0x00, 0xe2, 0xfe, 0xeb, 0xee],
  /** The work alone. */
  'no device': [...BEGIN, ...COUNT, 0xb9, 0x14, 0x00, 0xe2, 0xfe, 0xeb, 0xf2],
};
const WAYS = ['asks', 'notes', 'eventfd'] as const;
type Way = (typeof WAYS)[number];

/** @returns microseconds a turn of the second vCPU's loop */
async function measure(way: Way, guest: readonly number[]): Promise<number> {
  const kvm = new Kvm();
  const { buffer } = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
  const memory = new DataView(buffer, 0, SIZE);
  const bytes = new Uint8Array(buffer, 0, SIZE);
  bytes.set(SPIN, FIRST);
  bytes.set(guest, SECOND);
  const vm = kvm.createVm();
  vm.setMemory({ slot: 0, guestAddress: 0, size: SIZE, hostAddress: kvm.libc.addressOf(bytes) });
  const [first, second] = [FIRST, SECOND].map((rip, index) => {
    const vcpu = vm.createVcpu(index, new Uint8Array(buffer, SIZE + index * kvm.vcpuMapSize, kvm.vcpuMapSize));
    vcpu.set('sregs', realMode(vcpu.get('sregs')));
    vcpu.set('regs', { rip: BigInt(rip), rflags: 2n });
    return vcpu;
  }) as [ReturnType<typeof vm.createVcpu>, ReturnType<typeof vm.createVcpu>];
  const kicker = new Kicker(kvm.libc);
  kicker.watch(first);
  const device = { read: () => 0, write: () => memory.setUint16(SEEN, memory.getUint32(TOLD, true) & 0xffff, true) };
  const doorbells = new Doorbells();
  if (way === 'notes')
    doorbells.update([{ base: BELL, size: 4, handler: { ...device, doorbells: [{ offset: 0, value: null }] } }]);
  const eventfd = kvm.libc.eventfd();
  let waiter: Worker | null = null;
  if (way === 'eventfd') {
    vm.addDoorbell({ port: false, address: BELL, length: 2, value: null, eventfd });
    waiter = new Worker(new URL('./eventfd-thread.ts', import.meta.url), {
      execArgv: ['--no-warnings'],
      workerData: { machine: kicker.cells, eventfd } satisfies EventThreadData,
    });
  }
  const answer = (): void => {
    doorbells.answer();
    if (way === 'eventfd') device.write();
    const { request } = thread.channel;
    if (request === null) return;
    if (request !== EXIT.KVM_EXIT_MMIO) throw new Error(`the guest left with ${request}`);
    device.write();
    thread.channel.answer();
  };
  const thread = new VcpuThread(second, kicker, answer, console.error, false, doorbells.cells);
  const turn = (): Promise<void> => new Promise((resolve) => kicker.afterEvents(resolve));
  const runFor = async (seconds: number): Promise<number> => {
    const begun = performance.now();
    const before = memory.getUint32(TOLD, true);
    while (performance.now() < begun + 1000 * seconds) {
      if (kicker.enter(100)) {
        answer();
        first.enter();
      }
      if (kicker.leave()) await turn();
    }
    return ((performance.now() - begun) * 1000) / (memory.getUint32(TOLD, true) - before);
  };
  await runFor(0.5);
  const result = await runFor(SECONDS);
  kicker.leave();
  const ended = thread.end();
  await ended;
  await waiter?.terminate();
  kicker.close();
  vm.close();
  kvm.close();
  return result;
}

for (const [name, guest] of Object.entries(GUESTS)) {
  for (const way of name === 'no device' ? (['asks'] as const) : WAYS) {
    console.log(`${name.padEnd(11)} ${name === 'no device' ? '' : way.padEnd(8)} ${(await measure(way, guest)).toFixed(1)} us`);
  }
}
process.exit();
