/** An ATA disk: the commands of ATA/ATAPI-7 (T13/1532D) that drivers and firmware use. */
import type { BlockBackend, Completion } from '../../machine/interfaces.ts';
import { AtaDevice, DEVICE_LBA, ERROR, REGISTER, STATUS } from './ata.ts';
import { identifyDisk } from './identify.ts';

export const SECTOR = 512;
/** Most sectors of a DRQ block of the MULTIPLE commands. */
const MAX_MULTIPLE = 16;
/** Most sectors that 28-bit and 48-bit commands reach. */
const LIMIT_28 = 2 ** 28;

/** Geometry as the disk has it: cylinders, heads, sectors per track. */
export type Geometry = { cylinders: number; heads: number; sectors: number };

/** What disks of this size have: 16 heads of 63 sectors, up to 16383 cylinders. */
export function geometryOf(bytes: number): Geometry {
  const cylinders = Math.floor(bytes / SECTOR / (16 * 63));
  return { cylinders: Math.max(2, Math.min(16383, cylinders)), heads: 16, sectors: 63 };
}

type Range = { lba: number; count: number };

const COMMAND = {
  nop: 0x00,
  dataSetManagement: 0x06,
  readSectors: 0x20,
  readExt: 0x24,
  readDmaExt: 0x25,
  readNativeMaxExt: 0x27,
  readMultipleExt: 0x29,
  writeSectors: 0x30,
  writeExt: 0x34,
  writeDmaExt: 0x35,
  writeMultipleExt: 0x39,
  writeDmaFuaExt: 0x3d,
  verify: 0x40,
  verifyExt: 0x42,
  diagnostic: 0x90,
  initializeParameters: 0x91,
  readMultiple: 0xc4,
  writeMultiple: 0xc5,
  setMultiple: 0xc6,
  readDma: 0xc8,
  writeDma: 0xca,
  writeMultipleFuaExt: 0xce,
  standbyNow: 0xe0,
  idleNow: 0xe1,
  standby: 0xe2,
  idle: 0xe3,
  checkPower: 0xe5,
  sleep: 0xe6,
  flush: 0xe7,
  flushExt: 0xea,
  identify: 0xec,
  setFeatures: 0xef,
  readNativeMax: 0xf8,
} as const;

/** What a transfer's data is. */
const JOB = { none: 0, identify: 1, readPio: 2, readDma: 3, write: 4, trim: 5 } as const;

export class IdeDisk extends AtaDevice {
  readonly type = 'ide-hd';
  private readonly backend: BlockBackend;
  private readonly serial: string;
  private readonly geometry: Geometry;
  private readonly handlers: Map<number, () => void>;

  constructor(id: string, backend: BlockBackend, serial: string) {
    super(id);
    this.backend = backend;
    this.serial = serial;
    this.geometry = geometryOf(backend.size);
    this.handlers = this.commands();
    this.putSignature();
  }

  get sectors(): number {
    return this.backend.size / SECTOR;
  }

  /** The geometry that cylinder, head and sector numbers are in. */
  private get logical(): Geometry {
    const { heads, sectors } = this.state.value;
    if (heads === 0 || sectors === 0) return this.geometry;
    const cylinders = Math.min(65535, Math.floor(this.sectors / (heads * sectors)));
    return { cylinders, heads, sectors };
  }

  protected override putSignature(): void {
    const { registers } = this.state.value;
    registers.set([1, 1, 0, 0, 0], REGISTER.count);
    this.state.value.status = STATUS.ready | STATUS.seekComplete;
  }

  protected override execute(command: number): void {
    const handler = this.handlers.get(command);
    if (handler === undefined) this.failed(ERROR.abort);
    else handler();
  }

  protected override transferFailed(at: number): void {
    this.putAddress(this.range().lba + Math.floor(at / SECTOR));
    this.failed(ERROR.uncorrectable);
  }

