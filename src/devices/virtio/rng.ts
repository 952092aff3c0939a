/** Entropy device: virtio 1.2, section 5.4. */
import type { Timer, VirtualClock } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import { VirtioDevice, type VirtioParts } from './device.ts';
import { DEVICE } from './features.ts';
import type { Virtqueue } from './queue.ts';

const QUEUE_SIZE = 8;
/** Most that one request is given: it may ask for less than it has room for, never for more. */
const MAX_REQUEST = 65536;
const NS_PER_MS = 1e6;

export type RngOptions = {
  random: () => number;
  clock: VirtualClock;
  /** Bytes that may be taken in each period of so many milliseconds. */
  maxBytes: number;
  period: number;
};

export class VirtioRng extends VirtioDevice {
  readonly deviceType = DEVICE.entropy;
  readonly configSize = 0;
  private readonly options: RngOptions;
  private readonly quota: StateBlock<{ left: number; deadline: number }>;
  private readonly timer: Timer;
  private readonly pool = new Uint32Array(MAX_REQUEST / 4);

  constructor(parts: VirtioParts, options: RngOptions) {
    super(parts, [QUEUE_SIZE]);
    this.options = options;
    this.quota = new StateBlock(parts.id, 1, () => ({ left: options.maxBytes, deadline: 0 }));
    this.timer = options.clock.timer(() => this.refill());
  }

  protected deviceFeatures(): bigint {
    return 0n;
  }

  protected override deviceState() {
    return this.quota;
  }

  protected override onReset(): void {
    this.quota.reset();
    this.timer.cancel();
  }

  protected override onLoad(): void {
    const { deadline } = this.quota.value;
    if (deadline > 0) this.timer.arm(deadline);
    else this.timer.cancel();
  }

  protected queueNotified(queue: Virtqueue): void {
    const { value } = this.quota;
    while (value.left > 0) {
      const chain = queue.pop();
      if (chain === null) break;
      const length = Math.min(chain.writable, MAX_REQUEST, value.left);
      const words = Math.ceil(length / 4);
      for (let i = 0; i < words; i++) this.pool[i] = this.options.random();
      chain.write(0, new Uint8Array(this.pool.buffer, 0, length));
      this.spend(length);
      queue.push(chain, length);
    }
    queue.flush();
  }

  private spend(bytes: number): void {
    const { value } = this.quota;
    const { maxBytes, period, clock } = this.options;
    // Without a limit there is nothing to keep count of.
    if (maxBytes === Number.MAX_SAFE_INTEGER) return;
    value.left -= bytes;
    if (value.deadline > 0) return;
    value.deadline = clock.now() + period * NS_PER_MS;
    this.timer.arm(value.deadline);
  }

  private refill(): void {
    this.quota.reset();
    this.notify(0);
  }
}
