/**
 * The standard hot-plug controller of a bridge: PCI Standard Hot-Plug Controller and Subsystem Specification 1.0,
 * chapter 4. Its slots are the devices 1 to 31 of the bus behind the bridge.
 *
 *     00 offset   04 slots for each speed (8 bytes)   0C slots   10 bus   12 message, version   14 command   16 its end
 *     18 who interrupts   1C who reports errors   20 masks   24 a word for each slot
 */
import type { DeviceState, IoHandler } from '../machine/interfaces.ts';
import type { BusHotplug } from './device-type.ts';
import type { PciBus, PciDevice, PciPart } from './pci.ts';
import { StateBlock } from './state.ts';

export const SHPC_ID = 0x0c;
/** Bytes of the capability after its id and link: which word is shown, and that word. */
export const SHPC_BODY = [0, 0, 0, 0, 0, 0] as const;
export const SHPC_CAPABILITY = { select: 2, data: 4 } as const;
export const SHPC_BYTES = 0x100;

const SLOTS = 31;
const FIRST_DEVICE = 1;
const AT = {
  speeds: 0x04,
  slots: 0x0c,
  version: 0x13,
  command: 0x14,
  commandStatus: 0x16,
  interrupts: 0x18,
  masks: 0x20,
  slot: 0x24,
} as const;
/** Numbers of slots go up with their devices'; each has a button. */
const SLOT_CONFIGURATION = SLOTS | (FIRST_DEVICE << 8) | (FIRST_DEVICE << 16) | 0x20000000 | 0x80000000;
const VERSION = 1;

const MASKS = { all: 1, command: 4, writable: 0x0000000f, commandDone: 1 << 16, timeOut: 1 << 17 } as const;
const INITIAL_MASKS = MASKS.writable;

/** A slot's word (4.12): its state and lights as commands set them, what is in it, what happened, what is not told of. */
const SLOT = {
  lights: 0x3f,
  state: 3,
  powered: 1,
  enabled: 2,
  disabled: 3,
  powerLight: 0x0c,
  powerLightOn: 0x04,
  powerLightBlinks: 0x08,
  powerLightOff: 0x0c,
  attentionOff: 0x30,
  empty: 0xc00,
  presenceChanged: 1 << 16,
  button: 1 << 18,
  events: 0x1f0000,
  masks: 0x7f000000,
  maskShift: 8,
} as const;
/** Commands (4.8): lights and state of one slot, or a speed, or all slots at once. */
const COMMAND = { slotLast: 0x3f, speedLast: 0x47, powerAll: 0x48, enableAll: 0x49 } as const;
const FAILED = { invalidCommand: 1 << 2 } as const;

const powerOn = () => ({
  words: Array.from({ length: SLOTS }, () => 0),
  masks: INITIAL_MASKS as number,
  command: 0,
  failed: 0,
  level: false,
});

export interface ShpcPort {
  readonly bus: PciBus;
  /** A message for each rise, or the pin. */
  interrupt(level: boolean): void;
}

export class StandardHotplug implements BusHotplug, PciPart {
  readonly memory: IoHandler;
  private readonly port: ShpcPort;
  private readonly state = new StateBlock('shpc', 1, powerOn, {
    words: 0xffffffff,
    masks: 0xffffffff,
    command: 0xffff,
    failed: 0xffff,
  });

  constructor(port: ShpcPort) {
    this.port = port;
    this.memory = {
      read: (offset, size) => (this.read(offset & ~3) >>> (8 * (offset & 3))) & (size === 4 ? -1 : 2 ** (8 * size) - 1),
      write: (offset, size, value) => this.write(offset, size, value),
    };
  }

  reset(): void {
    const { value } = this.state;
    this.state.reset();
    for (let slot = 0; slot < SLOTS; slot++) {
      const used = this.devicesIn(slot).length > 0;
      const lights = used ? SLOT.enabled | SLOT.powerLightOn : SLOT.disabled | SLOT.powerLightOff | SLOT.empty;
      value.words[slot] = (SLOT.masks | SLOT.attentionOff | lights) >>> 0;
    }
    this.port.interrupt(false);
  }

  save(): DeviceState {
    return this.state.save();
  }

  load(state: DeviceState): void {
    this.state.load(state);
  }

  /** A word of the registers, by its offset. */
  read(at: number): number {
    const { words, masks, command, failed } = this.state.value;
    switch (at) {
      case AT.speeds:
        return SLOTS;
      case AT.slots:
        return SLOT_CONFIGURATION >>> 0;
      case AT.version & ~3:
        return VERSION << 24;
      case AT.command:
        return command | (failed << 16);
      case AT.interrupts:
        return this.interrupts();
      case AT.masks:
        return masks;
      default:
        return words[(at - AT.slot) >> 2] ?? 0;
    }
  }

  plugged(device: PciDevice): void {
    const slot = slotOf(device);
    if ((device.devfn & 7) !== 0) return;
    const { words } = this.state.value;
    words[slot] = words[slot]! & ~SLOT.empty;
    this.event(slot, SLOT.presenceChanged | (isOff(words[slot]!) ? SLOT.button : 0));
  }

