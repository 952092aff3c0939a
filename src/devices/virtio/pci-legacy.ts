/** The interface from before version 1 of the standard, in ports: virtio 1.2, section 4.1.4.10. */
import type { IoHandler } from '../../machine/interfaces.ts';
import { half } from './features.ts';
import type { VirtioPci } from './pci.ts';
import { DESCRIPTOR_SIZE } from './ring.ts';
import type { Virtqueue } from './queue.ts';
import { queueBells } from './queue-bells.ts';

const REGISTER = {
  deviceFeatures: 0x00,
  driverFeatures: 0x04,
  queuePage: 0x08,
  queueSize: 0x0c,
  queueSelect: 0x0e,
  queueNotify: 0x10,
  status: 0x12,
  isr: 0x13,
  configVector: 0x14,
  queueVector: 0x16,
} as const;
/** The device's configuration comes after the vectors, or in their place when there are none. */
const CONFIG = 0x14;
const CONFIG_AFTER_VECTORS = 0x18;
/** Queues are told by the number of a page; the used ring begins at one, too (2.7.2). */
const PAGE = 4096;

export class LegacyRegisters {
  readonly ports: IoHandler;
  /** Bytes of ports, a power of two. */
  readonly size: number;
  private readonly pci: VirtioPci;

  constructor(pci: VirtioPci) {
    this.pci = pci;
    this.size = 2 ** Math.ceil(Math.log2(CONFIG_AFTER_VECTORS + pci.device.configSize));
    const doorbells = queueBells(pci.device, pci.ioeventfd, (queue) => ({
      offset: REGISTER.queueNotify,
      value: queue,
      size: 2,
    }));
    this.ports = {
      get doorbells() {
        return doorbells();
      },
      read: (offset, size) => (offset < this.config ? this.read(offset) : pci.device.readConfig(offset - this.config, size)),
      write: (offset, size, value) => {
        if (offset < this.config) this.write(offset, value);
        else pci.device.writeConfig(offset - this.config, size, value);
      },
    };
  }

  private get config(): number {
    return this.pci.usesMsix ? CONFIG_AFTER_VECTORS : CONFIG;
  }

  private get selected(): Virtqueue | undefined {
    return this.pci.device.queues[this.pci.legacyRegisters.queueSelect];
  }

  private read(offset: number): number {
    const { pci, selected } = this;
    switch (offset) {
      case REGISTER.deviceFeatures:
        return half(pci.offered(true), 0);
      case REGISTER.driverFeatures:
        return half(pci.device.state.features, 0);
      case REGISTER.queuePage:
        return selected?.state.enabled === true ? pageOf(selected) : 0;
      case REGISTER.queueSize:
        return selected?.maxSize ?? 0;
      case REGISTER.queueSelect:
        return pci.legacyRegisters.queueSelect;
      case REGISTER.status:
        return pci.device.status;
      case REGISTER.isr:
        return pci.readIsr();
      case REGISTER.configVector:
        return pci.device.state.configVector;
      case REGISTER.queueVector:
        return selected?.state.vector ?? 0xffff;
      default:
        return 0;
    }
  }

  private write(offset: number, value: number): void {
    const { pci, selected } = this;
    switch (offset) {
      case REGISTER.driverFeatures:
        return pci.device.setFeatures(BigInt(value >>> 0));
      case REGISTER.queuePage:
        if (selected !== undefined) this.place(selected, value);
        return;
      case REGISTER.queueSelect:
        pci.legacyRegisters.queueSelect = value & 0xffff;
        return;
      case REGISTER.queueNotify:
        return pci.device.notify(value & 0xffff);
      case REGISTER.status:
        return pci.setStatus(value & 0xff, true);
      case REGISTER.configVector:
        pci.device.state.configVector = pci.vector(value & 0xffff);
        return;
      case REGISTER.queueVector:
        if (selected !== undefined) selected.state.vector = pci.vector(value & 0xffff);
    }
  }

  /** One after the other: descriptors, available ring, and from the next page on the used ring. */
  private place(queue: Virtqueue, page: number): void {
    const { state } = queue;
    state.enabled = page !== 0;
    const descriptors = page * PAGE;
    const driver = descriptors + queue.maxSize * DESCRIPTOR_SIZE;
    const device = Math.ceil((driver + 2 * (3 + queue.maxSize)) / PAGE) * PAGE;
    state.size = queue.maxSize;
    put(state.descriptors, descriptors);
    put(state.driver, driver);
    put(state.device, device);
    this.pci.device.queueChanged(queue);
  }
}

function put(words: number[], address: number): void {
  words[0] = address % 2 ** 32;
  words[1] = Math.floor(address / 2 ** 32);
}

function pageOf({ state }: Virtqueue): number {
  return (state.descriptors[1]! * 2 ** 32 + state.descriptors[0]!) / PAGE;
}
