/**
 * An ATAPI CD-ROM drive: the PACKET protocol of ATA/ATAPI-7 (volume 2, 9.8), and the commands of
 * MMC-5 (T10/1675D) and SPC-3 that drivers and firmware use.
 */
import type { BlockBackend, Completion } from '../../machine/interfaces.ts';
import { AtaDevice, ERROR, REGISTER } from './ata.ts';
import { identifyCd } from './identify.ts';
import { CD_SECTOR, discInformation, getConfiguration, INQUIRY, modePages, readToc } from '../mmc.ts';

const PACKET_SIZE = 12;
/** Interrupt reason, in the count register: the packet or the end of the command; to the host. */
const REASON = { command: 1, toHost: 2 } as const;

export type Sense = readonly [key: number, code: number, qualifier: number];

/** Sense keys and additional codes (SPC-3, 4.5). */
const SENSE = {
  none: [0, 0, 0],
  noMedium: [2, 0x3a, 0],
  readError: [3, 0x11, 0],
  badCommand: [5, 0x20, 0],
  outOfRange: [5, 0x21, 0],
  badField: [5, 0x24, 0],
  locked: [5, 0x53, 2],
  mediumChanged: [6, 0x28, 0],
} as const satisfies Record<string, Sense>;

const PACKET = {
  testUnitReady: 0x00,
  requestSense: 0x03,
  inquiry: 0x12,
  modeSelect6: 0x15,
  modeSense6: 0x1a,
  startStop: 0x1b,
  preventRemoval: 0x1e,
  readCapacity: 0x25,
  read10: 0x28,
  seek: 0x2b,
  synchronizeCache: 0x35,
  readSubchannel: 0x42,
  readToc: 0x43,
  getConfiguration: 0x46,
  getEvent: 0x4a,
  pause: 0x4b,
  readDiscInformation: 0x51,
  modeSelect: 0x55,
  modeSense: 0x5a,
  read12: 0xa8,
  readDvdStructure: 0xad,
  setSpeed: 0xbb,
  mechanismStatus: 0xbd,
  readCd: 0xbe,
} as const;

/** Commands that are carried out whatever has happened to the medium. */
const WITHOUT_ATTENTION = new Set<number>([PACKET.inquiry, PACKET.requestSense, PACKET.getConfiguration, PACKET.getEvent]);
const NEEDS_MEDIUM = new Set<number>([
  PACKET.testUnitReady,
  PACKET.readCapacity,
  PACKET.read10,
  PACKET.read12,
  PACKET.readCd,
  PACKET.seek,
  PACKET.readSubchannel,
  PACKET.readToc,
  PACKET.readDiscInformation,
  PACKET.readDvdStructure,
  PACKET.pause,
]);

/** What a transfer's data is. */
const JOB = { none: 0, identify: 1, packet: 2, answer: 3, read: 4 } as const;

export class IdeCdrom extends AtaDevice {
  readonly type = 'ide-cd';
  private medium: BlockBackend | null;
  private readonly serial: string;
  private readonly handlers: Map<number, (packet: Uint8Array) => void>;
  /** The tray has moved; the board follows with the medium. */
  onTray: ((open: boolean) => void) | undefined;

  constructor(id: string, medium: BlockBackend | null, serial: string) {
    super(id);
    this.medium = medium;
    this.serial = serial;
    this.handlers = this.packetHandlers();
    this.putSignature();
  }

  get loaded(): boolean {
    return this.medium !== null && !this.state.value.trayOpen;
  }

  /** Puts a disc in, or takes it out. */
  changeMedium(medium: BlockBackend | null): void {
    this.medium = medium;
    const s = this.state.value;
    s.mediumChanged = medium !== null;
    s.newMedium = medium !== null;
    s.trayOpen = false;
  }

  private get sectors(): number {
    return this.loaded ? Math.floor(this.medium!.size / CD_SECTOR) : 0;
  }

  protected override putSignature(): void {
    const s = this.state.value;
    s.registers.set([1, 1, 0x14, 0xeb, 0], REGISTER.count);
    s.status = 0;
  }

  protected override execute(command: number): void {
    switch (command) {
      case 0xa0:
        return this.takePacket();
      case 0xa1:
        return this.identify();
      case 0x08:
        this.reset(false);
        return;
      case 0xec:
      case 0x20:
        this.putSignature();
        return this.failed(ERROR.abort);
      case 0xef:
        return this.setFeatures();
      case 0xe5:
        this.state.value.registers[REGISTER.count] = 0xff;
        return this.finished();
      case 0xe0:
      case 0xe1:
      case 0xe2:
      case 0xe3:
      case 0xe6:
        return this.finished();
      default:
        return this.failed(ERROR.abort);
    }
  }

  private identify(): void {
    const data = identifyCd(this.serial, this.state.value.dmaMode);
    this.keepAnswer(data);
    this.pioIn(JOB.identify, 512, 512);
  }

