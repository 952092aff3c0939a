/**
 * 16550A serial port: National Semiconductor PC16550D data sheet.
 *
 * Output leaves at once, whatever the divisor says. Only a full backend makes the transmitter
 * busy; input is taken as fast as the receive FIFO empties.
 */
import type { CharBackend, Device, DeviceState, IoHandler, IrqLine, Timer, VirtualClock } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';

const FIFO_SIZE = 16;
const CRYSTAL_HZ = 115_200;

const IER = { receive: 1, transmit: 2, line: 4, modem: 8 } as const;
/** Interrupt identification, highest priority first (table II). */
const IIR = { line: 0x06, receive: 0x04, timeout: 0x0c, transmit: 0x02, modem: 0x00, none: 0x01 };
const FCR = { enable: 1, clearReceive: 2, clearTransmit: 4 } as const;
const LCR = { break: 0x40, dlab: 0x80 } as const;
const MCR = { dtr: 1, rts: 2, out1: 4, out2: 8, loop: 16 } as const;
const LSR = { data: 1, overrun: 2, break: 0x10, thrEmpty: 0x20, idle: 0x40 } as const;
const MSR = { deltas: 0x0f, ringTrail: 4, cts: 0x10, dsr: 0x20, ring: 0x40, dcd: 0x80 } as const;
const TRIGGER_LEVELS = [1, 4, 8, 14] as const;

function powerOn() {
  return {
    ier: 0,
    fcr: 0,
    lcr: 0,
    mcr: 0,
    scratch: 0,
    divisor: 12,
    /** Sticky error bits of the line status register. */
    lineErrors: 0,
    modemLines: MSR.cts | MSR.dsr | (MSR.dcd as number),
    modemDeltas: 0,
    receive: new Uint8Array(FIFO_SIZE),
    receiveHead: 0,
    receiveCount: 0,
    transmit: new Uint8Array(FIFO_SIZE),
    transmitCount: 0,
    /** "Transmitter holding register empty" is to be announced. */
    transmitPending: false,
    timeoutPending: false,
    /** The backend was full at the last write. */
    blocked: false,
  };
}

const LIMITS = {
  ier: 15,
  fcr: 255,
  lcr: 255,
  mcr: 31,
  scratch: 255,
  divisor: 0xffff,
  lineErrors: 0xff,
  modemLines: 0xf0,
  modemDeltas: 15,
  receiveHead: FIFO_SIZE - 1,
  receiveCount: FIFO_SIZE,
  transmitCount: FIFO_SIZE,
};

export class Uart16550 implements Device {
  readonly type = 'isa-serial';
  readonly id: string;
  /** Eight byte-wide ports. */
  readonly ports: IoHandler;

  private readonly clock: VirtualClock;
  private readonly irq: IrqLine;
  private readonly backend: CharBackend | null;
  private readonly timeout: Timer;
  private readonly state: StateBlock<ReturnType<typeof powerOn>>;
  constructor(clock: VirtualClock, irq: IrqLine, backend: CharBackend | null, id = 'serial0') {
    this.id = id;
    this.state = new StateBlock(id, 1, powerOn, LIMITS);
    this.clock = clock;
    this.irq = irq;
    this.backend = backend;
    this.timeout = clock.timer(() => {
      this.state.value.timeoutPending = this.state.value.receiveCount !== 0;
      this.update();
    });
    this.state.keepTimers({ timeout: this.timeout });
    this.ports = {
      read: (offset) => this.read(offset & 7),
      write: (offset, _size, value) => this.write(offset & 7, value & 0xff),
    };
    if (backend !== null) {
      backend.onReceive = (data) => this.receive(data);
      backend.onDrain = () => this.drained();
    }
  }

  /** The line was held in the break condition for a frame; sysrq listens to it. */
  receiveBreak(): void {
    const s = this.state.value;
    if ((s.mcr & MCR.loop) !== 0) return;
    s.lineErrors |= LSR.break;
    this.push(0);
    this.update();
  }

  reset(): void {
    const { blocked } = this.state.value;
    this.state.reset();
    this.state.value.blocked = blocked;
    this.timeout.cancel();
    this.update();
    this.backend?.resume();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
    this.update();
    this.state.armTimers();
  }

  /** The backend is another one, with room. */
  afterLoad(): void {
    if (this.state.value.blocked) this.drained();
  }