  private commands(): Map<number, () => void> {
    const c = COMMAND;
    const done = (): void => this.finished();
    const multiple = (): number => this.state.value.multiple;
    const map = new Map<number, () => void>([
      [c.readSectors, () => this.readPio(1)],
      [c.readSectors + 1, () => this.readPio(1)],
      [c.readExt, () => this.readPio(1)],
      [c.readMultiple, () => this.readPio(multiple())],
      [c.readMultipleExt, () => this.readPio(multiple())],
      [c.writeSectors, () => this.writePio(1)],
      [c.writeSectors + 1, () => this.writePio(1)],
      [c.writeExt, () => this.writePio(1)],
      [c.writeMultiple, () => this.writePio(multiple())],
      [c.writeMultipleExt, () => this.writePio(multiple())],
      [c.writeMultipleFuaExt, () => this.writePio(multiple())],
      [c.readDma, () => this.readDma()],
      [c.readDma + 1, () => this.readDma()],
      [c.readDmaExt, () => this.readDma()],
      [c.writeDma, () => this.writeDma()],
      [c.writeDma + 1, () => this.writeDma()],
      [c.writeDmaExt, () => this.writeDma()],
      [c.writeDmaFuaExt, () => this.writeDma()],
      [c.verify, () => this.verify()],
      [c.verify + 1, () => this.verify()],
      [c.verifyExt, () => this.verify()],
      [c.dataSetManagement, () => this.trim()],
      [c.flush, () => this.flush()],
      [c.flushExt, () => this.flush()],
      [c.identify, () => this.identify()],
      [c.setFeatures, () => this.setFeatures()],
      [c.setMultiple, () => this.setMultiple()],
      [c.initializeParameters, () => this.setGeometry()],
      [c.readNativeMax, () => this.nativeMax()],
      [c.readNativeMaxExt, () => this.nativeMax()],
      [
        c.checkPower,
        () => {
          // Active or idle.
          this.state.value.registers[REGISTER.count] = 0xff;
          this.finished();
        },
      ],
      [c.standbyNow, done],
      [c.idleNow, done],
      [c.standby, done],
      [c.idle, done],
      [c.sleep, done],
    ]);
    // RECALIBRATE and SEEK of old.
    for (let i = 0; i < 16; i++) map.set(0x10 + i, done).set(0x70 + i, done);
    return map;
  }

  // --- Addresses.

  private get wide(): boolean {
    const { command } = this.state.value;
    return WIDE.has(command);
  }

  /** Sectors that the command is about. */
  private range(): Range {
    const { registers: r, previous: p } = this.state.value;
    const count = r[REGISTER.count]!;
    const low = r[REGISTER.lbaLow]! + r[REGISTER.lbaMid]! * 2 ** 8 + r[REGISTER.lbaHigh]! * 2 ** 16;
    if (this.wide) {
      const high = p[REGISTER.lbaLow]! + p[REGISTER.lbaMid]! * 2 ** 8 + p[REGISTER.lbaHigh]! * 2 ** 16;
      return { lba: high * 2 ** 24 + low, count: p[REGISTER.count]! * 256 + count || 65536 };
    }
    if ((r[REGISTER.device]! & DEVICE_LBA) !== 0) {
      return { lba: this.header * 2 ** 24 + low, count: count || 256 };
    }
    const { heads, sectors } = this.logical;
    const cylinder = r[REGISTER.lbaMid]! + r[REGISTER.lbaHigh]! * 256;
    const lba = (cylinder * heads + this.header) * sectors + r[REGISTER.lbaLow]! - 1;
    return { lba, count: count || 256 };
  }

  /** Shows an address in the registers, the way the command gave it. */
  private putAddress(lba: number): void {
    const { registers: r, previous: p } = this.state.value;
    const byte = (n: number): number => Math.floor(lba / 2 ** (8 * n)) & 0xff;
    if (!this.wide && (r[REGISTER.device]! & DEVICE_LBA) === 0) {
      const { heads, sectors } = this.logical;
      const track = Math.floor(lba / sectors);
      const cylinder = Math.floor(track / heads);
      r[REGISTER.lbaLow] = (lba % sectors) + 1;
      r[REGISTER.lbaMid] = cylinder;
      r[REGISTER.lbaHigh] = cylinder >> 8;
      r[REGISTER.device] = (r[REGISTER.device]! & 0xf0) | (track % heads);
      return;
    }
    for (let i = 0; i < 3; i++) r[REGISTER.lbaLow + i] = byte(i);
    if (this.wide) for (let i = 0; i < 3; i++) p[REGISTER.lbaLow + i] = byte(3 + i);
    else r[REGISTER.device] = (r[REGISTER.device]! & 0xf0) | (byte(3) & 0x0f);
  }

