/**
 * Local APICs in the kernel, and all other interrupt chips the board's own (`kernel-irqchip=split`):
 *
 *     I/O APIC --message--> KVM_SIGNAL_MSI          8259 --vector--> the boot processor, when it can take it
 *              <--end of a level-triggered one----- KVM_EXIT_IOAPIC_EOI
 *
 * The kernel tells of ends only where a route of the I/O APIC's says that the interrupt is level-triggered.
 */
import type { KernelApics } from '../machine/interfaces.ts';
import type { ChipBoard, InterruptChips } from './chips.ts';
import { NUMBERS } from './constants.ts';
import { Routes } from './routes.ts';
import { type KernelApic, apicFromKernel, apicToKernel } from './state/lapic.ts';
import type { Moment } from './state/pit.ts';
import type { Vcpu } from './vcpu.ts';
import type { Vm } from './vm.ts';

const PINS = 24;

export class SplitChips implements KernelApics, InterruptChips {
  private readonly board: ChipBoard;
  private readonly nmi: () => void;
  readonly routes: Routes;
  /** Routes of the I/O APIC's that the kernel has, as text. */
  private routed = '';

  /** Before the first vCPU is made. @param nmi raises LINT1 of the boot processor @throws SystemCallError */
  constructor(vm: Vm, board: ChipBoard, nmi: () => void) {
    this.board = board;
    this.nmi = nmi;
    vm.createSplitIrqchip(PINS);
    this.routes = new Routes(vm, PINS);
  }

  sendMsi(address: number, data: number, byEventfd?: boolean): void {
    this.routes.send(address, data, byEventfd);
  }

  lint1(): void {
    this.nmi();
  }

  take({ virtual }: Moment): KernelApic[] {
    const { board } = this;
    return board.lapics.map((lapic, cpu) => apicToKernel(lapic.saveState(), virtual, board.apicIds[cpu]!));
  }

  begin(): void {
    const { board } = this;
    board.useKernelApics(this);
    board.ioapic.onEntries = () => this.route();
    this.route();
  }

  end(): void {
    this.board.ioapic.onEntries = null;
    this.board.useKernelApics(null);
  }

  giveBack(apics: readonly KernelApic[], { virtual }: Moment): void {
    this.board.lapics.forEach((lapic, cpu) => lapic.loadState(apicFromKernel(apics[cpu]!, lapic.saveState(), virtual)));
    this.end();
  }

  /**
   * Has the boot processor take what waits at the 8259, or leave as soon as it can. It is given as an event rather than by
   * KVM_INTERRUPT, of which the kernel does not say whether it has been taken.
   */
  offer(boot: Vcpu): void {
    const { pic } = this.board;
    const { run } = boot;
    if (pic.intr && run.readyForInterrupt) this.inject(boot);
    run.setInterruptWindow(pic.intr);
  }

  private inject(boot: Vcpu): void {
    const events = boot.get('events');
    if (events.interrupt.injected !== 0) return;
    events.interrupt.injected = 1;
    events.interrupt.nr = this.board.pic.acknowledge();
    events.interrupt.soft = 0;
    boot.set('events', events);
    if (boot.get('mpState').mp_state === NUMBERS.KVM_MP_STATE_HALTED)
      boot.set('mpState', { mp_state: NUMBERS.KVM_MP_STATE_RUNNABLE });
  }

  /** A table of routes is costly for the kernel: masking a pin changes none. */
  private route(): void {
    const messages = this.board.ioapic.levelMessages();
    const text = Array.from(messages, ([pin, { address, data }]) => `${pin}:${address}:${data}`).join();
    if (text === this.routed) return;
    this.routed = text;
    this.routes.setOwn(Array.from(messages, ([gsi, { address, data }]) => ({ gsi, address: BigInt(address), data })));
  }
}