  // --- registers

  private read(offset: number): number {
    const s = this.state.value;
    const dlab = (s.lcr & LCR.dlab) !== 0;
    switch (offset) {
      case 0:
        return dlab ? s.divisor & 0xff : this.readData();
      case 1:
        return dlab ? s.divisor >> 8 : s.ier;
      case 2:
        return this.readIdentification();
      case 3:
        return s.lcr;
      case 4:
        return s.mcr;
      case 5:
        return this.readLineStatus();
      case 6:
        return this.readModemStatus();
      default:
        return s.scratch;
    }
  }

  private write(offset: number, value: number): void {
    const s = this.state.value;
    const dlab = (s.lcr & LCR.dlab) !== 0;
    switch (offset) {
      case 0:
        if (dlab) s.divisor = (s.divisor & 0xff00) | value;
        else this.writeData(value);
        break;
      case 1:
        if (dlab) s.divisor = (s.divisor & 0xff) | (value << 8);
        else this.writeEnable(value & 15);
        break;
      case 2:
        this.writeFifoControl(value);
        break;
      case 3:
        s.lcr = value;
        break;
      case 4:
        this.writeModemControl(value & 0x1f);
        break;
      case 7:
        s.scratch = value;
        break;
      default:
        break;
    }
  }

  private readData(): number {
    const s = this.state.value;
    const value = s.receive[s.receiveHead]!;
    s.timeoutPending = false;
    if (s.receiveCount !== 0) {
      s.receiveCount--;
      s.receiveHead = (s.receiveHead + 1) % FIFO_SIZE;
      this.armTimeout();
      this.update();
      if (s.receiveCount === 0 && (s.mcr & MCR.loop) === 0) this.backend?.resume();
    }
    return value;
  }

  private readIdentification(): number {
    const s = this.state.value;
    const id = this.identify();
    // Reading it acknowledges the transmitter's interrupt, if that is the one shown.
    if (id === IIR.transmit) {
      s.transmitPending = false;
      this.update();
    }
    return id | ((s.fcr & FCR.enable) !== 0 ? 0xc0 : 0);
  }

  private readLineStatus(): number {
    const s = this.state.value;
    const empty = s.transmitCount === 0 ? LSR.thrEmpty | LSR.idle : 0;
    const value = (s.receiveCount !== 0 ? LSR.data : 0) | s.lineErrors | empty;
    if (s.lineErrors !== 0) {
      s.lineErrors = 0;
      this.update();
    }
    return value;
  }

  private readModemStatus(): number {
    const s = this.state.value;
    const value = this.modemStatus() | s.modemDeltas;
    if (s.modemDeltas !== 0) {
      s.modemDeltas = 0;
      this.update();
    }
    return value;
  }

  private writeData(value: number): void {
    const s = this.state.value;
    // The line must fall in between, or an edge-triggered controller would see one interrupt.
    s.transmitPending = false;
    this.update();
    if ((s.mcr & MCR.loop) !== 0) {
      this.push(value);
      s.transmitPending = true;
    } else if (s.blocked) {
      if (s.transmitCount < this.depth()) s.transmit[s.transmitCount++] = value;
    } else {
      this.send(Uint8Array.of(value));
      s.transmitPending = !s.blocked;
    }
    this.update();
  }

  private writeEnable(value: number): void {
    const s = this.state.value;
    // Enabling the transmitter's interrupt while it is empty raises it at once: drivers start
    // their output by that, and Linux probes for it.
    if ((value & ~s.ier & IER.transmit) !== 0) s.transmitPending = s.transmitCount === 0;
    s.ier = value;
    this.update();
  }

  private writeFifoControl(value: number): void {
    const s = this.state.value;
    // Both FIFOs are emptied when they are switched on or off.
    const switched = ((value ^ s.fcr) & FCR.enable) !== 0;
    if (switched || (value & FCR.clearReceive) !== 0) {
      s.receiveCount = 0;
      s.receiveHead = 0;
      s.timeoutPending = false;
      this.timeout.cancel();
    }
    if (switched || (value & FCR.clearTransmit) !== 0) {
      s.transmitCount = 0;
      s.transmitPending = true;
    }
    s.fcr = (value & FCR.enable) !== 0 ? value & 0xc9 : 0;
    this.update();
    if (s.receiveCount === 0) this.backend?.resume();
  }

