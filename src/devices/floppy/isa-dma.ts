/**
 * The PC's two DMA controllers (8237A, order 231466): channels 0 to 3 move bytes, 5 to 7 words,
 * channel 4 joins the two. Devices ask for data piece by piece, so there are no bus cycles here:
 * a device moves what it has when it has it.
 */
import type { Device, DeviceState, GuestMemory, IoHandler } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';

const MODE = { direction: 0x0c, toMemory: 0x04, fromMemory: 0x08, autoInit: 0x10, down: 0x20 } as const;
const CONTROLLER_OFF = 0x04;
/** Page registers' ports (from 80h on) by channel. */
const PAGE_PORTS: readonly number[] = [0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa];

type ChannelState = {
  base: number;
  baseCount: number;
  address: number;
  count: number;
  page: number;
  mode: number;
  masked: boolean;
  requested: boolean;
  terminal: boolean;
};

/** What a device sees of its channel. */
export interface DmaChannel {
  /** The controller would move data now in this direction. */
  ready(toMemory: boolean): boolean;
  /** @returns bytes moved: fewer than given when the count has run out (see `over`) */
  toMemory(bytes: Uint8Array): number;
  fromMemory(into: Uint8Array): number;
  /** The count has run out since the channel was last set up. */
  readonly over: boolean;
}

function powerOn() {
  const channel = (): ChannelState => ({
    base: 0,
    baseCount: 0,
    address: 0,
    count: 0,
    page: 0,
    mode: 0,
    masked: true,
    requested: false,
    terminal: false,
  });
  return {
    channels: Array.from({ length: 8 }, channel),
    /** Per controller: command register, and which byte of 16-bit registers comes next. */
    command: [0, 0],
    high: [false, false],
    /** Page registers that no channel uses. */
    scratch: new Uint8Array(16),
  };
}

export class IsaDma implements Device {
  readonly type = 'i8257';
  readonly id: string;
  /** Ports 00h to 0Fh: channels 0 to 3. */
  readonly first: IoHandler;
  /** Ports C0h to DFh, every other one: channels 4 to 7. */
  readonly second: IoHandler;
  /** Ports 80h to 8Fh. */
  readonly pages: IoHandler;

  private readonly memory: GuestMemory;
  private readonly state = new StateBlock('isa-dma', 1, powerOn);

  constructor(memory: GuestMemory, id = 'isa-dma') {
    this.id = id;
    this.memory = memory;
    this.first = {
      read: (offset) => this.read(0, offset),
      write: (offset, _size, value) => this.write(0, offset, value),
    };
    this.second = {
      read: (offset) => this.read(1, offset >> 1),
      write: (offset, _size, value) => this.write(1, offset >> 1, value),
    };
    this.pages = {
      read: (offset) => {
        const channel = PAGE_PORTS.indexOf(offset);
        const s = this.state.value;
        return channel < 0 ? s.scratch[offset]! : s.channels[channel]!.page;
      },
      write: (offset, _size, value) => {
        const channel = PAGE_PORTS.indexOf(offset);
        const s = this.state.value;
        if (channel < 0) s.scratch[offset] = value;
        else s.channels[channel]!.page = value & 0xff;
      },
    };
  }

  /** @param index 0 to 3, or 5 to 7 */
  channel(index: number): DmaChannel {
    const { memory } = this;
    const channel = (): ChannelState => this.state.value.channels[index]!;
    const ready = (toMemory: boolean): boolean => {
      const { masked, mode } = channel();
      const wanted = toMemory ? MODE.toMemory : MODE.fromMemory;
      const off = (this.state.value.command[index >> 2]! & CONTROLLER_OFF) !== 0;
      return !masked && !off && (mode & MODE.direction) === wanted;
    };
    const move = (bytes: Uint8Array, each: (at: number, part: Uint8Array) => void): number =>
      this.move(channel(), index >= 4, bytes, each);
    return {
      ready,
      toMemory: (bytes) => (ready(true) ? move(bytes, (at, part) => memory.writeBytes(at, part)) : 0),
      fromMemory: (into) => (ready(false) ? move(into, (at, part) => memory.readBytes(at, part)) : 0),
      get over() {
        return channel().terminal;
      },
    };
  }

