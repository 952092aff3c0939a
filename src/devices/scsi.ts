/** What SCSI controllers and the units on them know of each other: SAM-4 and SPC-4 (T10/1683D, T10/1731D). */
import type { Device } from '../machine/interfaces.ts';
import type { BusHotplug, DeviceBus } from './device-type.ts';

export const SCSI_STATUS = { good: 0x00, checkCondition: 0x02, busy: 0x08 } as const;

/** Sense key, additional code, qualifier (SPC-4, 4.5). */
export type Sense = readonly [key: number, code: number, qualifier: number];

export const SENSE = {
  none: [0, 0, 0],
  noMedium: [2, 0x3a, 0],
  readError: [3, 0x11, 0],
  writeError: [3, 0x0c, 0],
  badCommand: [5, 0x20, 0],
  outOfRange: [5, 0x21, 0],
  badField: [5, 0x24, 0],
  noSuchUnit: [5, 0x25, 0],
  writeProtected: [7, 0x27, 0],
} as const satisfies Record<string, Sense>;

/** The data of a command, wherever the controller has it. */
export interface ScsiData {
  /** Bytes of room for what the unit answers, and bytes that it is given. */
  readonly inLength: number;
  readonly outLength: number;
  /** Where a part of the answer goes. @returns at most `length` bytes; `endIn` follows */
  takeIn(at: number, length: number): Uint8Array;
  /** The part has been filled. */
  endIn(at: number, part: Uint8Array): void;
  /** A part of what is given. @returns at most `length` bytes */
  takeOut(at: number, length: number): Uint8Array;
}

/** @param transferred bytes of the answer, or of what was given */
export type ScsiDone = (status: number, sense: Sense | null, transferred: number) => void;

/** A logical unit. */
export interface ScsiUnit extends Device {
  readonly backendSize: number;
  /** @param done called once, at once or later */
  execute(cdb: Uint8Array, data: ScsiData, done: ScsiDone): void;
}

export type ScsiAddress = { readonly target: number; readonly lun: number };

/** The units of one controller. */
export class ScsiBus implements DeviceBus {
  readonly kind = 'SCSI';
  readonly name: string;
  hotplug: BusHotplug | null = null;
  onEject: ((unit: ScsiUnit) => void) | null = null;
  private readonly maxTarget: number;
  private readonly maxLun: number;
  private readonly units = new Map<string, { address: ScsiAddress; unit: ScsiUnit }>();

  constructor(name: string, maxTarget: number, maxLun: number) {
    this.name = name;
    this.maxTarget = maxTarget;
    this.maxLun = maxLun;
  }

  /** @param target, lun null for the first free ones @throws Error when there is no such place */
  plug(unit: ScsiUnit, target: number | null, lun: number | null): void {
    const at = lun ?? 0;
    let id = target ?? 0;
    if (target === null) while (this.find(id, at) !== null) id++;
    if (id > this.maxTarget) throw new Error(`bad scsi device id: ${id}`);
    if (at > this.maxLun) throw new Error(`bad scsi device lun: ${at}`);
    if (this.find(id, at) !== null) throw new Error(`lun already used by '${this.find(id, at)!.id}'`);
    this.units.set(`${id} ${at}`, { address: { target: id, lun: at }, unit });
  }

  unplug(unit: ScsiUnit): void {
    const at = this.keyOf(unit);
    if (at !== null) this.units.delete(at);
  }

  /** @throws Error when the unit is not on this bus */
  addressOf(unit: ScsiUnit): ScsiAddress {
    return this.units.get(this.keyOf(unit)!)!.address;
  }

  private keyOf(unit: unknown): string | null {
    for (const [at, one] of this.units) if (one.unit === unit) return at;
    return null;
  }

  find(target: number, lun: number): ScsiUnit | null {
    return this.units.get(`${target} ${lun}`)?.unit ?? null;
  }

  bootPath(device: unknown): string | null {
    const at = this.keyOf(device);
    if (at === null) return null;
    const { target, lun } = this.units.get(at)!.address;
    return `/channel@0/disk@${target.toString(16)},${lun.toString(16)}`;
  }

  /** Numbers of a target's units, in order; none when there is no such target. */
  luns(target: number): number[] {
    const found = [...this.units.values()].filter(({ address }) => address.target === target);
    return found.map(({ address }) => address.lun).sort((a, b) => a - b);
  }
}

/** Sense data in the fixed format (SPC-4, 4.5.3). */
export function senseBytes([key, code, qualifier]: Sense): Uint8Array {
  const bytes = new Uint8Array(18);
  bytes.set([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier]);
  return bytes;
}
