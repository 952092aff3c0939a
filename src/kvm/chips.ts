/** Interrupt controllers and interval timer in the kernel, in place of the board's own. */
import type { DeviceState, KernelApics, KernelChips, Msi } from '../machine/interfaces.ts';
import { ioApicFromKernel, ioApicToKernel } from './state/ioapic.ts';
import { type KernelApic, apicFromKernel, apicToKernel } from './state/lapic.ts';
import { picFromKernel, picToKernel } from './state/pic.ts';
import { type Moment, pitFromKernel, pitToKernel } from './state/pit.ts';
import type { Vcpu } from './vcpu.ts';
import { Routes } from './routes.ts';
import type { Route, Vm } from './vm.ts';

interface Stateful {
  saveState(): DeviceState;
  loadState(state: DeviceState): void;
}

/** What of a board has a double in the kernel. */
export interface ChipBoard {
  readonly pic: Stateful & { readonly intr: boolean; acknowledge(): number };
  readonly ioapic: Stateful & { onEntries: (() => void) | null; levelMessages(): ReadonlyMap<number, Msi> };
  readonly apicBus: { broadcastEoi(vector: number): void };
  readonly pit: Stateful;
  /** One for each CPU, the boot processor's first. */
  readonly lapics: readonly Stateful[];
  readonly apicIds: readonly number[];
  /** Levels of the interrupt inputs, a bit each. */
  readonly inputLevels: number;
  useKernelChips(chips: KernelChips | null): void;
  useKernelApics(apics: KernelApics | null): void;
}

/** Chips of a machine whose local APICs, at least, are in the kernel (`kernel-irqchip`). */
export interface InterruptChips {
  readonly routes: Routes;
  /** Gives the kernel the board's state. @returns the local APICs', which go with their vCPUs */
  take(moment: Moment): KernelApic[];
  /** The board's own sleep from now on. */
  begin(): void;
  /** Gives the board the kernel's state, and its interrupts back. */
  giveBack(apics: readonly KernelApic[], moment: Moment): void;
  /** The board's own wake, whatever the kernel's state is. */
  end(): void;
  /** Before the boot processor enters the guest. */
  offer(boot: Vcpu): void;
}

const INPUTS = 24;
const PIC_INPUTS = 8;
const CASCADE = 2;

/** The board's wiring: input 0 is the I/O APIC's pin 2, which has no input of its own. */
function wiring(): Route[] {
  const routes: Route[] = [];
  for (let gsi = 0; gsi < INPUTS; gsi++) {
    if (gsi === CASCADE) continue;
    if (gsi < PIC_INPUTS) routes.push({ gsi, chip: 'master', pin: gsi });
    else if (gsi < 2 * PIC_INPUTS) routes.push({ gsi, chip: 'slave', pin: gsi - PIC_INPUTS });
    routes.push({ gsi, chip: 'ioapic', pin: gsi === 0 ? CASCADE : gsi });
  }
  return routes;
}

/** Levels of the I/O APIC's pins by those of the board's inputs. */
const pinLevels = (inputs: number): number => (inputs & ~((1 << CASCADE) | 1)) | (inputs & 1 ? 1 << CASCADE : 0);

export class Chips implements KernelChips, InterruptChips {
  private readonly vm: Vm;
  private readonly board: ChipBoard;
  private readonly nmi: () => void;
  readonly routes: Routes;

  /** Before the first vCPU is made. @param nmi raises LINT1 of the boot processor */
  constructor(vm: Vm, board: ChipBoard, nmi: () => void) {
    this.vm = vm;
    this.board = board;
    this.nmi = nmi;
    vm.createIrqchip();
    vm.createPit();
    this.routes = new Routes(vm, INPUTS);
    this.routes.setOwn(wiring());
  }

  setInput(input: number, level: boolean): void {
    if (input !== CASCADE) this.vm.setIrqLine(input, level);
  }

  sendMsi(address: number, data: number, byEventfd?: boolean): void {
    this.routes.send(address, data, byEventfd);
  }

  lint1(): void {
    this.nmi();
  }

  take({ virtual, host }: Moment): KernelApic[] {
    const { vm, board } = this;
    const levels = board.inputLevels;
    // First the wires, so that none of them rises when the chips can deliver it.
    for (let input = 0; input < INPUTS; input++) this.setInput(input, (levels & (1 << input)) !== 0);
    const [master, slave] = picToKernel(board.pic.saveState());
    vm.setChip('master', { pic: master });
    vm.setChip('slave', { pic: slave });
    vm.setChip('ioapic', { ioapic: ioApicToKernel(board.ioapic.saveState()) });
    vm.setPit(pitToKernel(board.pit.saveState(), { virtual, host }));
    return board.lapics.map((lapic, cpu) => apicToKernel(lapic.saveState(), virtual, board.apicIds[cpu]!));
  }

  begin(): void {
    this.board.useKernelChips(this);
  }

  end(): void {
    this.board.useKernelChips(null);
  }

  offer(): void {
    // The kernel does all of it.
  }

  giveBack(apics: readonly KernelApic[], moment: Moment): void {
    const { vm, board } = this;
    const pics = [vm.getChip('master').pic, vm.getChip('slave').pic] as const;
    const { ioapic } = vm.getChip('ioapic');
    // The board's timer drives its wire again: as it stood, which is no edge.
    board.pit.loadState(pitFromKernel(vm.getPit(), board.pit.saveState(), moment));
    const levels = board.inputLevels;
    board.pic.loadState(picFromKernel(pics, board.pic.saveState(), levels));
    board.ioapic.loadState(ioApicFromKernel(ioapic, board.ioapic.saveState(), pinLevels(levels)));
    board.lapics.forEach((lapic, cpu) => lapic.loadState(apicFromKernel(apics[cpu]!, lapic.saveState(), moment.virtual)));
    this.end();
  }
}
