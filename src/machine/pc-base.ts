/** What boards with a PC's interrupt controllers have in common, and what they have of a PC at the same ports. */
import { DebugConsole, DebugExit } from '../devices/debug/debug.ts';
import type { LocalApic } from '../devices/intc/apic.ts';
import { Uart16550 } from '../devices/serial/uart16550.ts';
import { I8254 } from '../devices/timer/i8254.ts';
import { Mc146818, type RtcOptions } from '../devices/timer/mc146818.ts';
import { AddressSpace } from './address-space.ts';
import { BoardLife, inLoadingOrder } from './board.ts';
import { type CpuTopology, ONE_CPU } from './cpu-topology.ts';
import type {
  CharBackend,
  CpuPort,
  Device,
  IrqLine,
  KernelApics,
  KernelChips,
  PowerEvent,
  StateOwner,
  Trace,
  TscSource,
  VirtualClock,
} from './interfaces.ts';
import { IoSpace } from './io-space.ts';
import { PcInterrupts } from './pc-interrupts.ts';
import { Pointers } from './pointers.ts';
import type { Typist } from './typist.ts';

export type PcParts = {
  /** `bytes` views the whole shared buffer; RAM lies at `ramOffset`, a whole number of pages. */
  memory: { bytes: Uint8Array; ramOffset: number; ramSize: number };
  /** Pins of the first CPU. */
  cpuPort: CpuPort;
  /** One CPU when not given. */
  topology?: CpuTopology;
  clock: VirtualClock;
  tsc: TscSource;
  /** One per serial port, COM1 first; `null` leaves a port out, at most four. */
  serials?: readonly (CharBackend | null)[];
  debugcon?: { backend: CharBackend; iobase?: number };
  debugExit?: { iobase?: number; iosize?: number };
  rtc?: RtcOptions;
  /** @param code exit code of a 'debug-exit' */
  onPower: (event: PowerEvent, code?: number) => void;
  trace?: Trace;
};

/** Port and interrupt of each serial port. */
export const COM_PORTS = [
  [0x3f8, 4],
  [0x2f8, 3],
  [0x3e8, 4],
  [0x2e8, 3],
] as const;

export abstract class PcBase<Config extends PcParts> {
  readonly mem: AddressSpace;
  readonly io = new IoSpace();
  readonly devices: Device[] = [];
  /** COM1 first; null where there is no port. */
  readonly serials: (Uart16550 | null)[] = [];
  readonly pointers = new Pointers();
  abstract readonly interrupts: PcInterrupts;
  abstract readonly pit: I8254;
  abstract readonly typist: Typist;
  /** What the board itself remembers. */
  readonly life = new BoardLife();
  protected readonly config: Config;
  /** Beyond the board's own, the newest first. */
  protected readonly keyboards: ((codes: readonly number[]) => boolean)[] = [];

  constructor(config: Config) {
    this.config = config;
    this.mem = new AddressSpace(config.memory.bytes);
    this.mem.trace = config.trace;
    this.io.trace = config.trace;
  }

  get pic(): PcInterrupts['pic'] {
    return this.interrupts.pic;
  }

  get ioapic(): PcInterrupts['ioapic'] {
    return this.interrupts.ioapic;
  }

  get apicBus(): PcInterrupts['apicBus'] {
    return this.interrupts.apicBus;
  }

  get apicIds(): readonly number[] {
    return this.interrupts.apicIds;
  }

  get lapics(): readonly LocalApic[] {
    return this.interrupts.lapics;
  }

  get lapic(): LocalApic {
    return this.lapics[0]!;
  }

  get inputLevels(): number {
    return this.interrupts.levels;
  }

  get stateOwners(): StateOwner[] {
    return inLoadingOrder([this.life, this.typist], this.devices, this.interrupts.devices);
  }

  useKernelChips(chips: KernelChips | null): void {
    this.interrupts.useKernelChips(chips);
    this.pit.setDormant(chips !== null);
  }

  useKernelApics(apics: KernelApics | null): void {
    this.interrupts.useKernelApics(apics);
  }

  /** A line of a new source at an interrupt input (0 to 23). */
  irq(input: number): IrqLine {
    return this.interrupts.irq(input);
  }

  protected get topology(): CpuTopology {
    return this.config.topology ?? ONE_CPU;
  }

  protected add<T extends Device>(device: T): T {
    this.devices.push(device);
    return device;
  }

  /** For a register that resets the machine when the guest writes to it. @param register its name in traces */
  protected resetBy(register: string): () => void {
    const { onPower, trace } = this.config;
    return () => {
      trace?.('cpu_reset', `the guest asks for it by ${register}`);
      onPower('reset');
    };
  }

  protected byteWide(...[base, count, handler, name]: Parameters<IoSpace['register']>): void {
    this.io.register(base, count, handler, name, { maxSize: 1 });
  }

  protected addInterrupts(): PcInterrupts {
    const { cpuPort, clock, tsc } = this.config;
    const interrupts = new PcInterrupts({ topology: this.topology, cpuPort, clock, tsc, mem: this.mem, io: this.io });
    for (const device of interrupts.devices) this.add(device);
    return interrupts;
  }

  protected addPit(): I8254 {
    const { clock } = this.config;
    const pit = this.add(new I8254(clock, this.irq(0)));
    pit.onMeasure = (end) => clock.paceUntil?.(end);
    this.byteWide(0x40, 4, pit.ports, 'pit');
    this.byteWide(0x61, 1, pit.speaker, 'port61');
    return pit;
  }

  protected addRtc(): Mc146818 {
    const rtc = this.add(new Mc146818(this.config.clock, this.irq(8), this.config.rtc ?? { baseSeconds: 0 }));
    this.byteWide(0x70, 2, rtc.ports, 'rtc');
    return rtc;
  }

  /** @param most serial ports that the board has room for */
  protected addSerials(most: number): void {
    (this.config.serials ?? []).slice(0, most).forEach((backend, i) => {
      if (backend === null) {
        this.serials.push(null);
        return;
      }
      const [base, irq] = COM_PORTS[i]!;
      const uart = new Uart16550(this.config.clock, this.irq(irq), backend, `serial${i}`);
      this.serials.push(this.add(uart));
      this.byteWide(base, 8, uart.ports, uart.id);
    });
  }

  protected addDebug(): void {
    const { debugcon, debugExit, onPower } = this.config;
    if (debugcon !== undefined) {
      const device = this.add(new DebugConsole(debugcon.backend));
      this.byteWide(debugcon.iobase ?? 0xe9, 1, device.ports, device.id);
    }
    if (debugExit !== undefined) {
      const device = this.add(new DebugExit((code) => onPower('debug-exit', code)));
      this.io.register(debugExit.iobase ?? 0x501, debugExit.iosize ?? 2, device.ports, device.id);
    }
  }
}
