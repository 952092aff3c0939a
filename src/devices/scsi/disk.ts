/** A SCSI disk: SBC-3 (T10/1799D). */
import type { Completion } from '../../machine/interfaces.ts';
import { type ScsiData, type ScsiDone, SCSI_STATUS, SENSE } from '../scsi.ts';
import { answer, be16, be32, be64, blocksOf, bytes32, bytes64, CheckCondition, finish, Unit, type UnitOptions } from './unit.ts';

const COMMAND = {
  modeSense6: 0x1a,
  readCapacity10: 0x25,
  verify10: 0x2f,
  synchronizeCache10: 0x35,
  writeSame10: 0x41,
  unmap: 0x42,
  modeSense10: 0x5a,
  verify16: 0x8f,
  synchronizeCache16: 0x91,
  writeSame16: 0x93,
  serviceIn16: 0x9e,
} as const;
const READS = new Set([0x08, 0x28, 0xa8, 0x88]);
const WRITES = new Set([0x0a, 0x2a, 0xaa, 0x8a]);
/** READ CAPACITY (16) among the service actions. */
const READ_CAPACITY_16 = 0x10;
/** Force unit access: a write is over when it is stable. */
const FUA = 8;
const UNMAP_BIT = 8;
const MAX_UNMAP_BLOCKS = 0x3fffff;
const MAX_UNMAP_RANGES = 255;
const PIECE = 1 << 20;

export type DiskOptions = UnitOptions & { readOnly: boolean; removable: boolean; rotationRate: number; blockSize: number };

export class ScsiDisk extends Unit {
  readonly type = 'scsi-hd';
  protected readonly blockSize: number;
  protected readonly kind: readonly [number, number];
  private readonly disk: DiskOptions;

  constructor(options: DiskOptions) {
    super(options);
    this.disk = options;
    this.blockSize = options.blockSize;
    this.kind = [0, options.removable ? 0x80 : 0];
  }

  protected override run(cdb: Uint8Array, data: ScsiData, done: ScsiDone): void {
    const command = cdb[0]!;
    if (READS.has(command)) return this.transfer(cdb, false, data, done);
    if (WRITES.has(command)) return this.write(cdb, data, done);
    switch (command) {
      case COMMAND.readCapacity10:
        return answer(
          Uint8Array.of(...bytes32(Math.min(this.blocks - 1, 0xffffffff)), ...bytes32(this.blockSize)),
          8,
          data,
          done,
        );
      case COMMAND.serviceIn16:
        if ((cdb[1]! & 0x1f) !== READ_CAPACITY_16) throw new CheckCondition(SENSE.badField);
        return answer(this.capacity16(), be32(cdb, 10), data, done);
      case COMMAND.modeSense6:
        return answer(this.modeSense(cdb[2]!, false), cdb[4]!, data, done);
      case COMMAND.modeSense10:
        return answer(this.modeSense(cdb[2]!, true), be16(cdb, 7), data, done);
      case COMMAND.synchronizeCache10:
      case COMMAND.synchronizeCache16:
        return this.end(() => this.backend?.flush(), done);
      case COMMAND.verify10:
      case COMMAND.verify16:
        return this.verify(cdb, done);
      case COMMAND.unmap:
        return this.unmap(data, done);
      case COMMAND.writeSame10:
      case COMMAND.writeSame16:
        return this.writeSame(cdb, data, done);
      default:
        super.run(cdb, data, done);
    }
  }

  protected startStop(start: boolean): void {
    // A fixed disk that is stopped starts again when it is needed.
    if (this.disk.removable) this.state.value.stopped = !start;
  }

  protected vitalPages(): Readonly<Record<number, () => number[]>> {
    return {
      // Block limits.
      176: () => [
        1,
        0,
        0,
        1,
        ...bytes32(0),
        ...bytes32(0),
        ...bytes32(0),
        ...bytes32(MAX_UNMAP_BLOCKS),
        ...bytes32(MAX_UNMAP_RANGES),
        ...bytes32(1),
        ...bytes32(0),
        ...bytes64(MAX_UNMAP_BLOCKS),
        ...new Array<number>(20).fill(0),
      ],
      // Characteristics.
      177: () => [this.disk.rotationRate >> 8, this.disk.rotationRate & 0xff, ...new Array<number>(58).fill(0)],
      // Provisioning: UNMAP, WRITE SAME that unmaps; thin.
      178: () => [0, 0xe0, 2, 0],
    };
  }

  private capacity16(): Uint8Array {
    const bytes = new Uint8Array(32);
    bytes.set([...bytes64(this.blocks - 1), ...bytes32(this.blockSize)]);
    // Blocks can be unmapped.
    bytes[14] = 0x80;
    return bytes;
  }

