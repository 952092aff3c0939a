/**
 * Keyboard controller of the PC/AT with a PS/2 keyboard and mouse behind it: IBM PS/2 hardware
 * interface technical reference, "Keyboard and auxiliary device controller".
 */
import type { Device, DeviceState, IoHandler, IrqLine } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';

/** Output queue of each device; what does not fit is lost, as on the real thing. */
const QUEUE_SIZE = 64;

const STATUS = { full: 0x01, system: 0x04, command: 0x08, unlocked: 0x10, mouse: 0x20 } as const;
const CONFIG = {
  keyboardIrq: 0x01,
  mouseIrq: 0x02,
  system: 0x04,
  keyboardOff: 0x10,
  mouseOff: 0x20,
  translate: 0x40,
} as const;
const OUTPUT = { noReset: 0x01, a20: 0x02 } as const;
const ACK = 0xfa;

function queuePowerOn() {
  return { bytes: new Uint8Array(QUEUE_SIZE), head: 0, count: 0 };
}

type QueueState = ReturnType<typeof queuePowerOn>;

function push(queue: QueueState, value: number): void {
  if (queue.count === QUEUE_SIZE) return;
  queue.bytes[(queue.head + queue.count) % QUEUE_SIZE] = value;
  queue.count++;
}

function shift(queue: QueueState): number {
  const value = queue.bytes[queue.head]!;
  queue.head = (queue.head + 1) % QUEUE_SIZE;
  queue.count--;
  return value;
}

function clear(queue: QueueState): void {
  queue.head = 0;
  queue.count = 0;
}

export type I8042Wiring = {
  keyboardIrq: IrqLine;
  mouseIrq: IrqLine;
  setA20: (enabled: boolean) => void;
  resetCpu: () => void;
};

export class I8042 implements Device {
  readonly type = 'i8042';
  readonly id: string;
  /** Ports 60h and 64h, as offsets 0 and 4. */
  readonly ports: IoHandler;

  private readonly wiring: I8042Wiring;
  private readonly state = new StateBlock(
    'i8042',
    1,
    () => ({
      config: CONFIG.keyboardIrq | CONFIG.system | (CONFIG.translate as number),
      outputPort: OUTPUT.noReset | (OUTPUT.a20 as number),
      /** Controller command waiting for its data byte at port 60h; 0 when none. */
      command: 0,
      lastWasCommand: false,
      /** Output buffer: what port 60h shows. */
      full: false,
      fromMouse: false,
      data: 0,
      /** The controller's own replies, which go before the devices' bytes. */
      controller: queuePowerOn(),
      /** Bytes that came back by command D3h, as if from the mouse. */
      looped: queuePowerOn(),
      keyboard: queuePowerOn(),
      keyboardCommand: 0,
      scanning: true,
      scancodeSet: 2,
      leds: 0,
      mouse: queuePowerOn(),
      mouseCommand: 0,
      reporting: false,
      wheel: false,
      sampleRate: 100,
      resolution: 2,
      scaling: false,
      buttons: 0,
      /** The last three sample rates set: 200, 100, 80 unlock the wheel. */
      rateHistory: [0, 0, 0],
    }),
    { config: 255, outputPort: 255, command: 255, data: 255, buttons: 7, rateHistory: 255 },
  );

  constructor(wiring: I8042Wiring, id = 'i8042') {
    this.id = id;
    this.wiring = wiring;
    this.ports = {
      read: (offset) => {
        if (offset === 0) return this.readData();
        return offset === 4 ? this.readStatus() : 0xff;
      },
      write: (offset, _size, value) => {
        if (offset === 0) this.writeData(value & 0xff);
        else if (offset === 4) this.writeCommand(value & 0xff);
      },
    };
  }

  /** Bytes of scancode set 1 (what programs see with the controller's translation on). */
  injectScancode(...bytes: number[]): void {
    const s = this.state.value;
    if (!s.scanning) return;
    // A sequence goes in whole or not at all: half a key would stick.
    if (s.keyboard.count + bytes.length > QUEUE_SIZE) return;
    for (const byte of bytes) push(s.keyboard, byte);
    this.fill();
  }

  /** @param dx right  @param dy up  @param buttons bit 0 left, 1 right, 2 middle */
  injectMouse(dx: number, dy: number, buttons: number, dz = 0): void {
    const s = this.state.value;
    s.buttons = buttons & 7;
    if (!s.reporting || s.mouse.count > QUEUE_SIZE - 4) return;
    const x = clamp(dx, 255);
    const y = clamp(dy, 255);
    push(s.mouse, 0x08 | s.buttons | (x < 0 ? 0x10 : 0) | (y < 0 ? 0x20 : 0));
    push(s.mouse, x & 0xff);
    push(s.mouse, y & 0xff);
    if (s.wheel) push(s.mouse, clamp(dz, 7) & 0xff);
    this.fill();
  }

