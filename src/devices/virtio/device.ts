/**
 * What every virtio device has whatever it is attached to: status, features, queues and a configuration
 * space (virtio 1.2, chapter 2). A transport shows them to the driver and carries interrupts.
 */
import type { DeviceState, GuestMemory } from '../../machine/interfaces.ts';
import { type StateFields, StateBlock } from '../state.ts';
import { FEATURE, featureSet, hasFeature, STATUS } from './features.ts';
import { NO_VECTOR, queuePowerOn, type QueueOwner, Virtqueue } from './queue.ts';

/** How a device reaches its driver. */
export interface Transport {
  interruptQueue(queue: Virtqueue): void;
  /** The configuration space, or the status, has changed. */
  interruptConfig(): void;
}

/** What a device is given by the board. */
export type VirtioParts = {
  id: string;
  memory: GuestMemory;
  /** Told why a driver has broken the rules. */
  trace?: ((category: string, line: string) => void) | undefined;
  /** Features that are not to be had. */
  without?: readonly number[];
  /** There is only the legacy interface. */
  legacyOnly?: boolean;
};

/** Features of every device, of which a driver takes what it knows. */
const COMMON = featureSet(
  FEATURE.anyLayout,
  FEATURE.indirectDescriptors,
  FEATURE.eventIndex,
  FEATURE.version1,
  FEATURE.packedRing,
  FEATURE.accessPlatform,
);

const powerOn = (sizes: readonly number[]) => ({
  status: 0,
  /** What the driver has accepted. */
  features: 0n,
  /** Counts changes of the configuration space. */
  generation: 0,
  configVector: NO_VECTOR,
  /** The driver found no modern interface, or did not want it. */
  legacy: false,
  broken: false,
  queues: sizes.map(queuePowerOn),
});
export type VirtioState = ReturnType<typeof powerOn>;

export abstract class VirtioDevice implements QueueOwner {
  /** Of its kind: see `DEVICE`. */
  abstract readonly deviceType: number;
  readonly id: string;
  readonly memory: GuestMemory;
  readonly queues: readonly Virtqueue[];
  ringFeatures = { eventIndex: false, indirect: false, packed: false };
  protected readonly core: StateBlock<VirtioState>;
  private readonly trace: VirtioParts['trace'];
  private readonly without: bigint;
  private transport: Transport | null = null;

  /** @param sizes largest size of each queue, powers of two */
  constructor(
    { id, memory, trace, without = [FEATURE.packedRing, FEATURE.accessPlatform] }: VirtioParts,
    sizes: readonly number[],
  ) {
    this.id = id;
    this.memory = memory;
    this.trace = trace;
    this.without = featureSet(...without);
    this.core = new StateBlock(id, 1, () => powerOn(sizes), { status: 0xff, generation: 0xff, configVector: 0xffff });
    this.queues = sizes.map((size, i) => new Virtqueue(this, i, size, this.core.value.queues[i]!));
  }

  /** Called once by the transport. */
  attach(transport: Transport): void {
    this.transport = transport;
  }

  // --- For the transport.

  /** Everything that the driver may choose from. */
  get offered(): bigint {
    return (COMMON | this.deviceFeatures()) & ~this.without;
  }

  get status(): number {
    return this.core.value.status;
  }

  get isBroken(): boolean {
    return this.core.value.broken;
  }

  get state(): VirtioState {
    return this.core.value;
  }

  /** Status as the driver writes it (3.1.1). */
  setStatus(status: number): void {
    const { value } = this.core;
    if (status === 0) return this.reset();
    const before = value.status;
    // Bits are only added; what the device itself has said stays.
    let now = status | (before & STATUS.needsReset);
    const chosen = (now & ~before & STATUS.featuresOk) !== 0;
    if (chosen && !this.acceptable(value.features)) now &= ~STATUS.featuresOk;
    value.status = now;
    if ((now & STATUS.driverOk) === 0 || (before & STATUS.driverOk) !== 0) return;
    this.activate();
    this.onActivate();
    // Drivers of old tell of chains before they say that they are ready.
    for (const queue of this.queues) if (queue.hasMore()) this.notify(queue.index);
  }

  /** What the driver writes of features; too late once they are agreed on. */
  setFeatures(features: bigint): void {
    if ((this.status & STATUS.featuresOk) === 0) this.core.value.features = features & this.offered;
  }

  /** The same by 32 bits. @param select 0 for the low ones, 1 for the high ones */
  setFeaturesHalf(select: number, bits: number): void {
    if (select > 1) return;
    const shift = select === 0 ? 0n : 32n;
    const others = this.core.value.features & ~(0xffffffffn << shift);
    this.setFeatures(others | (BigInt(bits >>> 0) << shift));
  }