  private mayWrite(): void {
    if (this.disk.readOnly) throw new CheckCondition(SENSE.writeProtected);
  }

  private write(cdb: Uint8Array, data: ScsiData, done: ScsiDone): void {
    this.mayWrite();
    const stable = cdb[0]! >= 0x20 && (cdb[1]! & FUA) !== 0;
    this.transfer(cdb, true, data, done, stable ? () => this.backend!.flush() : undefined);
  }

  private end(operation: () => Completion, done: ScsiDone): void {
    finish(
      operation,
      () => done(SCSI_STATUS.good, null, 0),
      () => done(SCSI_STATUS.checkCondition, SENSE.writeError, 0),
    );
  }

  private verify(cdb: Uint8Array, done: ScsiDone): void {
    const { first, count } = blocksOf(cdb);
    if (first + count > this.blocks) throw new CheckCondition(SENSE.outOfRange);
    done(SCSI_STATUS.good, null, 0);
  }

  /** Caching page: there is a write cache. */
  private modeSense(page: number, long: boolean): Uint8Array {
    const caching = [0x08, 0x12, 0x04, ...new Array<number>(17).fill(0)];
    const code = page & 0x3f;
    if (code !== 0x08 && code !== 0x3f) throw new CheckCondition(SENSE.badField);
    // Write-protected; FUA is understood.
    const specific = (this.disk.readOnly ? 0x80 : 0) | 0x10;
    return long
      ? Uint8Array.of(0, caching.length + 6, 0, specific, 0, 0, 0, 0, ...caching)
      : Uint8Array.of(caching.length + 3, 0, specific, 0, ...caching);
  }

  /** SBC-3, 5.28: ranges of blocks that are no longer needed. */
  private unmap(data: ScsiData, done: ScsiDone): void {
    this.mayWrite();
    const list = collect(data, 8 + 16 * MAX_UNMAP_RANGES);
    if (list.length < 8) return done(SCSI_STATUS.good, null, 0);
    const ranges: { first: number; count: number }[] = [];
    const end = Math.min(list.length, 8 + be16(list, 2));
    for (let at = 8; at + 16 <= end; at += 16) {
      const range = { first: be64(list, at), count: be32(list, at + 8) };
      if (range.first + range.count > this.blocks) throw new CheckCondition(SENSE.outOfRange);
      ranges.push(range);
    }
    this.end(() => this.discardAll(ranges), done);
  }

  private discardAll(ranges: readonly { first: number; count: number }[]): Completion {
    const running = ranges.flatMap(({ first, count }) => {
      const one = this.backend!.discard(first * this.blockSize, count * this.blockSize);
      return one === undefined ? [] : [one];
    });
    return running.length === 0 ? undefined : Promise.all(running).then(() => undefined);
  }

  private writeSame(cdb: Uint8Array, data: ScsiData, done: ScsiDone): void {
    this.mayWrite();
    const { first, count: given } = blocksOf(cdb);
    const count = given === 0 ? this.blocks - first : given;
    if (first + count > this.blocks || count < 0) throw new CheckCondition(SENSE.outOfRange);
    if (count > MAX_UNMAP_BLOCKS) throw new CheckCondition(SENSE.badField);
    const block = collect(data, this.blockSize);
    const zero = block.every((byte) => byte === 0);
    const [offset, length] = [first * this.blockSize, count * this.blockSize];
    const { backend } = this;
    const mayUnmap = (cdb[1]! & UNMAP_BIT) !== 0;
    if (zero && backend!.writeZeroes !== undefined) return this.end(() => backend!.writeZeroes!(offset, length, mayUnmap), done);
    if (block.length !== this.blockSize) throw new CheckCondition(SENSE.badField);
    this.end(() => this.fill(offset, length, block), done);
  }

  private async fill(offset: number, length: number, block: Uint8Array): Promise<void> {
    const piece = new Uint8Array(Math.min(length, PIECE));
    for (let at = 0; at < piece.length; at += block.length) piece.set(block, at);
    for (let done = 0; done < length; done += piece.length) {
      await this.backend!.write(offset + done, piece.subarray(0, Math.min(piece.length, length - done)));
    }
  }
}

/** Everything that the unit is given, up to so many bytes. */
function collect(data: ScsiData, most: number): Uint8Array {
  const bytes = new Uint8Array(Math.min(data.outLength, most));
  for (let at = 0; at < bytes.length; ) {
    const part = data.takeOut(at, bytes.length - at);
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
