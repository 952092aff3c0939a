/** Memory balloon: virtio 1.2, section 5.5. The guest gives pages away until so many are gone as the host wants. */
import type { DeviceState, Timer, VirtualClock } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import type { Chain } from './chain.ts';
import { put32, readBytes } from './config-space.ts';
import { VirtioDevice, type VirtioParts } from './device.ts';
import { DEVICE, featureSet } from './features.ts';
import { checkChains, type SavedChain, type Virtqueue } from './queue.ts';

/** Feature bits (5.5.3). */
export const BALLOON_FEATURE = { tellHost: 0, statistics: 1, deflateOnOom: 2, reporting: 5 } as const;
const CONFIG = { wanted: 0, actual: 4 } as const;
const CONFIG_SIZE = 16;
const QUEUE_SIZE = 128;
const INFLATE = 0;
const DEFLATE = 1;
const PAGE = 4096;
/** Numbers of pages in one request at most. */
const MAX_PAGES = 1 << 16;
/** A statistic: tag 16, value 64 (5.5.6.3). */
const STATISTIC = 10;
const TAGS = [
  'swap-in',
  'swap-out',
  'major-faults',
  'minor-faults',
  'free-memory',
  'total-memory',
  'available-memory',
  'disk-caches',
  'htlb-pgalloc',
  'htlb-pgfail',
] as const;
export type BalloonStatistic = `stat-${(typeof TAGS)[number]}`;
const NS_PER_S = 1e9;

export type BalloonOptions = { clock: VirtualClock; memorySize: number; deflateOnOom: boolean; reporting: boolean };

/** What the guest last said of its memory. */
export interface BalloonReport {
  /** Virtual nanoseconds, 0 for never. */
  readonly at: number;
  readonly statistics: ReadonlyMap<BalloonStatistic, bigint>;
}

const powerOn = () => ({ wanted: 0, actual: 0, interval: 0, nextPoll: 0, reported: 0 });

export class VirtioBalloon extends VirtioDevice {
  readonly deviceType = DEVICE.balloon;
  readonly configSize = CONFIG_SIZE;
  /** The guest has given pages away, or has taken some back. */
  onChange: ((bytes: number) => void) | undefined;
  private readonly options: BalloonOptions;
  private readonly registers = new StateBlock('virtio-balloon', 1, powerOn);
  private readonly timer: Timer;
  /** The driver's buffer for statistics, kept until some are wanted. */
  private held: Chain | null = null;
  private loaded: readonly SavedChain[] = [];
  private latest: BalloonReport = { at: 0, statistics: new Map() };

  constructor(parts: VirtioParts, options: BalloonOptions) {
    super(parts, new Array<number>(options.reporting ? 4 : 3).fill(QUEUE_SIZE));
    this.options = options;
    this.timer = options.clock.timer((now) => this.poll(now));
  }

  /** Bytes of memory that the guest has now. */
  get actual(): number {
    return this.options.memorySize - this.registers.value.actual * PAGE;
  }

  get report(): BalloonReport {
    return this.latest;
  }

  /** Asks the guest to make do with so many bytes. */
  setTarget(bytes: number): void {
    const { memorySize } = this.options;
    this.registers.value.wanted = Math.floor((memorySize - Math.min(bytes, memorySize)) / PAGE);
    this.configChanged();
  }

  /** @param seconds between two reports; 0 for none */
  setPollingInterval(seconds: number): void {
    const { value } = this.registers;
    value.interval = seconds;
    value.nextPoll = seconds === 0 ? 0 : this.options.clock.now() + seconds * NS_PER_S;
    if (seconds === 0) this.timer.cancel();
    else this.timer.arm(value.nextPoll);
  }

  override readConfig(offset: number, size: number): number {
    const bytes = new Uint8Array(CONFIG_SIZE);
    put32(bytes, CONFIG.wanted, this.registers.value.wanted);
    put32(bytes, CONFIG.actual, this.registers.value.actual);
    return readBytes(bytes, offset, size);
  }

  override writeConfig(offset: number, size: number, value: number): void {
    if (offset !== CONFIG.actual || size !== 4) return;
    this.registers.value.actual = Math.min(value >>> 0, Math.floor(this.options.memorySize / PAGE));
    this.onChange?.(this.actual);
  }

