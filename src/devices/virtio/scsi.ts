/** SCSI host device: virtio 1.2, section 5.6. */
import { giveBuffer, takeBuffer } from '../../host/pieces.ts';
import type { BusHotplug } from '../device-type.ts';
import { type ScsiBus, type ScsiData, type ScsiUnit, SENSE, type Sense, SCSI_STATUS, senseBytes } from '../scsi.ts';
import type { Chain } from './chain.ts';
import { put16, put32, readBytes } from './config-space.ts';
import { VirtioDevice, type VirtioParts } from './device.ts';
import { DEVICE, featureSet } from './features.ts';
import type { DeviceState } from '../../machine/interfaces.ts';
import { checkChains, type SavedChain, type Virtqueue } from './queue.ts';
import { StateBlock } from '../state.ts';

/** Configuration (5.6.4). */
const CONFIG = {
  queues: 0,
  segMax: 4,
  maxSectors: 8,
  commandsPerLun: 12,
  eventSize: 16,
  senseSize: 20,
  cdbSize: 24,
  maxChannel: 28,
  maxTarget: 30,
  maxLun: 32,
} as const;
const CONFIG_SIZE = 36;
const CONTROL = 0;
const EVENTS = 1;
/** An event (5.6.6.3): what 32, LUN 8 bytes, reason 32. */
const EVENT_SIZE = 16;
const EVENT = { transportReset: 1, missed: 0x80000000 } as const;
const REASON = { rescan: 1, removed: 2 } as const;
const FEATURE = { hotplug: 1 } as const;
export const MAX_TARGET = 255;
export const MAX_LUN = 16383;

/** A request: LUN 8 bytes, tag 64, three bytes, CDB; its answer: lengths, status, response, sense. */
const REQUEST_CDB = 19;
const RESPONSE = 12;
const RESPONSE_OK = 0;
const RESPONSE_BAD_TARGET = 3;
const CONTROL_ANSWER = { complete: 0, rejected: 2 } as const;
const REPORT_LUNS = 0xa0;
const INQUIRY = 0x12;
const REQUEST_SENSE = 0x03;
/** INQUIRY's answer where there is no unit. */
const NO_UNIT = 0x7f;
const PIECE = 1 << 20;

export type ScsiHostOptions = {
  queues: number;
  queueSize: number;
  maxSectors: number;
  commandsPerLun: number;
  bus: ScsiBus;
  /** Units may come and go. */
  hotplug: boolean;
};

const powerOn = () => ({
  senseSize: 96,
  cdbSize: 32,
  /** There was no buffer for an event, which the next one says. */
  eventsMissed: false,
});

export class VirtioScsi extends VirtioDevice implements BusHotplug {
  readonly deviceType = DEVICE.scsi;
  readonly configSize = CONFIG_SIZE;
  readonly bus: ScsiBus;
  private readonly options: ScsiHostOptions;
  private readonly registers = new StateBlock('virtio-scsi', 1, powerOn, { senseSize: 252, cdbSize: 255 });
  private epoch = 0;
  private starting = false;
  /** Requests that are not over. */
  private readonly waiting = new Set<{ queue: Virtqueue; chain: Chain }>();
  /** Of a state that has been loaded. */
  private loaded: readonly SavedChain[] = [];
  private flushing = false;

  constructor(parts: VirtioParts, options: ScsiHostOptions) {
    super(parts, new Array<number>(2 + options.queues).fill(options.queueSize));
    this.options = options;
    this.bus = options.bus;
    this.bus.hotplug = options.hotplug ? this : null;
  }

  plugged(unit: ScsiUnit): void {
    this.tell(unit, REASON.rescan);
  }

  /** A unit leaves at once; requests for it fail. */
  requestUnplug(unit: ScsiUnit): void {
    this.tell(unit, REASON.removed);
    this.bus.onEject?.(unit);
  }

  override readConfig(offset: number, size: number): number {
    const bytes = new Uint8Array(CONFIG_SIZE);
    const { queues, queueSize, maxSectors, commandsPerLun } = this.options;
    put32(bytes, CONFIG.queues, queues);
    put32(bytes, CONFIG.segMax, queueSize - 2);
    put32(bytes, CONFIG.maxSectors, maxSectors);
    put32(bytes, CONFIG.commandsPerLun, commandsPerLun);
    put32(bytes, CONFIG.eventSize, EVENT_SIZE);
    put32(bytes, CONFIG.senseSize, this.registers.value.senseSize);
    put32(bytes, CONFIG.cdbSize, this.registers.value.cdbSize);
    put16(bytes, CONFIG.maxTarget, MAX_TARGET);
    put32(bytes, CONFIG.maxLun, MAX_LUN);
    return readBytes(bytes, offset, size);
  }

