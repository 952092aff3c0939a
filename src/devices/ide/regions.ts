/** The guest's buffers for a transfer: regions of memory, which a table in memory lists. */
import type { GuestMemory } from '../../machine/interfaces.ts';
import type { PieceList } from '../pieces.ts';

/** An entry of a controller's table. */
export interface Region {
  address: number;
  /** Bytes. */
  length: number;
}

/** What a controller knows of its table. */
export interface RegionTable {
  /** Reads an entry. @param index from 0, one after the other  @returns false when there is none */
  entry(index: number, into: Region): boolean;
}

/** Goes through the regions once, from one piece of a transfer to the next. */
export class Regions {
  private readonly memory: GuestMemory;
  private readonly table: RegionTable;
  /** What is left of the region under way. */
  private readonly region: Region = { address: 0, length: 0 };
  /** The table's next entry. */
  private index = 0;
  /** Bytes passed. */
  private position = 0;

  constructor(memory: GuestMemory, table: RegionTable) {
    this.memory = memory;
    this.table = table;
  }

  /** @param at bytes from the first region's start */
  restart(at: number): void {
    this.index = this.position = this.region.length = 0;
    while (this.position < at && this.any()) this.pass(Math.min(at - this.position, this.region.length));
  }

  /** All of the region under way, if there is one, has been passed. */
  get between(): boolean {
    return this.region.length === 0;
  }

  /** @returns bytes that found room */
  toMemory(bytes: Uint8Array): number {
    return this.copy(bytes, (at, part) => this.memory.writeBytes(at, part));
  }

  /** @returns bytes that there were */
  fromMemory(into: Uint8Array): number {
    return this.copy(into, (at, part) => this.memory.readBytes(at, part));
  }

  /**
   * Where the next bytes lie, and passes them, as far as that is plain memory.
   * @param most bytes  @param unit they come in, which `most` is a multiple of  @returns bytes
   */
  places(into: PieceList, most: number, unit: number): number {
    const { memory, region } = this;
    into.clear(memory.ram);
    while (into.total < most && this.any()) {
      const length = Math.min(region.length, most - into.total);
      const offset = memory.ramOffset(region.address, length);
      if (offset < 0) break;
      into.append(offset, length);
      this.pass(length);
    }
    const excess = into.total % unit;
    if (excess > 0) {
      into.shorten(excess);
      this.restart(this.position - excess);
    }
    return into.total;
  }

  private copy(bytes: Uint8Array, each: (at: number, part: Uint8Array) => void): number {
    const { region } = this;
    let done = 0;
    while (done < bytes.length && this.any()) {
      const length = Math.min(region.length, bytes.length - done);
      each(region.address, bytes.subarray(done, done + length));
      this.pass(length);
      done += length;
    }
    return done;
  }

  private pass(length: number): void {
    this.region.address += length;
    this.region.length -= length;
    this.position += length;
  }

  /** Is anything left? */
  private any(): boolean {
    while (this.region.length === 0) if (!this.table.entry(this.index++, this.region)) return false;
    return true;
  }
}
