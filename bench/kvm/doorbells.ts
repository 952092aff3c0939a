/**
 * What it costs a vCPU to tell a device of work. The first vCPU runs in the devices' thread, the second in one of its own,
 * while the devices' thread is in the guest, too:
 *
 *     first, in place   it leaves the guest, and the device has its turn
 *     second, asks      like any other access: it waits until the devices' thread has carried it out
 *     second, notes     doorbells.ts: its thread leaves a note, calls the devices' thread out, and goes back
 *     either, eventfd   event-bells.ts: the kernel writes to an eventfd (KVM_IOEVENTFD), for which a further thread waits, as a
 *                       thread that is in the guest cannot: it calls the devices' thread out
 *
 *     node --no-warnings bench/kvm/doorbells.ts [SECONDS]
 */
import { EXIT } from '../../src/kvm/constants.ts';
import { Doorbells, placesOf } from '../../src/kvm/doorbells.ts';
import { EventBells } from '../../src/kvm/event-bells.ts';
import { realMode } from '../../src/kvm/guest-modes.ts';
import { Kicker } from '../../src/kvm/kicker.ts';
import { Kvm } from '../../src/kvm/system.ts';
import type { Vcpu } from '../../src/kvm/vcpu.ts';
import { VcpuThread } from '../../src/kvm/vcpu-thread.ts';
import type { IoHandler } from '../../src/machine/interfaces.ts';

const SECONDS = Number(process.argv[2] ?? 3);
const SIZE = 0x1_0000;
/** Code of the vCPU that does nothing, and of the one that tells. */
const IDLE = 0x1000;
const TELLER = 0x4000;
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
const WAYS = [
  ['first', 'in place'],
  ['first', 'eventfd'],
  ['second', 'asks'],
  ['second', 'notes'],
  ['second', 'eventfd'],
] as const;
type Way = (typeof WAYS)[number];

/** Two vCPUs and a device, which counts in the guest's memory. */
class Rig {
  private readonly kvm = new Kvm();
  private readonly vm = this.kvm.createVm();
  private readonly memory: DataView;
  private readonly first: Vcpu;
  private readonly kicker: Kicker;
  private readonly doorbells = new Doorbells();
  private thread: VcpuThread | null = null;
  private readonly events: EventBells;

  constructor(way: Way, guest: readonly number[]) {
    const { kvm, vm } = this;
    const { buffer } = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
    this.memory = new DataView(buffer, 0, SIZE);
    const bytes = new Uint8Array(buffer, 0, SIZE);
    bytes.set(SPIN, IDLE);
    bytes.set(guest, TELLER);
    vm.setMemory({ slot: 0, guestAddress: 0, size: SIZE, hostAddress: kvm.libc.addressOf(bytes) });
    const [who, how] = way;
    const [first, second] = (who === 'first' ? [TELLER, IDLE] : [IDLE, TELLER]).map((rip, index) => {
      const vcpu = vm.createVcpu(index, new Uint8Array(buffer, SIZE + index * kvm.vcpuMapSize, kvm.vcpuMapSize));
      vcpu.set('sregs', realMode(vcpu.get('sregs')));
      vcpu.set('regs', { rip: BigInt(rip), rflags: 2n });
      return vcpu;
    });
    this.first = first!;
    this.kicker = new Kicker(kvm.libc);
    this.kicker.watch(this.first);
    this.events = new EventBells(vm, this.kicker.cells);
    const registers = [{ base: BELL, size: 4, handler: this.handler(how === 'eventfd') }];
    if (how === 'notes') this.doorbells.update(registers);
    this.events.update(placesOf(registers), []);
    if (who === 'second') {
      this.thread = new VcpuThread(second!, this.kicker, () => this.answer(), console.error, false, this.doorbells.cells);
    }
  }

  private handler(eventfd: boolean): IoHandler {
    return { read: () => 0, write: () => this.told(), doorbells: [{ offset: 0, value: null, eventfd }] };
  }

  private get count(): number {
    return this.memory.getUint32(TOLD, true);
  }

  private told(): void {
    this.memory.setUint16(SEEN, this.count & 0xffff, true);
  }

  private answer(): void {
    this.doorbells.answer();
    this.events.answer();
    const request = this.thread?.channel.request ?? null;
    if (request === null) return;
    if (request !== EXIT.KVM_EXIT_MMIO) throw new Error(`the guest left with ${request}`);
    this.told();
    this.thread!.channel.answer();
  }

  /** @returns microseconds that a turn of the guest's loop takes */
  private async runFor(seconds: number): Promise<number> {
    const { first, kicker } = this;
    const begun = performance.now();
    const before = this.count;
    let served = false;
    while (performance.now() < begun + 1000 * seconds) {
      // As a machine does: after an exit it goes back into the guest, unless somebody calls.
      if ((served && kicker.mayStay) || kicker.enter(100)) {
        this.answer();
        served = first.enter() === EXIT.KVM_EXIT_MMIO;
        if (served) this.told();
      } else if (kicker.leave()) await new Promise<void>((resolve) => kicker.afterEvents(resolve));
    }
    return ((performance.now() - begun) * 1000) / (this.count - before);
  }

  async measure(): Promise<number> {
    // Threads take a while to begin.
    while (this.count < 100) await this.runFor(0.2);
    const time = await this.runFor(SECONDS);
    this.kicker.leave();
    await this.thread?.end();
    this.events.close();
    this.kicker.close();
    this.vm.close();
    this.kvm.close();
    return time;
  }
}

for (const [name, guest] of Object.entries(GUESTS)) {
  for (const way of name === 'no device' ? WAYS.slice(0, 1) : WAYS) {
    const time = await new Rig(way, guest).measure();
    console.log(`${name.padEnd(11)} ${way.join(', ').padEnd(16)} ${time.toFixed(1).padStart(7)} us`);
  }
}
process.exit();