  has(feature: number): boolean {
    return hasFeature(this.core.value.features, feature);
  }

  /** The driver tells of chains in a queue. */
  notify(index: number): void {
    const queue = this.queues[index];
    if (queue === undefined || !this.running) return;
    if (queue.ready) this.queueNotified(queue);
  }

  /** A queue was enabled or disabled (modern), or given a place (legacy), after the driver was ready. */
  queueChanged(queue: Virtqueue): void {
    if (!this.running) return;
    if (queue.state.enabled) queue.activate();
    else queue.deactivate();
  }

  reset(): void {
    for (const queue of this.queues) queue.deactivate();
    this.core.reset();
    this.onReset();
  }

  save(): DeviceState {
    const state = this.core.save();
    const extra = this.deviceState();
    if (extra !== null) state.fields.device = extra.save().fields;
    return state;
  }

  load(state: DeviceState): void {
    const { device, ...fields } = state.fields;
    const extra = this.deviceState();
    if (extra !== null) {
      if (device === undefined || typeof device !== 'object') throw new Error(`${this.id}: field "device" is missing`);
      extra.load({ version: state.version, fields: device as StateFields });
    }
    this.core.load({ version: state.version, fields });
    const strange = this.core.value.features & ~this.offered;
    if (strange !== 0n) throw new Error(`${this.id}: field "features" has 0x${strange.toString(16)}, which is not offered here`);
    for (const queue of this.queues) {
      const { size } = queue.state;
      if (!Number.isInteger(size) || size < 1 || size > queue.maxSize) {
        throw new Error(`${this.id}: field "queues[${queue.index}].size" is ${size}, outside 1 to ${queue.maxSize}`);
      }
      queue.deactivate();
    }
    if (this.running) this.activate(true);
    this.onLoad();
  }

  /** All of the machine has been loaded: what waited goes on. */
  afterLoad(): void {
    // For kinds of devices.
  }

  // --- For queues.

  interruptQueue(queue: Virtqueue): void {
    this.transport?.interruptQueue(queue);
  }

  /** The driver has broken the rules: nothing more is done until it resets the device (2.1.1). */
  broken(why: string): void {
    const { value } = this.core;
    if (value.broken) return;
    value.broken = true;
    this.trace?.('guest_errors', `${this.id}: ${why}`);
    if (!this.has(FEATURE.version1)) return;
    value.status |= STATUS.needsReset;
    if ((value.status & STATUS.driverOk) !== 0) this.transport?.interruptConfig();
  }

  // --- For kinds of devices.

  /** Bytes of the configuration space. */
  abstract readonly configSize: number;
  /** Features of this kind that can be had. */
  protected abstract deviceFeatures(): bigint;
  /** The driver has made chains available. */
  protected abstract queueNotified(queue: Virtqueue): void;

  readConfig(_offset: number, _size: number): number {
    return 0;
  }

  writeConfig(_offset: number, _size: number, _value: number): void {
    // Most have nothing to write.
  }

  /** The device has left the machine: what it opened on the host is closed. */
  close(): void {
    // Most have opened nothing.
  }

  protected deviceState(): { save(): DeviceState; load(state: DeviceState): void } | null {
    return null;
  }

  protected onActivate(): void {
    // The driver is ready, features are known.
  }

  protected onReset(): void {
    // For kinds of devices.
  }

  protected onLoad(): void {
    // For kinds of devices.
  }

  /** The driver is ready, and expects an answer to what it makes available. */
  get running(): boolean {
    return (this.status & STATUS.driverOk) !== 0 && !this.isBroken;
  }

  /** Fields of the configuration space have changed by themselves. */
  protected configChanged(): void {
    this.core.value.generation = (this.core.value.generation + 1) & 0xff;
    if ((this.status & STATUS.driverOk) !== 0) this.transport?.interruptConfig();
  }

  /** Drivers of the modern interface must take version 1, and no driver may take what was not offered. */
  private acceptable(features: bigint): boolean {
    return this.core.value.legacy || hasFeature(features, FEATURE.version1);
  }

  private activate(loaded = false): void {
    this.ringFeatures = {
      eventIndex: this.has(FEATURE.eventIndex),
      indirect: this.has(FEATURE.indirectDescriptors),
      packed: this.has(FEATURE.packedRing),
    };
    for (const queue of this.queues) queue.activate(loaded);
  }
}
