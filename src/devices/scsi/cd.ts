/** A SCSI CD drive: MMC-5 (T10/1675D). */
import { CD_SECTOR, discInformation, getConfiguration, modePages, readToc } from '../mmc.ts';
import { type ScsiData, type ScsiDone, SCSI_STATUS, SENSE } from '../scsi.ts';
import { answer, be16, bytes32, CheckCondition, Unit } from './unit.ts';

const COMMAND = {
  modeSense6: 0x1a,
  readCapacity: 0x25,
  synchronizeCache: 0x35,
  readToc: 0x43,
  getConfiguration: 0x46,
  getEvent: 0x4a,
  readDiscInformation: 0x51,
  modeSense10: 0x5a,
} as const;
const READS = new Set([0x08, 0x28, 0xa8, 0x88]);
const MINUTES = 2;
/** Media events of GET EVENT STATUS NOTIFICATION. */
const MEDIA_CLASS = 4;

export class ScsiCd extends Unit {
  readonly type = 'scsi-cd';
  protected readonly blockSize = CD_SECTOR;
  protected readonly kind = [5, 0x80] as const;

  protected override run(cdb: Uint8Array, data: ScsiData, done: ScsiDone): void {
    const command = cdb[0]!;
    if (READS.has(command)) return this.transfer(cdb, false, data, done);
    switch (command) {
      case COMMAND.readCapacity:
        return answer(Uint8Array.of(...bytes32(this.blocks - 1), ...bytes32(CD_SECTOR)), 8, data, done);
      case COMMAND.synchronizeCache:
        return done(SCSI_STATUS.good, null, 0);
      case COMMAND.readToc:
        return answer(this.toc(cdb), be16(cdb, 7), data, done);
      case COMMAND.getConfiguration:
        return answer(getConfiguration(cdb[1]! & 3, be16(cdb, 2), this.loadedBlocks), be16(cdb, 7), data, done);
      case COMMAND.getEvent:
        return this.event(cdb, data, done);
      case COMMAND.readDiscInformation:
        void this.blocks;
        return answer(discInformation(), be16(cdb, 7), data, done);
      case COMMAND.modeSense6:
        return answer(this.modeSense(cdb[2]!, false), cdb[4]!, data, done);
      case COMMAND.modeSense10:
        return answer(this.modeSense(cdb[2]!, true), be16(cdb, 7), data, done);
      default:
        super.run(cdb, data, done);
    }
  }

  protected vitalPages(): Readonly<Record<number, () => number[]>> {
    return {};
  }

  /** A tray that opens and closes. */
  protected startStop(start: boolean, load: boolean): void {
    if (!load) return;
    if (!start && this.state.value.locked) throw new CheckCondition([5, 0x53, 2]);
    this.state.value.stopped = !start;
  }

  private get loadedBlocks(): number {
    return this.backend === null || this.state.value.stopped ? 0 : this.blocks;
  }

  private toc(cdb: Uint8Array): Uint8Array {
    const format = (cdb[2]! & 0x0f) === 0 ? cdb[9]! >> 6 : cdb[2]! & 0x0f;
    const toc = readToc(format, (cdb[1]! & MINUTES) !== 0, cdb[6]!, this.blocks);
    if (toc === null) throw new CheckCondition(SENSE.badField);
    return toc;
  }

  /** Asked again and again: is there a medium, is the tray open? */
  private event(cdb: Uint8Array, data: ScsiData, done: ScsiDone): void {
    if ((cdb[1]! & 1) === 0) throw new CheckCondition(SENSE.badField);
    const wanted = (cdb[4]! & (1 << MEDIA_CLASS)) !== 0;
    const status = (this.loadedBlocks > 0 ? 2 : 0) | (this.state.value.stopped ? 1 : 0);
    const bytes = wanted ? [0, 6, MEDIA_CLASS, 1 << MEDIA_CLASS, 0, status, 0, 0] : [0, 2, 0x80, 1 << MEDIA_CLASS];
    answer(Uint8Array.from(bytes), be16(cdb, 7), data, done);
  }

  private modeSense(page: number, long: boolean): Uint8Array {
    const pages = modePages(page & 0x3f, this.state.value.locked);
    if (pages === null) throw new CheckCondition(SENSE.badField);
    return long
      ? Uint8Array.of(0, pages.length + 6, 0, 0, 0, 0, 0, 0, ...pages)
      : Uint8Array.of(pages.length + 3, 0, 0, 0, ...pages);
  }
}
