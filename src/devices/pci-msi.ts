/** Message signalled interrupts: PCI Local Bus Specification 3.0, section 6.8.1. All registers lie in configuration space. */

export const MSI_ID = 0x05;

/**
 * With 64-bit addresses:
 *
 *     0 id, link   2 message control   4 address 64   12 data 16   16 mask   20 pending (the last two with masking)
 */
const CONTROL = 2;
const ADDRESS = 4;
const DATA = 12;
const MASK = 16;
const PENDING = 20;
const ENABLE = 1 << 0;
/** Vectors as powers of two: how many there are, how many software has enabled. */
const CAPABLE_SHIFT = 1;
const ENABLED_SHIFT = 4;
const WIDE = 1 << 7;
const MASKING = 1 << 8;
export const MAX_MSI_VECTORS = 32;

/** What the function gives: its configuration space from the capability on, and a way to write to memory. */
export interface MsiPort {
  read(offset: number, size: number): number;
  /** Changes registers that software cannot write. */
  put(offset: number, value: number): void;
  send(address: number, data: number): void;
}

export type MsiOptions = {
  /** A power of two up to 32. */
  vectors: number;
  /** Vectors can be masked one by one. */
  masking: boolean;
};

export class Msi {
  private readonly port: MsiPort;
  private readonly options: MsiOptions;

  constructor(options: MsiOptions, port: MsiPort) {
    const { vectors } = options;
    if (vectors < 1 || vectors > MAX_MSI_VECTORS || !Number.isInteger(Math.log2(vectors))) {
      throw new Error(`${vectors} interrupt messages are not a power of two up to ${MAX_MSI_VECTORS}`);
    }
    this.options = options;
    this.port = port;
  }

  /** What follows the capability's id and link. */
  get body(): number[] {
    const { vectors, masking } = this.options;
    const control = WIDE | (masking ? MASKING : 0) | (Math.log2(vectors) << CAPABLE_SHIFT);
    return [control & 0xff, control >> 8, ...new Array<number>((masking ? PENDING + 4 : DATA + 4) - ADDRESS).fill(0)];
  }

  /** Bits that software may change, from message control on. */
  get writable(): number[] {
    const address = [0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    const mask = this.options.masking ? [0, 0, 0xff, 0xff, 0xff, 0xff] : [];
    return [ENABLE | (7 << ENABLED_SHIFT), 0, ...address, 0xff, 0xff, ...mask];
  }

  get enabled(): boolean {
    return (this.port.read(CONTROL, 2) & ENABLE) !== 0;
  }

  /** Raises an interrupt, which waits while it is masked. Vectors that software has not enabled share the last one. */
  notify(vector: number): void {
    if (!this.enabled) return;
    const enabled = Math.min(1 << ((this.port.read(CONTROL, 2) >> ENABLED_SHIFT) & 7), this.options.vectors);
    const index = Math.min(vector, enabled - 1);
    if (this.options.masking && (this.port.read(MASK, 4) & (1 << index)) !== 0) {
      this.port.put(PENDING, this.port.read(PENDING, 4) | (1 << index));
      return;
    }
    // The vector's number is in the low bits of the data.
    const data = (this.port.read(DATA, 2) & ~(enabled - 1)) | index;
    this.port.send(this.port.read(ADDRESS + 4, 4) * 2 ** 32 + this.port.read(ADDRESS, 4), data);
  }

  /** Registers have been written: what has become unmasked goes out. */
  changed(): void {
    if (!this.options.masking || !this.enabled) return;
    const ready = this.port.read(PENDING, 4) & ~this.port.read(MASK, 4);
    if (ready === 0) return;
    this.port.put(PENDING, this.port.read(PENDING, 4) & ~ready);
    for (let vector = 0; vector < this.options.vectors; vector++) if ((ready & (1 << vector)) !== 0) this.notify(vector);
  }
}