  private writeModemControl(value: number): void {
    const s = this.state.value;
    const before = this.modemStatus();
    s.mcr = value;
    const after = this.modemStatus();
    const changed = (before ^ after) & (MSR.cts | MSR.dsr | MSR.dcd);
    // The ring indicator's delta marks its trailing edge only.
    const trail = (before & ~after & MSR.ring) !== 0 ? MSR.ringTrail : 0;
    s.modemDeltas |= (changed >> 4) | trail;
    this.update();
    if ((value & MCR.loop) === 0) this.backend?.resume();
  }

  /** In loopback outputs arrive at inputs: RTS at CTS, DTR at DSR, OUT1 at RI, OUT2 at DCD. */
  private modemStatus(): number {
    const { mcr, modemLines } = this.state.value;
    if ((mcr & MCR.loop) === 0) return modemLines;
    return (
      ((mcr & MCR.rts) !== 0 ? MSR.cts : 0) |
      ((mcr & MCR.dtr) !== 0 ? MSR.dsr : 0) |
      ((mcr & MCR.out1) !== 0 ? MSR.ring : 0) |
      ((mcr & MCR.out2) !== 0 ? MSR.dcd : 0)
    );
  }

  // --- interrupts

  private identify(): number {
    const s = this.state.value;
    if ((s.ier & IER.line) !== 0 && s.lineErrors !== 0) return IIR.line;
    if ((s.ier & IER.receive) !== 0) {
      if (s.receiveCount >= this.triggerLevel()) return IIR.receive;
      if (s.timeoutPending) return IIR.timeout;
    }
    if ((s.ier & IER.transmit) !== 0 && s.transmitPending) return IIR.transmit;
    if ((s.ier & IER.modem) !== 0 && s.modemDeltas !== 0) return IIR.modem;
    return IIR.none;
  }

  private triggerLevel(): number {
    const { fcr } = this.state.value;
    return (fcr & FCR.enable) !== 0 ? TRIGGER_LEVELS[fcr >> 6]! : 1;
  }

  private update(): void {
    // PCs gate the line by OUT2. Guests that were only ever run in emulators leave it off (xv6
    // does), and no guest relies on the gate: so there is none.
    this.irq.set(this.identify() !== IIR.none);
  }

  // --- data

  private depth(): number {
    return (this.state.value.fcr & FCR.enable) !== 0 ? FIFO_SIZE : 1;
  }

  /** Takes what fits: a paste must not overrun a guest that reads slowly. */
  private receive(data: Uint8Array): number {
    const s = this.state.value;
    if ((s.mcr & MCR.loop) !== 0) return 0;
    const taken = Math.min(data.length, Math.max(0, this.depth() - s.receiveCount));
    for (let i = 0; i < taken; i++) this.push(data[i]!);
    if (taken !== 0) this.update();
    return taken;
  }

  private push(value: number): void {
    const s = this.state.value;
    if (s.receiveCount >= this.depth()) {
      s.lineErrors |= LSR.overrun;
      // Without a FIFO the new character replaces the unread one; a full FIFO keeps what it has.
      if (this.depth() === 1) s.receive[s.receiveHead] = value;
      return;
    }
    s.receive[(s.receiveHead + s.receiveCount) % FIFO_SIZE] = value;
    s.receiveCount++;
    this.armTimeout();
  }

  /** Characters below the trigger level are announced after four character times. */
  private armTimeout(): void {
    const s = this.state.value;
    if ((s.fcr & FCR.enable) === 0 || s.receiveCount === 0) return this.timeout.cancel();
    const characterNs = (10e9 / CRYSTAL_HZ) * Math.max(1, s.divisor);
    // A slow divisor must not slow the console down: input is not clocked either.
    this.timeout.arm(this.clock.now() + Math.min(4 * characterNs, 1e6));
  }

  private send(data: Uint8Array): void {
    if (this.backend !== null && !this.backend.write(data)) this.state.value.blocked = true;
  }

  private flush(): void {
    const s = this.state.value;
    if (s.transmitCount === 0) return;
    const waiting = s.transmit.slice(0, s.transmitCount);
    s.transmitCount = 0;
    this.send(waiting);
  }

  private drained(): void {
    const s = this.state.value;
    s.blocked = false;
    this.flush();
    if (!s.blocked) s.transmitPending = true;
    this.update();
  }
}