  /** Presses the button: some seconds later the guest disables the slot, unless somebody presses again. */
  requestUnplug(device: PciDevice): void {
    const slot = slotOf(device);
    const word = this.state.value.words[slot]!;
    if (isOff(word)) return this.eject(slot);
    if ((word & SLOT.powerLight) === SLOT.powerLightBlinks) {
      throw new Error('Hot-unplug failed: guest is busy (power indicator blinking)');
    }
    this.event(slot, SLOT.button);
  }

  private write(offset: number, size: number, value: number): void {
    const { value: state } = this.state;
    const at = offset & ~3;
    const mask = ((size === 4 ? 0xffffffff : 2 ** (8 * size) - 1) << (8 * (offset & 3))) >>> 0;
    const written = ((value << (8 * (offset & 3))) & mask) >>> 0;
    const slot = (at - AT.slot) >> 2;
    if (at === AT.command && offset === AT.command && size >= 2) this.command(written & 0xffff);
    else if (at === AT.masks) {
      const changeable = MASKS.writable & mask;
      const done = (MASKS.commandDone | MASKS.timeOut) & written;
      state.masks = ((state.masks & ~changeable) | (written & changeable)) & ~done;
    } else if (slot >= 0 && slot < SLOTS) {
      const changeable = SLOT.masks & mask;
      const word = (state.words[slot]! & ~changeable) | (written & changeable);
      // What has happened is cleared by ones.
      state.words[slot] = (word & ~(written & SLOT.events)) >>> 0;
    }
    this.update();
  }

  private command(value: number): void {
    const { value: state } = this.state;
    const code = value & 0xff;
    const slot = ((value >> 8) & 31) - 1;
    state.command = value;
    state.failed = 0;
    if (code <= COMMAND.slotLast && slot >= 0 && slot < SLOTS) this.setSlot(slot, code);
    else if (code === COMMAND.powerAll || code === COMMAND.enableAll)
      this.setAll(code === COMMAND.powerAll ? SLOT.powered : SLOT.enabled);
    else if (code <= COMMAND.slotLast || code > COMMAND.speedLast) state.failed = FAILED.invalidCommand;
    state.masks |= MASKS.commandDone;
  }

  private setAll(state: number): void {
    for (let slot = 0; slot < SLOTS; slot++) {
      if (this.devicesIn(slot).length > 0) this.setSlot(slot, state | SLOT.powerLightOn | SLOT.attentionOff);
    }
  }

  /** Each of the three parts stays as it is where the command has zeros. */
  private setSlot(slot: number, code: number): void {
    const { words } = this.state.value;
    const before = words[slot]!;
    let lights = before & SLOT.lights;
    for (const part of [SLOT.state, SLOT.powerLight, SLOT.attentionOff]) {
      if ((code & part) !== 0) lights = (lights & ~part) | (code & part);
    }
    words[slot] = ((before & ~SLOT.lights) | lights) >>> 0;
    if (isOff(words[slot]!) && !isOff(before)) this.eject(slot);
  }

  private eject(slot: number): void {
    const { words } = this.state.value;
    const { bus } = this.port;
    for (const device of this.devicesIn(slot)) if (device.removable) bus.onEject?.(device);
    if (this.devicesIn(slot).length > 0) return;
    words[slot] = (words[slot]! | SLOT.empty) >>> 0;
    this.event(slot, SLOT.presenceChanged);
  }

  private event(slot: number, bits: number): void {
    const { words } = this.state.value;
    words[slot] = (words[slot]! | bits) >>> 0;
    this.update();
  }

  /** A bit for the end of a command, then one for each slot. */
  private interrupts(): number {
    const { words, masks } = this.state.value;
    let bits = (masks & MASKS.commandDone) !== 0 && (masks & MASKS.command) === 0 ? 1 : 0;
    for (let slot = 0; slot < SLOTS; slot++) {
      const word = words[slot]!;
      if ((word & SLOT.events & ~(word >>> SLOT.maskShift)) !== 0) bits |= 2 << slot;
    }
    return bits >>> 0;
  }

  private update(): void {
    const { value } = this.state;
    const level = (value.masks & MASKS.all) === 0 && this.interrupts() !== 0;
    if (level === value.level) return;
    value.level = level;
    this.port.interrupt(level);
  }

  private devicesIn(slot: number): PciDevice[] {
    return this.port.bus.all().filter(({ devfn }) => devfn >> 3 === slot + FIRST_DEVICE);
  }
}

/** @throws Error for the one device that is no slot's */
function slotOf({ devfn }: PciDevice): number {
  const slot = (devfn >> 3) - FIRST_DEVICE;
  if (slot >= 0) return slot;
  throw new Error(`Unsupported PCI slot ${devfn >> 3} for standard hotplug controller. Valid slots are between 1 and 31.`);
}

const isOff = (word: number): boolean => (word & SLOT.state) === SLOT.disabled && (word & SLOT.powerLight) === SLOT.powerLightOff;
