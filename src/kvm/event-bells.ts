/**
 * Doorbells that the kernel answers for (KVM_IOEVENTFD, a device's `ioeventfd=on`): a vCPU that writes to one stays in the
 * guest, and the kernel counts in an eventfd. A thread waits for the eventfds of a machine, whose own thread is in the
 * guest itself, and calls that out:
 *
 *     the kernel          events' thread                    machine's thread
 *     eventfd += 1    ->  poll(2)
 *                         notes it, RUNG = 1, calls out ->  `answer`: reads what is noted, rings
 *                         waits for RUNG = 0            <-  RUNG = 0
 *
 * Only the machine's thread reads, so nothing is ever on its way between threads: what an eventfd has counted is what has
 * not been answered. Whatever cannot be had of the kernel is left to the other ways (doorbells.ts), which always work.
 */
import { Worker } from 'node:worker_threads';
import { ANY, type Place, takeNotes } from './doorbells.ts';
import { CELLS, MOST, NOTES, RUNG, WORDS } from './event-cells.ts';
import { Eventfd } from './eventfd.ts';
import type { EventThreadData } from './event-thread.ts';
import type { Doorbell, Vm } from './vm.ts';

interface Bell {
  readonly doorbell: Doorbell;
  /** Its eventfd's number among ours. */
  readonly index: number;
  ring: () => void;
}

export class EventBells {
  /** How often one was rung, counting as one what came before it was answered. */
  rung = 0;
  private readonly vm: Vm;
  private readonly machine: Int32Array;
  private readonly cells = new Int32Array(new SharedArrayBuffer(4 * CELLS));
  /** Those that there have ever been at one time: they wait for another doorbell when theirs has gone. */
  private readonly eventfds: Eventfd[] = [];
  /** By the number of their eventfd; null where that is free. */
  private readonly bells: (Bell | null)[] = [];
  /** By where they are. */
  private readonly bound = new Map<string, Bell>();
  private worker: Worker | null = null;
  private impossible = false;

  /** @param machine cells of the machine's thread (kicker-cells.ts) */
  constructor(vm: Vm, machine: Int32Array) {
    this.vm = vm;
    this.machine = machine;
  }

  /** Follows the board: those that are to be answered for are, and no others. */
  update(memory: readonly Place[], ports: readonly Place[]): void {
    const wanted = new Map<string, [Place, boolean]>();
    if (!this.impossible) {
      for (const place of memory) if (place.eventfd) wanted.set(`${place.address} ${place.value}`, [place, false]);
      for (const place of ports) if (place.eventfd) wanted.set(`port ${place.address} ${place.value}`, [place, true]);
    }
    for (const [key, bell] of this.bound) if (!wanted.has(key)) this.unbind(key, bell);
    for (const [key, [place, port]] of wanted) {
      const bell = this.bound.get(key);
      if (bell === undefined) this.bind(key, place, port);
      else bell.ring = place.ring;
    }
  }

  /** Rings what vCPUs have written to, and the events' thread has seen. @returns whether there was anything */
  answer(): boolean {
    const { cells } = this;
    if (Atomics.load(cells, RUNG) === 0) return false;
    takeNotes(cells, NOTES, WORDS, (index) => this.look(this.bells[index] ?? null));
    Atomics.store(cells, RUNG, 0);
    Atomics.notify(cells, RUNG);
    return true;
  }

  /** Rings all that vCPUs have written to, none of which is in the guest. */
  answerAll(): void {
    for (const bell of this.bells) this.look(bell);
  }

  /** Takes effect once. */
  close(): void {
    this.impossible = true;
    void this.worker?.terminate();
    this.worker = null;
    this.bound.clear();
    // What the kernel has of them goes with the VM.
    for (const eventfd of this.eventfds) eventfd.close();
    this.eventfds.length = this.bells.length = 0;
  }

  private look(bell: Bell | null): void {
    if (bell === null || !this.eventfds[bell.index]!.take()) return;
    this.rung++;
    bell.ring();
  }

  private bind(key: string, { address, value, size, ring }: Place, port: boolean): void {
    const index = this.freeEventfd();
    if (index < 0) return;
    const eventfd = this.eventfds[index]!.fd;
    const doorbell = { port, address, length: size, value: value === ANY ? null : BigInt(value), eventfd };
    try {
      this.vm.addDoorbell(doorbell);
    } catch {
      // There is another at the same place, or there are too many.
      return;
    }
    const bell = { doorbell, index, ring };
    this.bells[index] = bell;
    this.bound.set(key, bell);
  }

  /** What has been counted by then is still that doorbell's. */
  private unbind(key: string, bell: Bell): void {
    this.vm.removeDoorbell(bell.doorbell);
    this.bound.delete(key);
    this.bells[bell.index] = null;
    this.look(bell);
  }

  /** @returns the number of one that no doorbell has, or -1 */
  private freeEventfd(): number {
    const free = this.bells.indexOf(null);
    if (free >= 0) return free;
    if (this.eventfds.length === MOST) return -1;
    if (this.worker === null && !this.begin()) return -1;
    try {
      this.eventfds.push(new Eventfd(this.vm.libc));
    } catch {
      return -1;
    }
    this.worker?.postMessage(this.eventfds.map(({ fd }) => fd));
    return this.bells.push(null) - 1;
  }

  /** Starts the thread. @returns false where this KVM does not answer for doorbells */
  private begin(): boolean {
    this.impossible = this.vm.check('KVM_CAP_IOEVENTFD') === 0 || this.vm.check('KVM_CAP_IOEVENTFD_ANY_LENGTH') === 0;
    if (this.impossible) return false;
    this.worker = new Worker(new URL('./event-thread.ts', import.meta.url), {
      execArgv: ['--no-warnings'],
      workerData: { cells: this.cells, machine: this.machine } satisfies EventThreadData,
      // It makes nothing: most of what a thread takes is room for new objects.
      resourceLimits: { maxYoungGenerationSizeMb: 1 },
    });
    this.worker.on('error', () => undefined);
    this.worker.on('exit', () => this.giveUp());
    this.worker.unref();
    return true;
  }

  /** Nobody waits for them any more: vCPUs leave the guest again. */
  private giveUp(): void {
    if (this.worker === null) return;
    this.worker = null;
    this.impossible = true;
    for (const [key, bell] of this.bound) this.unbind(key, bell);
  }
}
