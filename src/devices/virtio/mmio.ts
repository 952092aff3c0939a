/** Virtio over memory-mapped registers: virtio 1.2, section 4.2 (version 2). */
import type { Device, DeviceState, IoHandler, IrqLine } from '../../machine/interfaces.ts';
import { type StateFields, StateBlock } from '../state.ts';
import type { Transport, VirtioDevice } from './device.ts';
import { half } from './features.ts';
import type { Virtqueue } from './queue.ts';
import { queueBells } from './queue-bells.ts';

/** Registers (4.2.2). */
const REGISTER = {
  magic: 0x000,
  version: 0x004,
  deviceType: 0x008,
  vendor: 0x00c,
  deviceFeatures: 0x010,
  deviceFeaturesSelect: 0x014,
  driverFeatures: 0x020,
  driverFeaturesSelect: 0x024,
  queueSelect: 0x030,
  queueMax: 0x034,
  queueSize: 0x038,
  queueReady: 0x044,
  queueNotify: 0x050,
  interruptStatus: 0x060,
  interruptAcknowledge: 0x064,
  status: 0x070,
  queueDescriptors: 0x080,
  queueDriver: 0x090,
  queueDevice: 0x0a0,
  generation: 0x0fc,
  config: 0x100,
} as const;
const MAGIC = 0x74726976;
const VERSION = 2;
const VENDOR = 0x554d4551;
const INTERRUPT = { queue: 1, config: 2 } as const;
export const VIRTIO_MMIO_SIZE = 0x200;

const powerOn = () => ({ deviceFeaturesSelect: 0, driverFeaturesSelect: 0, queueSelect: 0, interrupts: 0 });

/** A virtio device with registers in memory and an interrupt line; without a device in it, an empty place. */
export class VirtioMmio implements Device, Transport {
  readonly type: string;
  readonly id: string;
  readonly mmio: IoHandler;
  readonly device: VirtioDevice | null;
  private readonly irq: IrqLine;
  private readonly onBells: (() => void) | null;
  private readonly registers: StateBlock<ReturnType<typeof powerOn>>;

  /**
   * @param type QEMU's name of the whole
   * @param onBells called when what is said of doorbells changes, which are the host's kernel's to answer for; null when they are not
   */
  constructor(id: string, device: VirtioDevice | null, irq: IrqLine, type = 'virtio-mmio', onBells: (() => void) | null = null) {
    this.id = id;
    this.type = type;
    this.device = device;
    this.irq = irq;
    this.onBells = onBells;
    this.registers = new StateBlock(id, 1, powerOn);
    device?.attach(this);
    const place = (queue: number) => ({ offset: REGISTER.queueNotify, value: queue, size: 4 }) as const;
    const doorbells = device === null ? () => [] : queueBells(device, onBells !== null, place);
    this.mmio = {
      get doorbells() {
        return doorbells();
      },
      read: (offset, size) => this.read(offset, size),
      write: (offset, size, value) => this.write(offset, size, value),
    };
  }

  interruptQueue(): void {
    this.raise(INTERRUPT.queue);
  }

  interruptConfig(): void {
    this.raise(INTERRUPT.config);
  }

  reset(): void {
    this.device?.reset();
    this.registers.reset();
    this.irq.set(false);
  }

  saveState(): DeviceState {
    const state = this.registers.save();
    if (this.device !== null) state.fields.virtio = this.device.save().fields;
    return state;
  }

  loadState(state: DeviceState): void {
    const { virtio, ...fields } = state.fields;
    if (this.device !== null) {
      if (virtio === undefined || typeof virtio !== 'object') throw new Error(`${this.id}: field "virtio" is missing`);
      this.device.load({ version: state.version, fields: virtio as StateFields });
    }
    this.registers.load({ version: state.version, fields });
    this.irq.set(this.registers.value.interrupts !== 0);
  }

  afterLoad(): void {
    this.device?.afterLoad();
  }

  close(): void {
    this.device?.close();
  }

  private raise(interrupt: number): void {
    this.registers.value.interrupts |= interrupt;
    this.irq.set(true);
  }

  private get selected(): Virtqueue | undefined {
    return this.device?.queues[this.registers.value.queueSelect];
  }

  private read(offset: number, size: number): number {
    const { device } = this;
    if (offset >= REGISTER.config) return device?.readConfig(offset - REGISTER.config, size) ?? 0;
    if (size !== 4) return 0;
    switch (offset) {
      case REGISTER.magic:
        return MAGIC;
      case REGISTER.version:
        return VERSION;
      case REGISTER.deviceType:
        return device?.deviceType ?? 0;
      case REGISTER.vendor:
        return VENDOR;
      default:
        return device === null ? 0 : this.readDevice(device, offset);
    }
  }

  private readDevice(device: VirtioDevice, offset: number): number {
    const { value } = this.registers;
    switch (offset) {
      case REGISTER.deviceFeatures:
        return half(device.offered, value.deviceFeaturesSelect);
      case REGISTER.queueMax:
        return this.selected?.maxSize ?? 0;
      case REGISTER.queueReady:
        return this.selected?.state.enabled === true ? 1 : 0;
      case REGISTER.interruptStatus:
        return value.interrupts;
      case REGISTER.status:
        return device.status;
      case REGISTER.generation:
        return device.state.generation;
      default:
        return 0;
    }
  }

  private write(offset: number, size: number, written: number): void {
    const { device } = this;
    if (device === null) return;
    if (offset >= REGISTER.config) return device.writeConfig(offset - REGISTER.config, size, written);
    if (size !== 4) return;
    const { value } = this.registers;
    switch (offset) {
      case REGISTER.deviceFeaturesSelect:
        value.deviceFeaturesSelect = written;
        return;
      case REGISTER.driverFeaturesSelect:
        value.driverFeaturesSelect = written;
        return;
      case REGISTER.driverFeatures:
        return device.setFeaturesHalf(value.driverFeaturesSelect, written);
      case REGISTER.queueSelect:
        value.queueSelect = written;
        return;
      case REGISTER.queueNotify:
        return device.notify(written & 0xffff);
      case REGISTER.interruptAcknowledge:
        value.interrupts &= ~written;
        return this.irq.set(value.interrupts !== 0);
      case REGISTER.status:
        if (written === 0) this.reset();
        else device.setStatus(written & 0xff);
        return this.onBells?.();
      default:
        if (this.selected !== undefined) this.writeQueue(device, this.selected, offset, written);
    }
  }

  private writeQueue(device: VirtioDevice, queue: Virtqueue, offset: number, written: number): void {
    const { state } = queue;
    switch (offset) {
      case REGISTER.queueSize:
        if (written >= 1 && written <= queue.maxSize && !state.enabled) state.size = written;
        return;
      case REGISTER.queueReady:
        state.enabled = (written & 1) !== 0;
        return device.queueChanged(queue);
      default: {
        const words = {
          [REGISTER.queueDescriptors]: state.descriptors,
          [REGISTER.queueDriver]: state.driver,
          [REGISTER.queueDevice]: state.device,
        }[offset & ~0xf];
        if (words !== undefined && (offset & 0xf) <= 4 && !state.enabled) words[(offset >> 2) & 1] = written;
      }
    }
  }
}