  /** Level of the A20 gate, which port 92h drives as well. */
  get a20(): boolean {
    return (this.state.value.outputPort & OUTPUT.a20) !== 0;
  }

  setA20(enabled: boolean): void {
    const s = this.state.value;
    s.outputPort = enabled ? s.outputPort | OUTPUT.a20 : s.outputPort & ~OUTPUT.a20;
    this.wiring.setA20(enabled);
  }

  reset(): void {
    this.state.reset();
    this.wiring.setA20(true);
    this.update();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
    const s = this.state.value;
    for (const queue of [s.controller, s.looped, s.keyboard, s.mouse]) {
      queue.head &= QUEUE_SIZE - 1;
      queue.count = Math.max(0, Math.min(QUEUE_SIZE, Math.floor(queue.count)));
    }
    this.wiring.setA20(this.a20);
    this.update();
  }

  // --- ports

  private readStatus(): number {
    const s = this.state.value;
    return (
      (s.full ? STATUS.full : 0) |
      (s.config & CONFIG.system ? STATUS.system : 0) |
      (s.lastWasCommand ? STATUS.command : 0) |
      STATUS.unlocked |
      (s.full && s.fromMouse ? STATUS.mouse : 0)
    );
  }

  private readData(): number {
    const s = this.state.value;
    s.full = false;
    // The line falls before the next byte raises it: each byte is an edge of its own.
    this.update();
    const { data } = s;
    this.fill();
    return data;
  }

  private writeCommand(command: number): void {
    const s = this.state.value;
    s.lastWasCommand = true;
    s.command = 0;
    if (command >= 0xf0) return this.pulse(command);
    switch (command) {
      case 0x20:
        this.reply(s.config);
        break;
      case 0xa7:
        s.config |= CONFIG.mouseOff;
        break;
      case 0xa8:
        s.config &= ~CONFIG.mouseOff;
        break;
      case 0xa9:
        this.reply(0x00);
        break;
      case 0xaa:
        s.config |= CONFIG.system;
        this.reply(0x55);
        break;
      case 0xab:
        this.reply(0x00);
        break;
      case 0xad:
        s.config |= CONFIG.keyboardOff;
        break;
      case 0xae:
        s.config &= ~CONFIG.keyboardOff;
        break;
      case 0xc0:
        this.reply(0x80);
        break;
      case 0xd0:
        this.reply(s.outputPort);
        break;
      case 0xdd:
        this.setA20(false);
        break;
      case 0xdf:
        this.setA20(true);
        break;
      case 0x60:
      case 0xd1:
      case 0xd2:
      case 0xd3:
      case 0xd4:
        s.command = command;
        break;
      default:
        break;
    }
    this.fill();
  }

  /** Commands F0h to FFh pulse output bits low; bit 0 is the processor's reset. */
  private pulse(command: number): void {
    if ((command & 1) === 0) this.wiring.resetCpu();
  }

  private writeData(value: number): void {
    const s = this.state.value;
    const { command } = s;
    s.lastWasCommand = false;
    s.command = 0;
    switch (command) {
      case 0x60:
        s.config = value;
        break;
      case 0xd1:
        this.writeOutputPort(value);
        break;
      // Looped back by the controller itself, so they pass even while a port is off.
      case 0xd2:
        this.reply(value);
        break;
      case 0xd3:
        push(s.looped, value);
        break;
      case 0xd4:
        this.mouseByte(value);
        break;
      default:
        // A command to the keyboard switches its clock line on.
        s.config &= ~CONFIG.keyboardOff;
        this.keyboardByte(value);
    }
    this.update();
    this.fill();
  }

  private writeOutputPort(value: number): void {
    this.state.value.outputPort = value;
    this.wiring.setA20((value & OUTPUT.a20) !== 0);
    if ((value & OUTPUT.noReset) === 0) this.wiring.resetCpu();
  }

  private reply(value: number): void {
    push(this.state.value.controller, value);
  }

  /** Moves the next byte into the output buffer once that is free. */
  private fill(): void {
    const s = this.state.value;
    if (s.full) return;
    if (s.controller.count !== 0) {
      s.data = shift(s.controller);
      s.fromMouse = false;
    } else if (s.looped.count !== 0) {
      s.data = shift(s.looped);
      s.fromMouse = true;
    } else if (s.keyboard.count !== 0 && (s.config & CONFIG.keyboardOff) === 0) {
      s.data = shift(s.keyboard);
      s.fromMouse = false;
    } else if (s.mouse.count !== 0 && (s.config & CONFIG.mouseOff) === 0) {
      s.data = shift(s.mouse);
      s.fromMouse = true;
    } else {
      return;
    }
    s.full = true;
    this.update();
  }