  reset(): void {
    this.state.reset();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
  }

  private move(c: ChannelState, words: boolean, bytes: Uint8Array, each: (at: number, part: Uint8Array) => void): number {
    const unit = words ? 2 : 1;
    let done = 0;
    if ((c.mode & MODE.autoInit) !== 0) c.terminal = false;
    while (done + unit <= bytes.length && !c.terminal) {
      const down = (c.mode & MODE.down) !== 0;
      // Neither the count nor the address within its page carries on beyond 16 bits.
      const most = down ? 1 : Math.min(c.count + 1, 0x10000 - c.address);
      const units = Math.min(most, Math.floor((bytes.length - done) / unit));
      const at = words ? ((c.page & 0xfe) << 16) + c.address * 2 : (c.page << 16) + c.address;
      each(at, bytes.subarray(done, done + units * unit));
      done += units * unit;
      c.address = (c.address + (down ? -units : units)) & 0xffff;
      c.count -= units;
      if (c.count < 0) this.terminal(c);
    }
    return done;
  }

  private terminal(c: ChannelState): void {
    c.count = 0xffff;
    c.terminal = true;
    if ((c.mode & MODE.autoInit) === 0) {
      c.masked = true;
      return;
    }
    c.address = c.base;
    c.count = c.baseCount;
  }

  private read(controller: number, offset: number): number {
    const s = this.state.value;
    if (offset >= 8) return offset === 8 ? this.readStatus(controller) : 0;
    const c = s.channels[4 * controller + (offset >> 1)]!;
    const value = (offset & 1) === 0 ? c.address : c.count;
    const high = s.high[controller]!;
    s.high[controller] = !high;
    return (high ? value >> 8 : value) & 0xff;
  }

  /** Reading the status clears which channels have come to their end. */
  private readStatus(controller: number): number {
    let value = 0;
    for (let i = 0; i < 4; i++) {
      const c = this.state.value.channels[4 * controller + i]!;
      if (c.terminal) value |= 1 << i;
      if (c.requested) value |= 0x10 << i;
    }
    return value;
  }

  private write(controller: number, offset: number, value: number): void {
    const s = this.state.value;
    if (offset < 8) return this.writeChannel(controller, offset, value & 0xff);
    const channel = s.channels[4 * controller + (value & 3)]!;
    switch (offset) {
      case 0x8:
        s.command[controller] = value & 0xff;
        break;
      case 0x9:
        channel.requested = (value & 4) !== 0;
        break;
      case 0xa:
        channel.masked = (value & 4) !== 0;
        break;
      case 0xb:
        channel.mode = value & 0xfc;
        channel.terminal = false;
        break;
      case 0xc:
        s.high[controller] = false;
        break;
      case 0xd:
        this.clear(controller);
        break;
      case 0xe:
        this.mask(controller, 0);
        break;
      default:
        this.mask(controller, value);
    }
  }

  private mask(controller: number, bits: number): void {
    for (let i = 0; i < 4; i++) {
      this.state.value.channels[4 * controller + i]!.masked = (bits & (1 << i)) !== 0;
    }
  }

  /** Master clear. */
  private clear(controller: number): void {
    const s = this.state.value;
    s.command[controller] = 0;
    s.high[controller] = false;
    for (let i = 0; i < 4; i++) {
      const c = s.channels[4 * controller + i]!;
      c.masked = true;
      c.requested = c.terminal = false;
    }
  }

  private writeChannel(controller: number, offset: number, value: number): void {
    const s = this.state.value;
    const c = s.channels[4 * controller + (offset >> 1)]!;
    const high = s.high[controller]!;
    s.high[controller] = !high;
    const put = (old: number): number => (high ? (old & 0xff) | (value << 8) : (old & 0xff00) | value);
    if ((offset & 1) === 0) c.base = c.address = put(c.base);
    else {
      c.baseCount = c.count = put(c.baseCount);
      c.terminal = false;
    }
  }
}