  private setFeatures(): void {
    const s = this.state.value;
    if (s.registers[REGISTER.features] !== 0x03) return this.failed(ERROR.abort);
    s.dmaMode = s.registers[REGISTER.count]!;
    this.finished();
  }

  // --- The PACKET protocol.

  private takePacket(): void {
    const s = this.state.value;
    const { registers } = s;
    // Overlapped commands are not supported.
    if ((registers[REGISTER.features]! & 2) !== 0) return this.failed(ERROR.abort);
    // The host's byte count limit, in the registers that later show what a block has.
    s.limit = registers[REGISTER.lbaMid]! | (registers[REGISTER.lbaHigh]! << 8);
    this.pioOut(JOB.packet, PACKET_SIZE, PACKET_SIZE);
    registers[REGISTER.count] = REASON.command;
  }

  protected override blockReady(length: number): void {
    const { registers } = this.state.value;
    registers[REGISTER.lbaMid] = length;
    registers[REGISTER.lbaHigh] = length >> 8;
    registers[REGISTER.count] = REASON.toHost;
  }

  private runPacket(): void {
    const s = this.state.value;
    const { packet } = s;
    const code = packet[0]!;
    const handler = this.handlers.get(code);
    if (s.mediumChanged && !WITHOUT_ATTENTION.has(code)) {
      s.mediumChanged = false;
      return this.refuse(SENSE.mediumChanged);
    }
    if (handler === undefined) return this.refuse(SENSE.badCommand);
    if (NEEDS_MEDIUM.has(code) && !this.loaded) return this.refuse(SENSE.noMedium);
    if (code !== PACKET.requestSense) this.setSense(SENSE.none);
    handler(packet);
  }

  private setSense([key, code, qualifier]: Sense): void {
    const s = this.state.value;
    s.senseKey = key;
    s.senseCode = code;
    s.senseQualifier = qualifier;
  }

  /** Check condition: the error register's upper half is the sense key. */
  private refuse(sense: Sense): void {
    this.setSense(sense);
    this.state.value.registers[REGISTER.count] = REASON.toHost | REASON.command;
    this.failed((sense[0] << 4) | (sense === SENSE.none ? 0 : ERROR.abort));
  }

  private complete(): void {
    this.state.value.registers[REGISTER.count] = REASON.toHost | REASON.command;
    this.finished();
  }

  protected override transferFailed(): void {
    this.refuse(SENSE.readError);
  }

  /** Answers with as much of the data as the packet allows. */
  private answer(data: Uint8Array, allowed: number): void {
    this.keepAnswer(data);
    this.send(JOB.answer, Math.min(data.length, allowed));
  }

  private send(job: number, total: number, lba = 0): void {
    if (total === 0) return this.complete();
    const { registers, limit } = this.state.value;
    if ((registers[REGISTER.features]! & 1) !== 0) return this.dmaIn(job, total, lba);
    // The host's limit for one block, even unless it is the last; 0 and FFFFh mean FFFEh.
    const block = limit === 0 || limit === 0xffff ? 0xfffe : limit === 1 ? 2 : limit & ~1;
    this.pioIn(job, total, block, lba);
  }

  protected override produce(into: Uint8Array, at: number): Completion {
    const { job, lba } = this.state.value.transfer;
    if (job !== JOB.read) return this.produceAnswer(into, at);
    if (this.medium === null) throw new Error('there is no medium');
    return this.medium.read(lba * CD_SECTOR + at, into);
  }

  protected override mediumOf(job: number): BlockBackend | null {
    return job === JOB.read ? this.medium : null;
  }

  protected override get mediumStart(): number {
    return this.state.value.transfer.lba * CD_SECTOR;
  }

  protected override consume(from: Uint8Array): void {
    this.state.value.packet.set(from.subarray(0, PACKET_SIZE));
  }

  protected override transferred(job: number): void {
    if (job === JOB.packet) this.runPacket();
    else if (job !== JOB.identify) this.complete();
  }

  protected override flushed(): void {
    // Nothing is ever written.
  }

  // --- Commands.

