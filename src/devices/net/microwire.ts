/** A serial EEPROM of 64 words on three wires: Microchip's 93C46. */

/** A command is a start bit, two bits that say what, and six of the address. */
const COMMAND_BITS = 9;
const READ = 6;
export const EEPROM_WORDS = 64;

export const microwirePowerOn = () => ({ clockLevel: 0, bits: 0, command: 0, address: 0, shift: 0, left: 0, out: 1 });
export type MicrowireState = ReturnType<typeof microwirePowerOn>;

export class Microwire {
  private readonly words: Uint16Array;
  private readonly state: MicrowireState;

  constructor(words: Uint16Array, state: MicrowireState) {
    this.words = words;
    this.state = state;
  }

  /** Level of the wire that data come by. */
  get out(): number {
    return this.state.out;
  }

  /** Sets the wires: bits go in and out as the clock rises. */
  set(select: boolean, clock: boolean, data: boolean): void {
    const { state } = this;
    const rises = clock && state.clockLevel === 0;
    state.clockLevel = clock ? 1 : 0;
    if (!select) {
      state.bits = state.command = state.left = 0;
      // Nothing is being written: it is ready.
      state.out = 1;
    } else if (rises) this.clock(data ? 1 : 0);
  }

  private clock(bit: number): void {
    const { state } = this;
    if (state.bits < COMMAND_BITS) {
      if (state.bits === 0 && bit === 0) return;
      state.command = (state.command << 1) | bit;
      if (++state.bits === COMMAND_BITS && state.command >> 6 === READ) {
        state.address = state.command % EEPROM_WORDS;
        state.left = 0;
        // A zero comes before the data.
        state.out = 0;
      }
    } else if (state.command >> 6 === READ) this.shiftOut();
  }

  private shiftOut(): void {
    const { state } = this;
    if (state.left === 0) {
      state.shift = this.words[state.address]!;
      state.address = (state.address + 1) % EEPROM_WORDS;
      state.left = 16;
    }
    state.out = (state.shift >> --state.left) & 1;
  }
}
