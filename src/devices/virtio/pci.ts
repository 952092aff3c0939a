/** Virtio over PCI: virtio 1.2, section 4.1; modern, transitional and legacy devices. */
import type { IoHandler } from '../../machine/interfaces.ts';
import { PciDevice } from '../pci.ts';
import type { Msix } from '../pci-msix.ts';
import { StateBlock } from '../state.ts';
import type { Transport, VirtioDevice } from './device.ts';
import { FEATURE, featureSet, half } from './features.ts';
import { LegacyRegisters } from './pci-legacy.ts';
import { NO_VECTOR, type Virtqueue } from './queue.ts';
import { queueBells } from './queue-bells.ts';

const VENDOR = 0x1af4;
const MODERN_FIRST = 0x1040;
/** Subsystem that a modern device names. */
const MODERN_SUBSYSTEM = 0x1100;
/** Transitional device ids by device type; others have no legacy interface (4.1.2.1). */
const TRANSITIONAL: Readonly<Record<number, number>> = {
  1: 0x1000,
  2: 0x1001,
  3: 0x1003,
  4: 0x1005,
  5: 0x1002,
  8: 0x1004,
  9: 0x1009,
};
const LEGACY_FEATURES = 0xffffffffn;

/** Capabilities of this vendor (4.1.4): where in a base address register a structure lies. */
const VENDOR_CAPABILITY = 0x09;
const STRUCTURE = { common: 1, notify: 2, isr: 3, device: 4, pciAccess: 5 } as const;
const CAPABILITY = { common: 0x40, isr: 0x50, device: 0x60, notify: 0x70, pciAccess: 0x84, msix: 0x98 } as const;
const NOTIFY_MULTIPLIER = 4;

/** Base address registers, and the modern one's parts, a page each. */
const LEGACY_BAR = 0;
const MSIX_BAR = 1;
const MODERN_BAR = 4;
const PAGE = 0x1000;
const MODERN_SIZE = 4 * PAGE;
const PART = { common: 0, isr: 1, device: 2, notify: 3 } as const;
const MSIX_SIZE = 0x1000;

/** Common configuration structure (4.1.4.3). */
const COMMON = {
  deviceFeatureSelect: 0x00,
  deviceFeature: 0x04,
  driverFeatureSelect: 0x08,
  driverFeature: 0x0c,
  configVector: 0x10,
  queues: 0x12,
  status: 0x14,
  generation: 0x15,
  queueSelect: 0x16,
  queueSize: 0x18,
  queueVector: 0x1a,
  queueEnable: 0x1c,
  queueNotifyOffset: 0x1e,
  queueAddresses: 0x20,
  queueNotifyData: 0x38,
  queueReset: 0x3a,
} as const;

/** Bits of the ISR status (4.1.4.5). */
const ISR = { queue: 1, config: 2 } as const;

export type VirtioPciOptions = {
  /** QEMU's name of the whole. */
  type: string;
  classCode: number;
  /** Interrupt vectors; 0 for none but the pin. */
  vectors: number;
  legacy: boolean;
  modern: boolean;
  multifunction?: boolean;
  /** Notifications and messages go by eventfds of the host's kernel, where it has such. */
  ioeventfd?: boolean;
};

const registersPowerOn = () => ({ deviceFeatureSelect: 0, driverFeatureSelect: 0, queueSelect: 0, isr: 0 });
export type TransportRegisters = ReturnType<typeof registersPowerOn>;

/** A virtio device as a PCI function. */
export class VirtioPci extends PciDevice implements Transport {
  readonly type: string;
  readonly device: VirtioDevice;
  private readonly registers = new StateBlock('virtio-pci', 1, registersPowerOn);
  private readonly modern: IoHandler;
  private readonly hasModern: boolean;
  readonly ioeventfd: boolean;

  constructor(device: VirtioDevice, options: VirtioPciOptions) {
    const { type, classCode, vectors, legacy, modern, multifunction = false, ioeventfd = false } = options;
    const transitional = TRANSITIONAL[device.deviceType];
    if (legacy && transitional === undefined) throw new Error(`${device.id}: ${type} has no legacy interface`);
    if (!legacy && !modern) throw new Error(`${device.id}: device cannot work as neither modern nor legacy mode is enabled`);
    super(device.id, {
      vendor: VENDOR,
      device: legacy ? transitional! : MODERN_FIRST + device.deviceType,
      revision: legacy ? 0 : 1,
      classCode,
      subsystemVendor: VENDOR,
      subsystem: legacy ? device.deviceType : MODERN_SUBSYSTEM,
      interruptPin: 1,
      multifunction,
    });
    this.type = type;
    this.device = device;
    this.ioeventfd = this.messagesByEventfd = ioeventfd;
    this.modern = this.modernHandler();
    this.hasModern = modern;
    if (legacy) this.addLegacy();
    if (vectors > 0) this.addVectors(vectors);
    if (modern) this.addModern();
    this.addPart('virtio', device);
    this.addPart('transport', this.registers);
    device.attach(this);
  }