  private packetHandlers(): Map<number, (packet: Uint8Array) => void> {
    const p = PACKET;
    const done = (): void => this.complete();
    return new Map<number, (packet: Uint8Array) => void>([
      [p.testUnitReady, done],
      [p.requestSense, (c) => this.requestSense(c[4]!)],
      [p.inquiry, (c) => ((c[1]! & 3) !== 0 ? this.refuse(SENSE.badField) : this.answer(INQUIRY, u16(c, 3)))],
      [p.modeSense, (c) => this.modeSense(c[2]!, u16(c, 7), 8)],
      [p.modeSense6, (c) => this.modeSense(c[2]!, c[4]!, 4)],
      [p.startStop, (c) => this.startStop(c[4]!)],
      [
        p.preventRemoval,
        (c) => {
          this.state.value.trayLocked = (c[4]! & 1) !== 0;
          this.complete();
        },
      ],
      [p.readCapacity, () => this.readCapacity()],
      [p.read10, (c) => this.read(u32(c, 2), u16(c, 7))],
      [p.read12, (c) => this.read(u32(c, 2), u32(c, 6))],
      [p.readCd, (c) => this.readCd(c)],
      [p.seek, (c) => (u32(c, 2) < this.sectors ? done() : this.refuse(SENSE.outOfRange))],
      [p.synchronizeCache, done],
      [p.setSpeed, done],
      [p.pause, done],
      [p.readSubchannel, (c) => this.answer(Uint8Array.of(0, 0x15, 0, 0), u16(c, 7))],
      [p.readToc, (c) => this.toc(c)],
      [p.getConfiguration, (c) => this.answer(getConfiguration(c[1]! & 3, u16(c, 2), this.sectors), u16(c, 7))],
      [p.getEvent, (c) => this.getEvent(c)],
      [p.readDiscInformation, (c) => this.answer(discInformation(), u16(c, 7))],
      [
        p.mechanismStatus,
        (c) => this.answer(Uint8Array.of(0, this.state.value.trayOpen ? 0x10 : 0, 0, 0, 0, 1, 0, 0), u16(c, 8)),
      ],
    ]);
  }

  private requestSense(allowed: number): void {
    const { senseKey, senseCode, senseQualifier } = this.state.value;
    const data = new Uint8Array(18);
    data.set([0x70, 0, senseKey, 0, 0, 0, 0, 10]);
    data[12] = senseCode;
    data[13] = senseQualifier;
    this.setSense(SENSE.none);
    this.answer(data, allowed);
  }

  /** @param header bytes of the header that the form of the command has, 4 or 8 */
  private modeSense(page: number, allowed: number, header: 4 | 8): void {
    const pages = page >> 6 === 3 ? null : modePages(page & 0x3f, this.state.value.trayLocked);
    if (pages === null) return this.refuse(SENSE.badField);
    const data = new Uint8Array(header + pages.length);
    const length = data.length - (header === 8 ? 2 : 1);
    // Medium type: data disc, no disc, open tray.
    const type = this.loaded ? 0x01 : this.state.value.trayOpen ? 0x71 : 0x70;
    data.set(header === 8 ? [length >> 8, length & 0xff, type] : [length, type]);
    data.set(pages, header);
    this.answer(data, allowed);
  }

  private startStop(what: number): void {
    const s = this.state.value;
    if ((what & 2) === 0) return this.complete();
    const open = (what & 1) === 0;
    if (open && s.trayLocked) return this.refuse(SENSE.locked);
    if (s.trayOpen !== open) {
      s.trayOpen = open;
      s.newMedium = s.mediumChanged = !open && this.medium !== null;
      this.onTray?.(open);
    }
    this.complete();
  }

  private readCapacity(): void {
    const data = new Uint8Array(8);
    const view = new DataView(data.buffer);
    view.setUint32(0, Math.max(0, this.sectors - 1));
    view.setUint32(4, CD_SECTOR);
    this.answer(data, 8);
  }

  private read(lba: number, count: number): void {
    if (lba + count > this.sectors) return this.refuse(SENSE.outOfRange);
    this.send(JOB.read, count * CD_SECTOR, lba);
  }

  /** READ CD gives the user data; of what else surrounds it on a disc an image has nothing. */
  private readCd(packet: Uint8Array): void {
    const count = u32(packet, 5) & 0xffffff;
    const fields = packet[9]! & 0xf8;
    if (fields === 0) return this.complete();
    if (fields !== 0x10) return this.refuse(SENSE.badField);
    this.read(u32(packet, 2), count);
  }

  private toc(packet: Uint8Array): void {
    const minutes = (packet[1]! & 2) !== 0;
    const format = packet[2]! & 15 || packet[9]! >> 6;
    const data = readToc(format, minutes, packet[6]!, this.sectors);
    if (data === null) return this.refuse(SENSE.badField);
    this.answer(data, u16(packet, 7));
  }

  /** Only polling for media events (class 4) is there (MMC-5, 6.7). */
  private getEvent(packet: Uint8Array): void {
    if ((packet[1]! & 1) === 0) return this.refuse(SENSE.badField);
    const s = this.state.value;
    if ((packet[4]! & 0x10) === 0) return this.answer(Uint8Array.of(0, 2, 0x80, 0x10), u16(packet, 7));
    const event = s.newMedium ? 2 : 0;
    s.newMedium = false;
    const status = (s.trayOpen ? 1 : 0) | (this.loaded ? 2 : 0);
    this.answer(Uint8Array.of(0, 6, 4, 0x10, event, status, 0, 0), u16(packet, 7));
  }
}

const u16 = (data: Uint8Array, at: number): number => (data[at]! << 8) | data[at + 1]!;
const u32 = (data: Uint8Array, at: number): number => u16(data, at) * 65536 + u16(data, at + 2);
