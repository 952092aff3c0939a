/**
 * Doorbells of devices (`machine/interfaces.ts`) for vCPUs that have threads of their own: such a thread leaves a note and
 * goes back into the guest, where any other write would wait for the machine's thread. The notes lie in memory that all
 * threads see:
 *
 *     0  RUNG     1 when there is any note
 *     1  COUNT    number of entries
 *     2  NOTES    bits of those that have been rung, 32 in a word
 *        ENTRIES  one each: address, low and high word; what is to be written there, ANY for anything
 *
 * The machine's thread looks for notes after it has said that it is in the guest (kicker-cells.ts), and before it is there.
 * So a note is either seen then, or whoever leaves it finds the thread inside and calls it out.
 */
import type { VisibleRegisters } from '../machine/address-space.ts';
import { callOut, THREAD_WANTS } from './kicker-cells.ts';
import type { Libc } from './libc.ts';
import type { RunPage } from './run-page.ts';

/** Of a machine; those beyond are written to like other registers. */
const MOST = 256;
const RUNG = 0;
const COUNT = 1;
const NOTES = 2;
const WORDS = MOST / 32;
const ENTRIES = NOTES + WORDS;
const ENTRY = 3;
export const ANY = -1;
/** An address that no access has. */
const NOWHERE = -1;
const TWO_32 = 2 ** 32;

type Ring = () => void;
export interface Place {
  readonly address: number;
  readonly value: number;
  /** Bytes of the access; 0 for any. */
  readonly size: 0 | 2 | 4;
  readonly eventfd: boolean;
  readonly ring: Ring;
}

/** @param registers in memory, or ports */
export function placesOf(registers: readonly VisibleRegisters[]): Place[] {
  return registers.flatMap(({ base, handler }) =>
    (handler.doorbells ?? []).map(({ offset, value, size = 0, eventfd = false }) => ({
      address: base + offset,
      value: value ?? ANY,
      size: size as Place['size'],
      eventfd,
      ring: () => handler.write(offset, size || 4, value ?? 0),
    })),
  );
}

/** Takes notes away. @param at first of `words` cells with 32 of them each  @param each is told the number of one that was there */
export function takeNotes(cells: Int32Array, at: number, words: number, each: (index: number) => void): void {
  for (let word = 0; word < words; word++) {
    const bits = Atomics.exchange(cells, at + word, 0);
    for (let left = bits; left !== 0; left &= left - 1) each(word * 32 + 31 - Math.clz32(left & -left));
  }
}

/** The machine's end. */
export class Doorbells {
  readonly cells = new Int32Array(new SharedArrayBuffer(4 * (ENTRIES + MOST * ENTRY)));
  /** How often one was rung, counting several notes as one. */
  rung = 0;
  private readonly rings: (Ring | null)[] = [];
  /** Entries by what they are about. */
  private readonly entries = new Map<string, number>();

  /**
   * vCPUs may be in the guest meanwhile. So an entry is about one doorbell for as long as that is there, lest a note of it
   * be taken for another's; one that has gone is nobody's, and its entry free.
   */
  update(registers: readonly VisibleRegisters[]): void {
    const places = new Map(placesOf(registers).map((place) => [`${place.address} ${place.value}`, place]));
    for (const [key, index] of this.entries) if (!places.has(key)) this.remove(key, index);
    for (const [key, place] of places) {
      const index = this.entries.get(key) ?? this.freeEntry();
      if (index >= MOST) continue;
      this.rings[index] = place.ring;
      if (!this.entries.has(key)) this.add(key, index, place);
    }
  }

  private freeEntry(): number {
    const free = this.rings.indexOf(null);
    return free < 0 ? this.rings.length : free;
  }

  private remove(key: string, index: number): void {
    Atomics.store(this.cells, ENTRIES + index * ENTRY + 1, NOWHERE);
    this.rings[index] = null;
    this.entries.delete(key);
  }

  private add(key: string, index: number, { address, value }: Place): void {
    const { cells } = this;
    const at = ENTRIES + index * ENTRY;
    Atomics.store(cells, at + 1, NOWHERE);
    Atomics.store(cells, at, address | 0);
    Atomics.store(cells, at + 2, value);
    Atomics.store(cells, at + 1, Math.floor(address / TWO_32));
    this.entries.set(key, index);
    Atomics.store(cells, COUNT, this.rings.length);
  }

  /** Carries out what vCPUs have left. @returns whether there was anything */
  answer(): boolean {
    const { cells } = this;
    if (Atomics.load(cells, RUNG) === 0) return false;
    Atomics.store(cells, RUNG, 0);
    takeNotes(cells, NOTES, WORDS, (index) => {
      this.rings[index]?.();
      this.rung++;
    });
    return true;
  }
}

/** A vCPU's end. */
export class DoorbellButtons {
  private readonly libc: Libc;
  private readonly cells: Int32Array;
  private readonly machine: Int32Array;

  /**
   * @param cells of `Doorbells`
   * @param machine cells of the machine's thread (kicker-cells.ts)
   */
  constructor(libc: Libc, cells: Int32Array, machine: Int32Array) {
    this.libc = libc;
    this.cells = cells;
    this.machine = machine;
  }

  /** @param run of a vCPU that has left with KVM_EXIT_MMIO @returns whether that is all: the guest may go on */
  press(run: RunPage): boolean {
    if (!run.mmioIsWrite) return false;
    const index = this.find(run.mmioAddress, run.mmioLow, run.mmioLength);
    if (index < 0) return false;
    Atomics.or(this.cells, NOTES + (index >> 5), 1 << (index & 31));
    // Whoever has left a note before that nobody has seen has called, too.
    if (Atomics.exchange(this.cells, RUNG, 1) === 0) callOut(this.libc, this.machine, THREAD_WANTS);
    return true;
  }

  private find(address: number, written: number, length: number): number {
    const { cells } = this;
    const [low, high] = [address | 0, Math.floor(address / TWO_32)];
    const value = length >= 4 ? written : written & (2 ** (8 * length) - 1);
    const count = Atomics.load(cells, COUNT);
    for (let index = 0, at = ENTRIES; index < count; index++, at += ENTRY) {
      if (cells[at] !== low || Atomics.load(cells, at + 1) !== high) continue;
      const wanted = cells[at + 2]!;
      if (wanted === ANY || wanted === value) return index;
    }
    return -1;
  }
}