  get legacyRegisters(): TransportRegisters {
    return this.registers.value;
  }

  interruptQueue(queue: Virtqueue): void {
    this.raise(queue.state.vector, ISR.queue);
  }

  interruptConfig(): void {
    this.raise(this.device.state.configVector, ISR.config);
  }

  /** Features that the driver at this interface may see. */
  offered(legacy: boolean): bigint {
    const { offered } = this.device;
    return legacy ? offered & LEGACY_FEATURES : offered & ~featureSet(FEATURE.anyLayout);
  }

  /** The driver resets the device: what the transport keeps for it goes, too. */
  setStatus(status: number, legacy: boolean): void {
    if (status === 0) this.resetVirtio();
    else {
      this.device.state.legacy = legacy;
      this.device.setStatus(status);
    }
    if (this.ioeventfd) this.doorbellsChanged();
  }

  /** @returns what reads back: vectors that there are not are none */
  vector(value: number): number {
    return this.msix !== null && value < this.msix.vectors ? value : NO_VECTOR;
  }

  /** Reading shows why there was an interrupt, and ends it (4.1.4.5). */
  readIsr(): number {
    const { value } = this.registers;
    const { isr } = value;
    value.isr = 0;
    this.setIntx(false);
    return isr;
  }

  override configRead(offset: number, size: number): number {
    if (this.accesses(offset, size)) return this.readByConfig(size);
    return super.configRead(offset, size);
  }

  override configWrite(offset: number, size: number, value: number): void {
    super.configWrite(offset, size, value);
    if (this.accesses(offset, size)) this.writeByConfig(size, value);
  }

  close(): void {
    this.device.close();
  }

  get usesMsix(): boolean {
    return this.msix?.enabled === true;
  }

  afterLoad(): void {
    this.device.afterLoad();
  }

  private resetVirtio(): void {
    this.registers.reset();
    this.device.reset();
    this.setIntx(false);
  }

  private raise(vector: number, isr: number): void {
    const { msix } = this;
    if (msix?.enabled === true) {
      if (vector !== NO_VECTOR) msix.notify(vector);
      return;
    }
    this.registers.value.isr |= isr;
    this.setIntx(true);
  }

  private addLegacy(): void {
    const { ports, size } = new LegacyRegisters(this);
    this.addBar(LEGACY_BAR, { kind: 'io', size, handler: ports, name: this.type });
  }

  private addVectors(vectors: number): void {
    // The table in the lower half, pending bits in the upper one, as long as they fit.
    const table = vectors * 16;
    const size = Math.max(MSIX_SIZE, 2 ** Math.ceil(Math.log2(table * 2)));
    const msix = this.addMsix(CAPABILITY.msix, vectors, { bar: MSIX_BAR, table: 0, pending: size / 2 });
    this.addBar(MSIX_BAR, { kind: 'mem32', size, handler: vectorMemory(msix, size / 2), name: `${this.type}-msix` });
  }

  private addModern(): void {
    const handler = this.modern;
    this.addBar(MODERN_BAR, { kind: 'mem64', size: MODERN_SIZE, prefetchable: true, handler, name: this.type });
    const add = (at: number, structure: number, part: number, length: number, more: readonly number[] = []): void => {
      const offset = part * PAGE;
      const bytes = [16 + more.length, structure, MODERN_BAR, 0, 0, 0, ...word(offset), ...word(length), ...more];
      this.addCapability(at, VENDOR_CAPABILITY, bytes);
    };
    add(CAPABILITY.common, STRUCTURE.common, PART.common, PAGE);
    add(CAPABILITY.isr, STRUCTURE.isr, PART.isr, PAGE);
    add(CAPABILITY.device, STRUCTURE.device, PART.device, PAGE);
    add(CAPABILITY.notify, STRUCTURE.notify, PART.notify, PAGE, word(NOTIFY_MULTIPLIER));
    // Access to the other structures for software that cannot reach memory; all of it is written.
    this.addCapability(CAPABILITY.pciAccess, VENDOR_CAPABILITY, [20, STRUCTURE.pciAccess, ...new Array<number>(16).fill(0)]);
    this.setWritable(CAPABILITY.pciAccess + 4, [0xff, 0, 0, 0, ...new Array<number>(12).fill(0xff)]);
  }

  private modernHandler(): IoHandler {
    const doorbells = queueBells(this.device, this.ioeventfd, (queue) => ({
      offset: PART.notify * PAGE + queue * NOTIFY_MULTIPLIER,
      value: null,
    }));
    return {
      get doorbells() {
        return doorbells();
      },
      read: (offset, size) => {
        const at = offset % PAGE;
        switch (Math.floor(offset / PAGE)) {
          case PART.common:
            return this.readCommon(at);
          case PART.isr:
            return at === 0 ? this.readIsr() : 0;
          case PART.device:
            return this.device.readConfig(at, size);
          default:
            return 0;
        }
      },
      write: (offset, size, value) => {
        const at = offset % PAGE;
        switch (Math.floor(offset / PAGE)) {
          case PART.common:
            return this.writeCommon(at, value);
          case PART.device:
            return this.device.writeConfig(at, size, value);
          case PART.notify:
            return this.device.notify(at / NOTIFY_MULTIPLIER);
        }
      },
    };
  }

