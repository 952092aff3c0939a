/** What disks and CD drives have in common: SPC-4 (T10/1731D). */
import type { BlockBackend, Completion, DeviceState } from '../../machine/interfaces.ts';
import { type ScsiData, type ScsiDone, SCSI_STATUS, type ScsiUnit, type Sense, SENSE } from '../scsi.ts';
import { StateBlock } from '../state.ts';

export type UnitOptions = {
  id: string;
  backend: BlockBackend | null;
  serial: string;
  vendor: string;
  product: string;
  version: string;
  /** What it calls itself in its designators; null for its serial number. */
  deviceId?: string | null;
  /** World wide name, or 0 for none. */
  wwn: bigint;
};

/** A command that cannot be carried out. */
export class CheckCondition extends Error {
  readonly sense: Sense;

  constructor(sense: Sense) {
    super('check condition');
    this.sense = sense;
  }
}

/** Commands of both. */
const COMMAND = { testUnitReady: 0x00, requestSense: 0x03, inquiry: 0x12, preventRemoval: 0x1e, startStop: 0x1b } as const;
const VITAL_DATA = 1;

export const be16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;
export const be32 = (bytes: Uint8Array, at: number): number => be16(bytes, at) * 65536 + be16(bytes, at + 2);
export const be64 = (bytes: Uint8Array, at: number): number => be32(bytes, at) * 2 ** 32 + be32(bytes, at + 4);
export const bytes32 = (value: number): number[] => [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
export const bytes64 = (value: number): number[] => [...bytes32(Math.floor(value / 2 ** 32)), ...bytes32(value % 2 ** 32)];
export const ascii = (text: string, length: number): number[] =>
  [...text.padEnd(length, ' ').slice(0, length)].map((character) => character.charCodeAt(0) & 0x7f);

/** Blocks of a read or a write, by the length of the command. */
export function blocksOf(cdb: Uint8Array): { first: number; count: number } {
  switch (cdb[0]! >> 5) {
    case 0:
      return { first: ((cdb[1]! & 0x1f) << 16) | be16(cdb, 2), count: cdb[4] === 0 ? 256 : cdb[4]! };
    case 4:
      return { first: be64(cdb, 2), count: be32(cdb, 10) };
    case 5:
      return { first: be32(cdb, 2), count: be32(cdb, 6) };
    default:
      return { first: be32(cdb, 2), count: be16(cdb, 7) };
  }
}

export abstract class Unit implements ScsiUnit {
  abstract readonly type: string;
  readonly id: string;
  /** Bytes of a block. */
  protected abstract readonly blockSize: number;
  protected backend: BlockBackend | null;
  protected readonly options: UnitOptions;
  protected readonly state: StateBlock<{ locked: boolean; stopped: boolean }>;

  constructor(options: UnitOptions) {
    this.id = options.id;
    this.backend = options.backend;
    this.options = options;
    this.state = new StateBlock(options.id, 1, () => ({ locked: false, stopped: false }));
  }

  get backendSize(): number {
    return this.backend?.size ?? 0;
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

  execute(cdb: Uint8Array, data: ScsiData, done: ScsiDone): void {
    try {
      this.run(cdb, data, done);
    } catch (error) {
      if (!(error instanceof CheckCondition)) throw error;
      done(SCSI_STATUS.checkCondition, error.sense, 0);
    }
  }

  protected run(cdb: Uint8Array, data: ScsiData, done: ScsiDone): void {
    switch (cdb[0]) {
      case COMMAND.testUnitReady:
        // Without a medium that throws.
        void this.blocks;
        return done(SCSI_STATUS.good, null, 0);
      case COMMAND.requestSense:
        return answer(Uint8Array.of(0x70, 0, 0, 0, 0, 0, 0, 10, ...new Uint8Array(10)), cdb[4]!, data, done);
      case COMMAND.inquiry:
        return answer(this.inquiry(cdb), be16(cdb, 3), data, done);
      case COMMAND.preventRemoval:
        this.state.value.locked = (cdb[4]! & 1) !== 0;
        return done(SCSI_STATUS.good, null, 0);
      case COMMAND.startStop:
        this.startStop((cdb[4]! & 1) !== 0, (cdb[4]! & 2) !== 0);
        return done(SCSI_STATUS.good, null, 0);
      default:
        throw new CheckCondition(SENSE.badCommand);
    }
  }

  /** Byte 0 and 1 of what INQUIRY answers: device type, and whether the medium can be removed. */
  protected abstract readonly kind: readonly [type: number, removable: number];
  /** Pages of vital product data beyond those that both have. */
  protected abstract vitalPages(): Readonly<Record<number, () => number[]>>;
  protected abstract startStop(start: boolean, load: boolean): void;

  /** How many there are. @throws CheckCondition when there is no medium */
  protected get blocks(): number {
    if (this.backend === null || this.state.value.stopped) throw new CheckCondition(SENSE.noMedium);
    return Math.floor(this.backend.size / this.blockSize);
  }

  /** Moves blocks, piece by piece. */
  protected transfer(
    cdb: Uint8Array,
    writes: boolean,
    data: ScsiData,
    done: ScsiDone,
    end: () => Completion = () => undefined,
  ): void {
    const { first, count } = blocksOf(cdb);
    if (first + count > this.blocks) throw new CheckCondition(SENSE.outOfRange);
    const backend = this.backend!;
    const total = Math.min(count * this.blockSize, writes ? data.outLength : data.inLength);
    if (total % 512 !== 0) throw new CheckCondition(SENSE.badField);
    const start = first * this.blockSize;
    const failed = (): void => done(SCSI_STATUS.checkCondition, writes ? SENSE.writeError : SENSE.readError, 0);
    const step = (at: number): void => {
      for (let now = at; ; ) {
        if (now >= total) return finish(end, () => done(SCSI_STATUS.good, null, total), failed);
        const part = writes ? data.takeOut(now, total - now) : data.takeIn(now, total - now);
        const here = now;
        const after = here + part.length;
        let running: Completion;
        try {
          running = writes ? backend.write(start + here, part) : backend.read(start + here, part);
        } catch {
          return failed();
        }
        if (running !== undefined) {
          running.then(() => {
            if (!writes) data.endIn(here, part);
            step(after);
          }, failed);
          return;
        }
        if (!writes) data.endIn(here, part);
        now = after;
      }
    };
    step(0);
  }

  private inquiry(cdb: Uint8Array): Uint8Array {
    if ((cdb[1]! & VITAL_DATA) !== 0) return this.vitalData(cdb[2]!);
    if (cdb[2] !== 0) throw new CheckCondition(SENSE.badField);
    const { vendor, product, version } = this.options;
    // SPC-3; command queuing.
    return Uint8Array.of(...this.kind, 5, 0x12, 31, 0, 0x10, 2, ...ascii(vendor, 8), ...ascii(product, 16), ...ascii(version, 4));
  }

  private vitalData(page: number): Uint8Array {
    const { serial, wwn } = this.options;
    const pages: Readonly<Record<number, (() => number[]) | undefined>> = {
      0: () =>
        Object.keys(pages)
          .map(Number)
          .sort((a, b) => a - b),
      ...(serial === '' ? {} : { 128: () => ascii(serial, serial.length) }),
      131: () => this.designators(serial, wwn),
      ...this.vitalPages(),
    };
    const body = pages[page]?.();
    if (body === undefined) throw new CheckCondition(SENSE.badField);
    return Uint8Array.of(this.kind[0], page, body.length >> 8, body.length & 0xff, ...body);
  }

  /** SPC-4, 7.8.5: a text by the vendor, and a number if there is one. */
  private designators(serial: string, wwn: bigint): number[] {
    const name = this.options.deviceId ?? (serial === '' ? this.id : serial);
    const text = [2, 0, 0, Math.min(name.length, 255), ...ascii(name, Math.min(name.length, 255))];
    return wwn === 0n ? text : [...text, 1, 3, 0, 8, ...bytes64(Number(wwn))];
  }
}

/** Runs an operation that moves no data. */
export function finish(operation: () => Completion, good: () => void, failed: () => void): void {
  let running: Completion;
  try {
    running = operation();
  } catch {
    return failed();
  }
  if (running === undefined) good();
  else running.then(good, failed);
}

/** Gives an answer as far as the command and its buffers have room. */
export function answer(bytes: Uint8Array, allocated: number, data: ScsiData, done: ScsiDone): void {
  const total = Math.min(bytes.length, allocated, data.inLength);
  for (let at = 0; at < total; ) {
    const part = data.takeIn(at, total - at);
    part.set(bytes.subarray(at, at + part.length));
    data.endIn(at, part);
    at += part.length;
  }
  done(SCSI_STATUS.good, null, total);
}
