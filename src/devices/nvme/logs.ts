/** Log pages: NVM Express 1.4, 5.14.1. */
import type { DeviceState, VirtualClock } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import { ADMIN, FIRMWARE, LOG, NVM, TEMPERATURE } from './spec.ts';

const HOUR = 3600e9;
const MINUTE = 60e9;
/** Data is counted in thousands of 512 bytes, rounded up. */
const DATA_UNIT = 512_000;
const ERROR_ENTRY = 64;

/** Effects (5.14.1.5): supported (0), changes data (1). */
const SUPPORTED = 1;
const CHANGES_DATA = 2;

const logsPowerOn = () => ({ bytesRead: 0, bytesWritten: 0, reads: 0, writes: 0 });

/** What has been counted since the machine was made; no reset clears it. */
export class Logs {
  private readonly block: StateBlock<ReturnType<typeof logsPowerOn>>;
  private readonly clock: VirtualClock;
  private readonly tooHotOrCold: () => boolean;
  /** Nothing may be written to the disk. */
  private readonly readOnly: boolean;

  constructor(id: string, clock: VirtualClock, readOnly: boolean, tooHotOrCold: () => boolean) {
    this.block = new StateBlock(`${id} logs`, 1, logsPowerOn);
    this.clock = clock;
    this.readOnly = readOnly;
    this.tooHotOrCold = tooHotOrCold;
  }

  save(): DeviceState {
    return this.block.save();
  }

  load(state: DeviceState): void {
    this.block.load(state);
  }

  /** A command has succeeded. @param bytes of its data */
  count(opcode: number, bytes: number): void {
    const { value } = this.block;
    if (opcode === NVM.read || opcode === NVM.compare) {
      value.reads++;
      value.bytesRead += bytes;
    } else if (opcode === NVM.write) {
      value.writes++;
      value.bytesWritten += bytes;
    }
  }

  /** @returns null when there is no such page */
  page(page: number): Uint8Array | null {
    switch (page) {
      case LOG.error:
        return new Uint8Array(ERROR_ENTRY);
      case LOG.smart:
        return this.smart();
      case LOG.firmware:
        return firmware();
      case LOG.effects:
        return effects();
      default:
        return null;
    }
  }

  private smart(): Uint8Array {
    const { value } = this.block;
    const bytes = new Uint8Array(512);
    const view = new DataView(bytes.buffer);
    const put = (at: number, number: number): void => view.setBigUint64(at, BigInt(Math.floor(number)), true);
    bytes[0] = (this.tooHotOrCold() ? 2 : 0) | (this.readOnly ? 8 : 0);
    view.setUint16(1, TEMPERATURE.now, true);
    // Spare that is left and that there has to be, percent.
    bytes[3] = 100;
    bytes[4] = 10;
    put(32, Math.ceil(value.bytesRead / DATA_UNIT));
    put(48, Math.ceil(value.bytesWritten / DATA_UNIT));
    put(64, value.reads);
    put(80, value.writes);
    put(96, this.clock.now() / MINUTE);
    put(112, 1);
    put(128, this.clock.now() / HOUR);
    return bytes;
  }
}

/** Slot 1 is active, with the revision that the controller names. */
function firmware(): Uint8Array {
  const bytes = new Uint8Array(512);
  bytes[0] = 1;
  bytes.fill(0x20, 8, 16);
  bytes.set(new TextEncoder().encode(FIRMWARE), 8);
  return bytes;
}

/** A word for each admin command, then one for each of the NVM command set. */
function effects(): Uint8Array {
  const bytes = new Uint8Array(4096);
  for (const opcode of Object.values(ADMIN)) bytes[4 * opcode] = SUPPORTED;
  for (const opcode of Object.values(NVM)) bytes[1024 + 4 * opcode] = SUPPORTED;
  for (const opcode of [NVM.write, NVM.writeZeroes, NVM.datasetManagement]) bytes[1024 + 4 * opcode]! |= CHANGES_DATA;
  return bytes;
}