  private update(): void {
    const s = this.state.value;
    this.wiring.keyboardIrq.set(s.full && !s.fromMouse && (s.config & CONFIG.keyboardIrq) !== 0);
    this.wiring.mouseIrq.set(s.full && s.fromMouse && (s.config & CONFIG.mouseIrq) !== 0);
  }

  // --- keyboard

  private keyboardByte(value: number): void {
    const s = this.state.value;
    const queue = s.keyboard;
    const command = s.keyboardCommand;
    s.keyboardCommand = 0;
    if (command !== 0) return this.keyboardArgument(command, value);
    switch (value) {
      case 0xee:
        push(queue, 0xee);
        return;
      case 0xed:
      case 0xf0:
      case 0xf3:
        s.keyboardCommand = value;
        break;
      case 0xf2:
        push(queue, ACK);
        push(queue, 0xab);
        // Translated, the identifier's 83h reads 41h.
        push(queue, (s.config & CONFIG.translate) !== 0 ? 0x41 : 0x83);
        return;
      case 0xf4:
        s.scanning = true;
        clear(queue);
        break;
      case 0xf5:
        s.scanning = false;
        clear(queue);
        break;
      case 0xf6:
        s.scanning = true;
        s.scancodeSet = 2;
        clear(queue);
        break;
      case 0xff:
        clear(queue);
        s.scanning = true;
        s.scancodeSet = 2;
        s.leds = 0;
        push(queue, ACK);
        push(queue, 0xaa);
        return;
      default:
        break;
    }
    push(queue, ACK);
  }

  private keyboardArgument(command: number, value: number): void {
    const s = this.state.value;
    push(s.keyboard, ACK);
    if (command === 0xed) s.leds = value & 7;
    if (command !== 0xf0) return;
    if (value === 0) push(s.keyboard, s.scancodeSet);
    else if (value <= 3) s.scancodeSet = value;
  }

  // --- mouse

  private mouseByte(value: number): void {
    const s = this.state.value;
    const queue = s.mouse;
    const command = s.mouseCommand;
    s.mouseCommand = 0;
    if (command !== 0) return this.mouseArgument(command, value);
    push(queue, ACK);
    switch (value) {
      case 0xe6:
        s.scaling = false;
        break;
      case 0xe7:
        s.scaling = true;
        break;
      case 0xe8:
      case 0xf3:
        s.mouseCommand = value;
        break;
      case 0xe9:
        this.mouseStatus();
        break;
      case 0xeb:
        push(queue, 0x08 | s.buttons);
        push(queue, 0);
        push(queue, 0);
        if (s.wheel) push(queue, 0);
        break;
      case 0xf2:
        push(queue, s.wheel ? 3 : 0);
        break;
      case 0xf4:
        s.reporting = true;
        break;
      case 0xf5:
        s.reporting = false;
        break;
      case 0xf6:
        this.mouseDefaults();
        break;
      case 0xff:
        this.mouseDefaults();
        s.wheel = false;
        clear(queue);
        for (const byte of [ACK, 0xaa, 0x00]) push(queue, byte);
        break;
      default:
        break;
    }
  }

  private mouseArgument(command: number, value: number): void {
    const s = this.state.value;
    push(s.mouse, ACK);
    if (command === 0xe8) {
      s.resolution = value & 3;
      return;
    }
    s.sampleRate = value;
    const rates = s.rateHistory;
    rates.push(value);
    rates.shift();
    if (rates[0] === 200 && rates[1] === 100 && rates[2] === 80) s.wheel = true;
  }

  private mouseStatus(): void {
    const s = this.state.value;
    push(s.mouse, (s.reporting ? 0x20 : 0) | (s.scaling ? 0x10 : 0) | s.buttons);
    push(s.mouse, s.resolution);
    push(s.mouse, s.sampleRate);
  }

  private mouseDefaults(): void {
    const s = this.state.value;
    s.reporting = false;
    s.sampleRate = 100;
    s.resolution = 2;
    s.scaling = false;
  }
}

/** System control port A (92h): bit 0 resets the processor, bit 1 is the A20 gate. */
export class Port92 implements Device {
  readonly type = 'port92';
  readonly id: string;
  readonly ports: IoHandler;

  constructor(keyboard: I8042, resetCpu: () => void, id = 'port92') {
    this.id = id;
    // The gate's level lives in the keyboard controller's output port: one wire, one state.
    this.ports = {
      read: () => (keyboard.a20 ? 2 : 0),
      write: (_offset, _size, value) => {
        keyboard.setA20((value & 2) !== 0);
        if ((value & 1) !== 0) resetCpu();
      },
    };
  }

  reset(): void {
    // The state is the keyboard controller's.
  }

  saveState(): DeviceState {
    return { version: 1, fields: {} };
  }

  loadState(): void {
    // Has no state of its own.
  }
}

function clamp(value: number, limit: number): number {
  return Math.max(-limit, Math.min(limit, Math.round(value)));
}
