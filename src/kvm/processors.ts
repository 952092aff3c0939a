/**
 * All vCPUs of a machine: the boot processor, which the machine's own thread runs, and further ones in threads of their
 * own, whose exits that thread answers. What is done to the machine as a whole is done while all of them are out of the guest.
 */
import type { VisibleRegisters } from '../machine/address-space.ts';
import { EXIT } from './constants.ts';
import { describeVcpu } from './describe.ts';
import { Doorbells, placesOf } from './doorbells.ts';
import { EventBells } from './event-bells.ts';
import type { Kicker } from './kicker.ts';
import { SystemCallError } from './libc.ts';
import type { Kvm } from './system.ts';
import type { Vcpu } from './vcpu.ts';
import { VcpuThread } from './vcpu-thread.ts';
import type { Vm } from './vm.ts';

/** Carries an exit out. @param reason KVM_EXIT_... @returns false when the vCPU cannot go on */
export type Serve = (vcpu: Vcpu, reason: number) => boolean;

interface Further {
  readonly thread: VcpuThread;
  /** It waits for an answer that it will not get. */
  broken: boolean;
}

const WASM_PAGE = 65536;

export class Processors {
  /** All of them, the boot processor first. */
  readonly all: readonly Vcpu[];
  private readonly further: readonly Further[];
  readonly doorbells = new Doorbells();
  readonly eventBells: EventBells;
  /** Who wants them out of the guest. */
  private holders = 1;
  private closed = false;

  /**
   * They begin out of the guest, until `release`.
   * @param apicIds of the vCPUs, the boot processor's first
   * @param prepare sets a vCPU up before its thread begins
   * @param kicker the machine's thread's, which calls this
   * @param onRequest a further vCPU wants an answer (`answer`) and nobody is in the guest
   * @param onFailure a vCPU's thread has failed. @param text several lines
   * @throws SystemCallError
   */
  constructor(
    kvm: Kvm,
    vm: Vm,
    apicIds: readonly number[],
    prepare: (vcpu: Vcpu, index: number) => void,
    kicker: Kicker,
    onRequest: () => void,
    onFailure: (text: string) => void,
  ) {
    this.eventBells = new EventBells(vm, kicker.cells);
    const places = sharedPages(apicIds.length, kvm.vcpuMapSize);
    this.all = apicIds.map((id, index) => vm.createVcpu(id, places[index]!));
    this.all.forEach(prepare);
    this.further = this.all.slice(1).map((vcpu, index) => ({
      thread: new VcpuThread(
        vcpu,
        kicker,
        () => {
          if (!this.closed) onRequest();
        },
        (error) => {
          if (!this.closed) onFailure(`the thread of CPU ${index + 1} has ended: ${error.message}`);
        },
        true,
        this.doorbells.cells,
      ),
      broken: false,
    }));
  }

  get boot(): Vcpu {
    return this.all[0]!;
  }

  /** Registers have come, gone or moved, or are to be answered for in another way. */
  registersChanged(registers: readonly VisibleRegisters[], ports: readonly VisibleRegisters[]): void {
    if (this.further.length > 0) this.doorbells.update(registers);
    this.eventBells.update(placesOf(registers), placesOf(ports));
  }

  /** Answers those that wait for it, and those that have rung. @returns whether anybody did */
  answer(serve: Serve): boolean {
    let any = this.further.length > 0 && this.doorbells.answer();
    any = this.eventBells.answer() || any;
    for (const one of this.further) any = this.answerOne(one, serve) || any;
    return any;
  }

  private answerOne(one: Further, serve: Serve): boolean {
    const { channel, vcpu } = one.thread;
    const { request } = channel;
    if (request === null || one.broken) return false;
    // It may have rung before that.
    this.doorbells.answer();
    if (serve(vcpu, request)) channel.answer();
    else one.broken = true;
    return !one.broken;
  }

  /**
   * Returns when none is in the guest, nor waits for an answer, nor has an instruction half done: their state is one.
   * The calling thread must be out of the guest itself.
   */
  hold(serve: Serve): void {
    this.beginHold();
    for (const one of this.further) while (!one.thread.channel.awaitPause() && this.answerOne(one, serve));
    for (const vcpu of this.all) if (!this.isBroken(vcpu)) completeInstruction(vcpu, serve);
    this.doorbells.answer();
    this.eventBells.answerAll();
  }

  /** Lets them into the guest, unless somebody else holds them. */
  release(): void {
    if (--this.holders === 0) for (const { thread } of this.further) thread.channel.resume();
  }

  /** Carries something out while nobody is in the guest; some may wait for an answer, and get it later. */
  alone(change: () => void): void {
    this.beginHold();
    for (const { thread } of this.further) thread.channel.awaitPause();
    try {
      change();
    } finally {
      this.release();
    }
  }

  private beginHold(): void {
    if (this.holders++ === 0) for (const { thread } of this.further) thread.channel.beginPause();
  }

  private isBroken(vcpu: Vcpu): boolean {
    return this.further.some(({ thread, broken }) => broken && thread.vcpu === vcpu);
  }

  /** Where a vCPU stands that cannot go on. */
  describe(vcpu: Vcpu, error: SystemCallError | null): string {
    const text = describeVcpu(vcpu, error);
    return this.all.length === 1 ? text : `CPU ${this.all.indexOf(vcpu)}: ${text}`;
  }

  /** Ends the threads; the vCPUs may be closed afterwards, and none enters the guest any more. */
  close(): void {
    this.closed = true;
    this.eventBells.close();
    this.beginHold();
    for (const { thread } of this.further) {
      thread.channel.awaitPause();
      void thread.end();
    }
  }
}

/** The instruction of the last exit has to end before its state is one. */
function completeInstruction(vcpu: Vcpu, serve: Serve): void {
  for (let reason = vcpu.complete(); reason !== EXIT.KVM_EXIT_INTR; reason = vcpu.complete()) {
    if (!serve(vcpu, reason)) return;
  }
}

/** Places for what vCPUs share with us, which all threads see; the boot processor's is nobody else's. */
function sharedPages(count: number, size: number): (Uint8Array | null)[] {
  if (count === 1) return [null];
  const pages = Math.ceil((count * size) / WASM_PAGE);
  const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  return Array.from({ length: count }, (_, index) => (index === 0 ? null : new Uint8Array(buffer, index * size, size)));
}

/** @param request of `ExitChannel`: an exit, or the negated error of KVM_RUN */
export const errorOf = (request: number): SystemCallError | null =>
  request < 0 ? new SystemCallError('KVM_RUN', -request) : null;