  /** Checks the command's range. @returns null when it has failed already */
  private checkedRange(): Range | null {
    const range = this.range();
    if (range.lba >= 0 && range.lba + range.count <= this.sectors) return range;
    this.failed(ERROR.notFound);
    return null;
  }

  /** The registers show the last sector that was worked on. */
  private showLast({ lba, count }: Range): void {
    this.putAddress(lba + count - 1);
    this.state.value.registers[REGISTER.count] = 0;
  }

  private complete(range: Range): void {
    this.showLast(range);
    this.finished();
  }

  // --- Data.

  protected override produce(into: Uint8Array, at: number): Completion {
    const { job, lba } = this.state.value.transfer;
    if (job === JOB.identify) return this.produceAnswer(into, at);
    return this.backend.read(lba * SECTOR + at, into);
  }

  protected override consume(from: Uint8Array, at: number): Completion {
    const { job, lba } = this.state.value.transfer;
    if (job === JOB.trim) return this.discard(from);
    if (this.backend.readOnly) throw new Error('the disk is read-only');
    return this.backend.write(lba * SECTOR + at, from);
  }

  protected override mediumOf(job: number): BlockBackend | null {
    return job === JOB.readDma || job === JOB.write ? this.backend : null;
  }

  protected override get mediumStart(): number {
    return this.state.value.transfer.lba * SECTOR;
  }

  protected override transferred(job: number): void {
    switch (job) {
      // The last block's interrupt has been; taking its data ends the command without another.
      case JOB.readPio:
        return this.showLast(this.state.value.transfer);
      case JOB.readDma:
        return this.complete(this.state.value.transfer);
      case JOB.write:
        return this.written();
      case JOB.trim:
        return this.finished();
    }
  }

  private readPio(multiple: number): void {
    if (multiple === 0) return this.failed(ERROR.abort);
    const range = this.checkedRange();
    if (range !== null) this.pioIn(JOB.readPio, range.count * SECTOR, multiple * SECTOR, range.lba, range.count);
  }

  private writePio(multiple: number): void {
    if (multiple === 0) return this.failed(ERROR.abort);
    const range = this.checkedRange();
    if (range !== null) this.pioOut(JOB.write, range.count * SECTOR, multiple * SECTOR, range.lba, range.count);
  }

  private readDma(): void {
    const range = this.checkedRange();
    if (range !== null) this.dmaIn(JOB.readDma, range.count * SECTOR, range.lba, range.count);
  }

  private writeDma(): void {
    const range = this.checkedRange();
    if (range !== null) this.dmaOut(JOB.write, range.count * SECTOR, range.lba, range.count);
  }

  /** Without a write cache, and with FUA, what has been written is safe when the command ends. */
  private written(): void {
    const { command, writeCache, transfer } = this.state.value;
    const through = !writeCache || command === COMMAND.writeDmaFuaExt || command === COMMAND.writeMultipleFuaExt;
    if (through) this.flushThen();
    else this.complete(transfer);
  }

  protected override flushed(): Completion {
    return this.backend.flush();
  }

  protected override flushEnded(): void {
    const { transfer } = this.state.value;
    if (transfer.job === JOB.write) this.complete(transfer);
    else this.finished();
  }

  private verify(): void {
    const range = this.checkedRange();
    if (range !== null) this.complete(range);
  }

  private flush(): void {
    this.state.value.status |= STATUS.busy;
    this.flushThen();
  }