  override writeConfig(offset: number, _size: number, value: number): void {
    if (offset === CONFIG.senseSize && value <= 252) this.registers.value.senseSize = value;
    if (offset === CONFIG.cdbSize && value >= 16 && value <= 255) this.registers.value.cdbSize = value;
  }

  protected deviceFeatures(): bigint {
    return this.options.hotplug ? featureSet(FEATURE.hotplug) : 0n;
  }

  /** Requests that have failed and wait for the machine to go on are done again, from their beginning. */
  protected override deviceState() {
    return {
      save: (): DeviceState => {
        const state = this.registers.save();
        state.fields['requests'] = [...this.waiting].map(({ queue, chain }) => queue.save(chain));
        return state;
      },
      load: ({ version, fields }: DeviceState): void => {
        const { requests, ...own } = fields;
        this.registers.load({ version, fields: own });
        this.epoch++;
        this.waiting.clear();
        this.loaded = checkChains(requests, this.queues.length);
      },
    };
  }

  override afterLoad(): void {
    this.starting = true;
    for (const saved of this.loaded) {
      const queue = this.queues[saved.queue]!;
      const chain = queue.retake(saved);
      if (chain !== null) this.request(queue, chain);
    }
    this.starting = false;
    this.loaded = [];
    for (const queue of this.queues) queue.flush();
  }

  protected override onReset(): void {
    this.epoch++;
    this.waiting.clear();
    this.registers.reset();
  }

  protected queueNotified(queue: Virtqueue): void {
    // Buffers for events wait until there are some.
    if (queue.index === EVENTS) {
      if (this.registers.value.eventsMissed) this.sendEvent(new Uint8Array(EVENT_SIZE));
      return;
    }
    this.starting = true;
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
      if (queue.index === CONTROL) this.control(queue, chain);
      else this.request(queue, chain);
    }
    this.starting = false;
    queue.flush();
  }

  private tell(unit: ScsiUnit, reason: number): void {
    if (!this.running || !this.has(FEATURE.hotplug)) return;
    const { target, lun } = this.bus.addressOf(unit);
    const event = new Uint8Array(EVENT_SIZE);
    put32(event, 0, EVENT.transportReset);
    event.set([1, target, lun < 256 ? 0 : 0x40 | (lun >> 8), lun & 0xff], 4);
    put32(event, 12, reason);
    this.sendEvent(event);
  }

  private sendEvent(event: Uint8Array): void {
    const { value } = this.registers;
    const queue = this.queues[EVENTS]!;
    const chain = queue.pop();
    if (chain === null) {
      value.eventsMissed = true;
      return;
    }
    if (value.eventsMissed) event[3] = event[3]! | (EVENT.missed >>> 24);
    value.eventsMissed = false;
    queue.push(chain, chain.write(0, event));
    queue.flush();
  }

  private request(queue: Virtqueue, chain: Chain): void {
    const { senseSize, cdbSize } = this.registers.value;
    const header = REQUEST_CDB + cdbSize;
    const answer = RESPONSE + senseSize;
    if (chain.readable < header || chain.writable < answer)
      return this.broken('a request without a header, or room for its answer');
    const bytes = new Uint8Array(header);
    chain.read(0, bytes);
    const cdb = bytes.subarray(REQUEST_CDB);
    const { epoch } = this;
    const one = { queue, chain };
    this.waiting.add(one);
    const data = new ChainData(chain, header, answer);
    const respond = (response: number, status: number, sense: Sense | null, transferred: number): void => {
      data.release();
      if (epoch !== this.epoch) return;
      this.waiting.delete(one);
      const out = new Uint8Array(answer);
      const extra = sense === null ? new Uint8Array(0) : senseBytes(sense).subarray(0, senseSize);
      put32(out, 0, extra.length);
      put32(out, 4, Math.max(0, data.inLength + data.outLength - transferred));
      out[10] = status;
      out[11] = response;
      out.set(extra, RESPONSE);
      chain.write(0, out);
      queue.push(chain, answer + (data.inLength > 0 ? transferred : 0));
      if (!this.starting) this.flushSoon();
    };
    this.execute(bytes, cdb, data, respond);
  }

  private execute(
    lunBytes: Uint8Array,
    cdb: Uint8Array,
    data: ChainData,
    respond: (response: number, status: number, sense: Sense | null, transferred: number) => void,
  ): void {
    const target = lunBytes[1]!;
    const luns = this.bus.luns(target);
    if (lunBytes[0] !== 1 || luns.length === 0) return respond(RESPONSE_BAD_TARGET, 0, null, 0);
    const lun = ((lunBytes[2]! & 0x3f) << 8) | lunBytes[3]!;
    const good = (bytes: Uint8Array, allocated: number): void =>
      respond(RESPONSE_OK, SCSI_STATUS.good, null, data.answer(bytes, allocated));
    const allocated32 = ((cdb[6]! << 24) | (cdb[7]! << 16) | (cdb[8]! << 8) | cdb[9]!) >>> 0;
    if (cdb[0] === REPORT_LUNS) return good(reportLuns(luns), allocated32);
    const unit = this.bus.find(target, lun);
    if (unit !== null) return unit.execute(cdb, data, (status, sense, count) => respond(RESPONSE_OK, status, sense, count));
    if (cdb[0] === INQUIRY) return good(Uint8Array.of(NO_UNIT, 0, 5, 0x12, 31, ...new Uint8Array(31)), (cdb[3]! << 8) | cdb[4]!);
    if (cdb[0] === REQUEST_SENSE) return good(senseBytes(SENSE.noSuchUnit), cdb[4]!);
    respond(RESPONSE_OK, SCSI_STATUS.checkCondition, SENSE.noSuchUnit, 0);
  }

  /** Task management and asynchronous notification (5.6.6.2): commands are over too soon to be aborted. */
  private control(queue: Virtqueue, chain: Chain): void {
    const type = new Uint8Array(4);
    chain.read(0, type);
    const task = type[0] === 0;
    const answer = task ? Uint8Array.of(CONTROL_ANSWER.complete) : Uint8Array.of(0, 0, 0, 0, CONTROL_ANSWER.complete);
    queue.push(chain, chain.write(0, type[0]! > 2 ? Uint8Array.of(CONTROL_ANSWER.rejected) : answer));
  }

  private flushSoon(): void {
    if (this.flushing) return;
    this.flushing = true;
    queueMicrotask(() => {
      this.flushing = false;
      for (const queue of this.queues) queue.flush();
    });
  }
}

