/** What the 82540EM has beside it: a serial EEPROM of 64 words (317453, chapter 5), and the PHY (chapter 13.4.8). */

import { EEPROM_WORDS as WORDS, Microwire, microwirePowerOn } from './microwire.ts';

/** All words add up to this. */
const SUM = 0xbaba;

/** EEPROM/flash control (13.4.3): wires to the EEPROM, and who may use them. */
const WIRE = { clock: 1, select: 2, dataIn: 4, dataOut: 8, request: 0x40, grant: 0x80 } as const;
const WIRES_WRITABLE = WIRE.clock | WIRE.select | WIRE.dataIn | 0x30 | WIRE.request;
/** EEPROM read (13.4.4). */
export const EEPROM_FAST = { start: 1, done: 0x10, address: 8, addresses: 0xff, data: 16 } as const;
/** An EEPROM is there. */
export const EEPROM_CONTROL = 0x100;

/** What cards of the family have different. */
export type EepromModel = {
  /** Words from 0Bh on: subsystem, its vendor, device, vendor. */
  ids: readonly number[];
  /** Bits that its control register always shows. */
  control: number;
  /** Where things are in the register that reads at once. */
  fast: {
    readonly start: number;
    readonly done: number;
    readonly address: number;
    readonly addresses: number;
    readonly data: number;
  };
};

export const eepromPowerOn = () => ({ wires: 0, chip: microwirePowerOn(), fast: 0 });
export type EepromState = ReturnType<typeof eepromPowerOn>;

export class Eeprom {
  private readonly words = new Uint16Array(WORDS);
  private readonly state: EepromState;
  private readonly chip: Microwire;
  private readonly model: EepromModel;

  /** @param mac 6 bytes */
  constructor(mac: Uint8Array, model: EepromModel, state: EepromState) {
    this.state = state;
    this.model = model;
    const { words } = this;
    for (let i = 0; i < 3; i++) words[i] = mac[2 * i]! | (mac[2 * i + 1]! << 8);
    // Signature, and that both kinds of identifiers are to be taken from here.
    words[0x0a] = 0x4003;
    words.set(model.ids, 0x0b);
    words[WORDS - 1] = SUM - words.reduce((sum, word) => sum + word, 0);
    this.chip = new Microwire(words, state.chip);
  }

  readWires(): number {
    const { wires } = this.state;
    return (
      wires | this.model.control | (this.chip.out === 0 ? 0 : WIRE.dataOut) | ((wires & WIRE.request) === 0 ? 0 : WIRE.grant)
    );
  }

  writeWires(value: number): void {
    this.state.wires = value & WIRES_WRITABLE;
    this.chip.set((value & WIRE.select) !== 0, (value & WIRE.clock) !== 0, (value & WIRE.dataIn) !== 0);
  }

  readFast(): number {
    return this.state.fast;
  }

  writeFast(value: number): void {
    const { start, done, address, addresses, data } = this.model.fast;
    const index = (value >>> address) & addresses;
    const read = ((this.words[index % WORDS]! << data) | (index << address) | done) >>> 0;
    this.state.fast = (value & start) === 0 ? value & (addresses << address) : read;
  }
}

/** MDI control (13.4.8). */
const MDI = { register: 16, phy: 21, write: 1 << 26, read: 1 << 27, ready: 1 << 28, interrupt: 1 << 29, error: 1 << 30 } as const;
const PHY_ADDRESS = 1;
const PHY = { control: 0, status: 1, identifier: 2, partner: 5, expansion: 6, gigabit: 10, special: 17, page: 22 } as const;
const PHY_CONTROL = { reset: 0x8000, loopback: 0x4000, restart: 0x0200 } as const;
const AUTO_DONE = 0x20;
const LINK = 4;

/** Registers after reset: an M88E1011, which has agreed on 1000 Mb/s with its partner. */
const PHY_INITIAL: Readonly<Record<number, number>> = {
  [PHY.control]: 0x1140,
  [PHY.status]: 0x7949,
  [PHY.identifier]: 0x0141,
  [PHY.identifier + 1]: 0x0c20,
  4: 0x0de1,
  [PHY.partner]: 0xcde1,
  [PHY.expansion]: 0x000f,
  9: 0x0e00,
  [PHY.gigabit]: 0x3c00,
  15: 0x3000,
  16: 0x0068,
  [PHY.special]: 0xa800,
  20: 0x0d60,
};
const PHY_READ_ONLY: readonly number[] = [1, 2, 3, 5, 6, 10, 15, 17, 19, 21];
const SPECIAL_LINK = 0x400;

export const phyPowerOn = () => ({ mdi: MDI.ready as number, registers: Array.from({ length: 32 }, () => 0) });
export type PhyState = ReturnType<typeof phyPowerOn>;

export class Phy {
  private readonly state: PhyState;
  private readonly linkUp: () => boolean;
  private readonly initial: Readonly<Record<number, number>>;

  /** @param other registers that start otherwise than an M88E1011's */
  constructor(state: PhyState, linkUp: () => boolean, other: readonly (readonly [register: number, value: number])[] = []) {
    this.state = state;
    this.linkUp = linkUp;
    this.initial = { ...PHY_INITIAL, ...Object.fromEntries(other) };
    this.reset();
  }

  /** Frames that are sent come back. */
  get loops(): boolean {
    return (this.state.registers[PHY.control]! & PHY_CONTROL.loopback) !== 0;
  }

  readMdi(): number {
    return this.state.mdi >>> 0;
  }

  /** @returns what happened: an interrupt is wanted, the link has been agreed on anew */
  writeMdi(value: number): { interrupt: boolean; link: boolean } {
    const index = (value >> MDI.register) & 31;
    const known = ((value >> MDI.phy) & 31) === PHY_ADDRESS;
    let result = (value & ~MDI.error) | MDI.ready | (known ? 0 : MDI.error);
    let link = false;
    if (known && (value & MDI.read) !== 0) result = (result & ~0xffff) | this.read(index);
    else if (known && (value & MDI.write) !== 0) link = this.write(index, value & 0xffff);
    this.state.mdi = result >>> 0;
    return { interrupt: (value & MDI.interrupt) !== 0, link };
  }

  reset(): void {
    this.state.registers.forEach((_, i, registers) => (registers[i] = this.initial[i] ?? 0));
  }

  private read(index: number): number {
    if (this.paged(index)) return 0;
    const value = this.state.registers[index]!;
    const up = this.linkUp();
    if (index === PHY.status) return up ? value | AUTO_DONE | LINK : value;
    if (index === PHY.special) return up ? value | SPECIAL_LINK : value;
    return (index === PHY.partner || index === PHY.gigabit) && !up ? 0 : value;
  }

  /** Of the pages that later ones have, the first is all that there is. */
  private paged(index: number): boolean {
    return index !== PHY.page && this.state.registers[PHY.page] !== 0;
  }

  private write(index: number, value: number): boolean {
    if (PHY_READ_ONLY.includes(index) || this.paged(index)) return false;
    if (index !== PHY.control) {
      this.state.registers[index] = value;
      return false;
    }
    if ((value & PHY_CONTROL.reset) !== 0) this.reset();
    else this.state.registers[index] = value & ~PHY_CONTROL.restart;
    return (value & (PHY_CONTROL.reset | PHY_CONTROL.restart)) !== 0;
  }
}