  /** DATA SET MANAGEMENT (ACS-2, 7.5): ranges of eight bytes, six of them address, two length. */
  private trim(): void {
    const { registers, previous } = this.state.value;
    if ((this.feature & 1) === 0) return this.failed(ERROR.abort);
    const blocks = previous[REGISTER.count]! * 256 + registers[REGISTER.count]! || 65536;
    this.dmaOut(JOB.trim, blocks * SECTOR);
  }

  private async discardAll(ranges: readonly Range[]): Promise<void> {
    for (const { lba, count } of ranges) await this.backend.discard(lba * SECTOR, count * SECTOR);
  }

  private discard(list: Uint8Array): void | Promise<void> {
    const ranges: Range[] = [];
    for (let at = 0; at + 8 <= list.length; at += 8) {
      const byte = (i: number): number => list[at + i]! * 2 ** (8 * i);
      const lba = byte(0) + byte(1) + byte(2) + byte(3) + byte(4) + byte(5);
      const count = list[at + 6]! + list[at + 7]! * 256;
      if (count === 0) continue;
      if (lba + count > this.sectors) throw new Error('a range beyond the end');
      ranges.push({ lba, count });
    }
    return ranges.length === 0 ? undefined : this.discardAll(ranges);
  }

  // --- What the disk is, and settings.

  private identify(): void {
    const { multiple, dmaMode, writeCache } = this.state.value;
    const data = identifyDisk({
      sectors: this.sectors,
      geometry: this.geometry,
      logical: this.logical,
      serial: this.serial,
      multiple,
      maxMultiple: MAX_MULTIPLE,
      mode: dmaMode,
      writeCache,
    });
    this.keepAnswer(data);
    this.pioIn(JOB.identify, SECTOR, SECTOR);
  }

  /** Of the features register only the device knows what was written: reads show errors. */
  private get feature(): number {
    return this.state.value.registers[REGISTER.features]!;
  }

  private setFeatures(): void {
    const s = this.state.value;
    const count = s.registers[REGISTER.count]!;
    switch (this.feature) {
      case 0x02:
        s.writeCache = true;
        break;
      case 0x82:
        s.writeCache = false;
        return this.flush();
      case 0x03:
        // PIO default and flow control modes, multiword DMA 0-2, Ultra DMA 0-5.
        if (count >> 3 > 1 && !(count >> 3 === 4 && (count & 7) <= 2) && !(count >> 3 === 8 && (count & 7) <= 5))
          return this.failed(ERROR.abort);
        s.dmaMode = count;
        break;
      // Read look-ahead, reverting to defaults, power management, acoustics: nothing to do.
      case 0x05:
      case 0x85:
      case 0x55:
      case 0xaa:
      case 0x66:
      case 0xcc:
      case 0x42:
      case 0xc2:
      case 0x69:
      case 0x67:
      case 0x96:
      case 0x9a:
        break;
      default:
        return this.failed(ERROR.abort);
    }
    this.finished();
  }

  private setMultiple(): void {
    const s = this.state.value;
    const count = s.registers[REGISTER.count]!;
    if (count > MAX_MULTIPLE || (count & (count - 1)) !== 0) return this.failed(ERROR.abort);
    s.multiple = count;
    this.finished();
  }

  private setGeometry(): void {
    const s = this.state.value;
    const sectors = s.registers[REGISTER.count]!;
    if (sectors === 0) return this.failed(ERROR.abort);
    s.heads = this.header + 1;
    s.sectors = sectors;
    this.finished();
  }

  private nativeMax(): void {
    const last = this.sectors - 1;
    this.putAddress(this.wide ? last : Math.min(last, LIMIT_28 - 1));
    this.finished();
  }
}

const WIDE = new Set<number>([
  COMMAND.readExt,
  COMMAND.readDmaExt,
  COMMAND.readNativeMaxExt,
  COMMAND.readMultipleExt,
  COMMAND.writeExt,
  COMMAND.writeDmaExt,
  COMMAND.writeMultipleExt,
  COMMAND.writeDmaFuaExt,
  COMMAND.verifyExt,
  COMMAND.writeMultipleFuaExt,
]);