/** SPC-4, 6.33. */
function reportLuns(luns: readonly number[]): Uint8Array {
  const list = luns.flatMap((lun) => [lun < 256 ? 0 : 0x40 | (lun >> 8), lun & 0xff, 0, 0, 0, 0, 0, 0]);
  return Uint8Array.of(0, 0, list.length >> 8, list.length & 0xff, 0, 0, 0, 0, ...list);
}

/** The data of a request: what its chain has behind the header and behind the answer. */
class ChainData implements ScsiData {
  readonly inLength: number;
  readonly outLength: number;
  private readonly chain: Chain;
  private readonly header: number;
  private readonly response: number;
  /** Where the part under way lies in place, or -1: then it is copied, part after part, by way of this. */
  private place = -1;
  private buffer: Uint8Array | null = null;

  constructor(chain: Chain, header: number, response: number) {
    this.chain = chain;
    this.header = header;
    this.response = response;
    this.inLength = chain.writable - response;
    this.outLength = chain.readable - header;
  }

  takeIn(at: number, length: number): Uint8Array {
    this.place = this.chain.writableAt(this.response + at, length);
    return this.place >= 0 ? this.chain.view(this.place, length) : this.bounce(length);
  }

  endIn(at: number, part: Uint8Array): void {
    if (this.place >= 0) this.chain.wrote(this.place, part.length);
    else this.chain.write(this.response + at, part);
  }

  takeOut(at: number, length: number): Uint8Array {
    const place = this.chain.readableAt(this.header + at, length);
    if (place >= 0) return this.chain.view(place, length);
    const copy = this.bounce(length);
    this.chain.read(this.header + at, copy);
    return copy;
  }

  private bounce(length: number): Uint8Array {
    this.buffer ??= takeBuffer(PIECE);
    return this.buffer.subarray(0, Math.min(length, PIECE));
  }

  /** The command is over, and nobody uses its parts any more. */
  release(): void {
    if (this.buffer !== null) giveBuffer(this.buffer);
    this.buffer = null;
  }

  /** @returns how much of it there was room for */
  answer(bytes: Uint8Array, allocated: number): number {
    const part = bytes.subarray(0, Math.min(bytes.length, allocated, this.inLength));
    return this.chain.write(this.response, part);
  }
}
