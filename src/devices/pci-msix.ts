/** MSI-X: PCI Local Bus Specification 3.0, section 6.8.2. */
import type { DeviceState, IoHandler } from '../machine/interfaces.ts';
import type { PciPart } from './pci.ts';
import { StateBlock } from './state.ts';

export const MSIX_ID = 0x11;
/** Bytes of the capability after its id and link. */
const BODY = 10;

/** Message control: bits 10:0 are the size less 1. */
const ENABLE = 0x8000;
const MASK_ALL = 0x4000;

/** Vector table: address (64 bits), data, vector control, of which bit 0 masks. */
const ENTRY = 16;
const ENTRY_DATA = 8;
const ENTRY_CONTROL = 12;
const ENTRY_MASKED = 1;

export const MAX_VECTORS = 2048;

export type MsixPlace = {
  /** Which base address register, and where in its memory the table and the pending bits lie. */
  bar: number;
  table: number;
  pending: number;
};

/** What the function gives: message control as it stands in its configuration space, and a way to write to memory. */
export interface MsixPort {
  control(): number;
  send(address: number, data: number): void;
}

/** Table and pending bits of one function. */
export class Msix implements PciPart {
  readonly vectors: number;
  readonly place: MsixPlace;
  /** Of the vector table, by offsets from its start. */
  readonly table: IoHandler;
  /** Of the pending bit array, which is read-only. */
  readonly pendingBits: IoHandler;

  private readonly state: StateBlock<{ table: Uint8Array; pending: Uint8Array }>;
  private readonly view: DataView;
  private readonly port: MsixPort;

  constructor(id: string, vectors: number, place: MsixPlace, port: MsixPort) {
    if (vectors < 1 || vectors > MAX_VECTORS) throw new Error(`${id}: ${vectors} interrupt vectors are not 1 to ${MAX_VECTORS}`);
    this.vectors = vectors;
    this.place = place;
    this.port = port;
    const powerOn = () => {
      const table = new Uint8Array(ENTRY * vectors);
      for (let i = 0; i < vectors; i++) table[i * ENTRY + ENTRY_CONTROL] = ENTRY_MASKED;
      // Pending bits come in words of 64.
      return { table, pending: new Uint8Array(Math.ceil(vectors / 64) * 8) };
    };
    this.state = new StateBlock(id, 1, powerOn);
    this.view = new DataView(this.state.value.table.buffer);
    this.table = {
      read: (offset, size) => bytesOf(this.state.value.table, offset, size),
      write: (offset, size, value) => this.writeTable(offset, size, value),
    };
    this.pendingBits = {
      read: (offset, size) => bytesOf(this.state.value.pending, offset, size),
      write: () => undefined,
    };
  }

  /** What follows the capability's id and link in configuration space. */
  get body(): number[] {
    const { bar, table, pending } = this.place;
    const bytes = new DataView(new ArrayBuffer(BODY));
    bytes.setUint16(0, this.vectors - 1, true);
    bytes.setUint32(2, table | bar, true);
    bytes.setUint32(6, pending | bar, true);
    return [...new Uint8Array(bytes.buffer)];
  }

  get enabled(): boolean {
    return (this.port.control() & ENABLE) !== 0;
  }

  /** Message control has been written: what has become unmasked goes out. */
  controlChanged(): void {
    this.deliverPending();
  }

  /** Raises an interrupt, which waits while it is masked. */
  notify(vector: number): void {
    if (vector < 0 || vector >= this.vectors || !this.enabled) return;
    if (this.masked(vector)) this.setPending(vector, true);
    else this.deliver(vector);
  }

  reset(): void {
    this.state.reset();
  }

  save(): DeviceState {
    return this.state.save();
  }

  load(state: DeviceState): void {
    this.state.load(state);
  }

  private masked(vector: number): boolean {
    const own = this.state.value.table[vector * ENTRY + ENTRY_CONTROL]! & ENTRY_MASKED;
    return own !== 0 || (this.port.control() & MASK_ALL) !== 0;
  }

  private deliver(vector: number): void {
    const at = vector * ENTRY;
    const address = this.view.getUint32(at + 4, true) * 2 ** 32 + this.view.getUint32(at, true);
    this.port.send(address, this.view.getUint32(at + ENTRY_DATA, true));
  }

  private writeTable(offset: number, size: number, value: number): void {
    const { table } = this.state.value;
    if (offset + size > table.length) return;
    for (let i = 0; i < size; i++) table[offset + i] = value >>> (8 * i);
    const vector = Math.floor(offset / ENTRY);
    if (this.isPending(vector)) this.deliverPending(vector, vector + 1);
  }

  private deliverPending(from = 0, to = this.vectors): void {
    if (!this.enabled) return;
    for (let vector = from; vector < to; vector++) {
      if (!this.isPending(vector) || this.masked(vector)) continue;
      this.setPending(vector, false);
      this.deliver(vector);
    }
  }

  private isPending(vector: number): boolean {
    return (this.state.value.pending[vector >> 3]! & (1 << (vector & 7))) !== 0;
  }

  private setPending(vector: number, on: boolean): void {
    const { pending } = this.state.value;
    const bit = 1 << (vector & 7);
    pending[vector >> 3] = on ? pending[vector >> 3]! | bit : pending[vector >> 3]! & ~bit;
  }
}

function bytesOf(bytes: Uint8Array, offset: number, size: number): number {
  let value = 0;
  for (let i = 0; i < size; i++) value |= (bytes[offset + i] ?? 0) << (8 * i);
  return value >>> 0;
}