  private get selected(): Virtqueue | undefined {
    return this.device.queues[this.registers.value.queueSelect];
  }

  private readCommon(at: number): number {
    const { device, selected } = this;
    const { value } = this.registers;
    switch (at) {
      case COMMON.deviceFeatureSelect:
        return value.deviceFeatureSelect;
      case COMMON.deviceFeature:
        return half(this.offered(false), value.deviceFeatureSelect);
      case COMMON.driverFeatureSelect:
        return value.driverFeatureSelect;
      case COMMON.driverFeature:
        return half(device.state.features, value.driverFeatureSelect);
      case COMMON.configVector:
        return device.state.configVector;
      case COMMON.queues:
        return device.queues.length;
      case COMMON.status:
        return device.status;
      case COMMON.generation:
        return device.state.generation;
      case COMMON.queueSelect:
        return value.queueSelect;
      default:
        return selected === undefined ? 0 : readQueue(selected, at);
    }
  }

  private writeCommon(at: number, written: number): void {
    const { device, selected } = this;
    const { value } = this.registers;
    switch (at) {
      case COMMON.deviceFeatureSelect:
        value.deviceFeatureSelect = written;
        return;
      case COMMON.driverFeatureSelect:
        value.driverFeatureSelect = written;
        return;
      case COMMON.driverFeature:
        return device.setFeaturesHalf(value.driverFeatureSelect, written);
      case COMMON.configVector:
        device.state.configVector = this.vector(written);
        return;
      case COMMON.status:
        return this.setStatus(written & 0xff, false);
      case COMMON.queueSelect:
        value.queueSelect = written & 0xffff;
        return;
      default:
        if (selected !== undefined) this.writeQueue(selected, at, written);
    }
  }

  private writeQueue(queue: Virtqueue, at: number, written: number): void {
    const { state } = queue;
    switch (at) {
      case COMMON.queueSize:
        if (written >= 1 && written <= queue.maxSize && !state.enabled) state.size = written;
        return;
      case COMMON.queueVector:
        state.vector = this.vector(written);
        return;
      case COMMON.queueEnable:
        if ((written & 1) === 0 || state.enabled) return;
        state.enabled = true;
        this.device.queueChanged(queue);
        return;
      default:
        if (at < COMMON.queueAddresses || at >= COMMON.queueNotifyData || state.enabled) return;
        addressesOf(queue)[(at - COMMON.queueAddresses) >> 3]![(at >> 2) & 1] = written >>> 0;
    }
  }

  private accesses(offset: number, size: number): boolean {
    const data = CAPABILITY.pciAccess + 16;
    return offset < data + 4 && offset + size > data && this.hasModern;
  }

  /** What the capability for access by configuration space points at (4.1.4.9). */
  private target(): { handler: IoHandler; offset: number; size: number } | null {
    const at = CAPABILITY.pciAccess;
    const bar = super.configRead(at + 4, 1);
    const offset = super.configRead(at + 8, 4);
    const size = super.configRead(at + 12, 4);
    const fits = bar === MODERN_BAR && [1, 2, 4].includes(size) && offset % size === 0 && offset + size <= MODERN_SIZE;
    return fits ? { handler: this.modern, offset, size } : null;
  }

  private readByConfig(size: number): number {
    const target = this.target();
    return target === null ? 0 : target.handler.read(target.offset, Math.min(size, target.size)) >>> 0;
  }

  private writeByConfig(size: number, value: number): void {
    const target = this.target();
    target?.handler.write(target.offset, Math.min(size, target.size), value);
  }
}

/** The three addresses of a queue, as low and high words, in the order of their registers. */
function addressesOf({ state }: Virtqueue): [number[], number[], number[]] {
  return [state.descriptors, state.driver, state.device];
}

function readQueue(queue: Virtqueue, at: number): number {
  const { state } = queue;
  switch (at) {
    case COMMON.queueSize:
      return state.size;
    case COMMON.queueVector:
      return state.vector;
    case COMMON.queueEnable:
      return state.enabled ? 1 : 0;
    case COMMON.queueNotifyOffset:
    case COMMON.queueNotifyData:
      return queue.index;
    case COMMON.queueReset:
      return 0;
    default:
      if (at < COMMON.queueAddresses || at >= COMMON.queueNotifyData) return 0;
      return addressesOf(queue)[(at - COMMON.queueAddresses) >> 3]![(at >> 2) & 1]!;
  }
}

const word = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, value >>> 24];

function vectorMemory(msix: Msix, pending: number): IoHandler {
  return {
    read: (offset, size) => (offset < pending ? msix.table.read(offset, size) : msix.pendingBits.read(offset - pending, size)),
    write: (offset, size, value) => {
      if (offset < pending) msix.table.write(offset, size, value);
    },
  };
}