  protected deviceFeatures(): bigint {
    const { statistics, deflateOnOom, reporting } = BALLOON_FEATURE;
    const more = [...(this.options.deflateOnOom ? [deflateOnOom] : []), ...(this.options.reporting ? [reporting] : [])];
    return featureSet(statistics, ...more);
  }

  protected override deviceState() {
    return {
      save: (): DeviceState => {
        const state = this.registers.save();
        state.fields['requests'] = this.held === null ? [] : [this.queues[this.statisticsQueue]!.save(this.held)];
        return state;
      },
      load: ({ version, fields }: DeviceState): void => {
        const { requests, ...own } = fields;
        this.loaded = checkChains(requests, this.queues.length);
        this.registers.load({ version, fields: own });
      },
    };
  }

  protected override onReset(): void {
    // What is wanted, and how often it is asked, is the host's own.
    this.registers.value.actual = 0;
    this.held = null;
  }

  protected override onLoad(): void {
    const [held] = this.loaded;
    this.held = held === undefined || !this.running ? null : this.queues[held.queue]!.retake(held);
    const { nextPoll } = this.registers.value;
    if (nextPoll > 0) this.timer.arm(nextPoll);
    else this.timer.cancel();
  }

  protected queueNotified(queue: Virtqueue): void {
    if (queue.index === this.statisticsQueue) return this.takeStatistics(queue);
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
      if (queue.index === INFLATE) this.inflate(chain);
      const reports = queue.index !== INFLATE && queue.index !== DEFLATE;
      if (reports) for (let i = chain.readableCount; i < chain.count; i++) this.release(chain.offsets[i]!, chain.lengths[i]!);
      queue.push(chain, 0);
    }
    queue.flush();
  }

  /** Pages by their numbers (5.5.6); those that follow each other are given back together. */
  private inflate(chain: Chain): void {
    const bytes = chain.readAll(4 * MAX_PAGES);
    const pages = new Uint32Array(bytes.buffer, 0, bytes.length >> 2).sort();
    for (let from = 0; from < pages.length; ) {
      let to = from + 1;
      while (to < pages.length && pages[to]! <= pages[to - 1]! + 1) to++;
      const [first, last] = [pages[from]!, pages[to - 1]!];
      this.releaseRange(first, last + 1 - first);
      from = to;
    }
  }

  /** What is no memory, or lies in several places, is tried page by page, and left alone in the end. */
  private releaseRange(page: number, count: number): void {
    const at = this.memory.ramOffset(page * PAGE, count * PAGE);
    if (at >= 0) return this.release(at, count * PAGE);
    if (count > 1) for (let i = 0; i < count; i++) this.releaseRange(page + i, 1);
  }

  private release(offset: number, length: number): void {
    this.memory.ramReleased(offset, length);
  }

  /** Queues that have not been negotiated leave no gap (5.5.2). */
  private get statisticsQueue(): number {
    return this.has(BALLOON_FEATURE.statistics) ? 2 : -1;
  }

  private takeStatistics(queue: Virtqueue): void {
    const chain = queue.pop();
    if (chain === null) return;
    if (this.held !== null) queue.push(this.held, 0);
    this.held = chain;
    const bytes = chain.readAll(STATISTIC * 64);
    const view = new DataView(bytes.buffer);
    const statistics = new Map<BalloonStatistic, bigint>();
    for (let at = 0; at + STATISTIC <= bytes.length; at += STATISTIC) {
      const tag = TAGS[view.getUint16(at, true)];
      if (tag !== undefined) statistics.set(`stat-${tag}`, view.getBigUint64(at + 2, true));
    }
    this.latest = { at: this.options.clock.now(), statistics };
    queue.flush();
  }

  /** Giving the buffer back is how the driver is asked for another report. */
  private poll(now: number): void {
    const { value } = this.registers;
    value.nextPoll = now + value.interval * NS_PER_S;
    this.timer.arm(value.nextPoll);
    if (this.held === null || !this.running) return;
    const queue = this.queues[this.statisticsQueue]!;
    queue.push(this.held, 0);
    this.held = null;
    queue.flush();
  }
}
