/** A place with registers in memory that one virtio device can be put into. */
import type { IrqLine, MappedRegion, MmioBus } from '../../machine/interfaces.ts';
import type { DeviceBus } from '../device-type.ts';
import type { VirtioDevice } from './device.ts';
import { VIRTIO_MMIO_SIZE, VirtioMmio } from './mmio.ts';

export type VirtioMmioPlace = { index: number; base: number; input: number; irq: IrqLine; memory: MmioBus };

export class VirtioMmioBus implements DeviceBus {
  readonly kind = 'virtio-bus';
  readonly name: string;
  /** Of its registers. */
  readonly base: number;
  /** Of the board's, that `irq` is. */
  readonly input: number;
  private readonly irq: IrqLine;
  private readonly region: MappedRegion;
  private transport: VirtioMmio;

  constructor({ index, base, input, irq, memory }: VirtioMmioPlace) {
    this.name = `virtio-mmio-bus.${index}`;
    this.base = base;
    this.input = input;
    this.irq = irq;
    this.transport = new VirtioMmio(this.name, null, irq);
    const registers = {
      read: (offset: number, size: number) => this.transport.mmio.read(offset, size),
      write: (offset: number, size: number, value: number) => this.transport.mmio.write(offset, size, value),
    };
    const transport = (): VirtioMmio => this.transport;
    this.region = memory.addMmio(
      base,
      VIRTIO_MMIO_SIZE,
      {
        ...registers,
        get doorbells() {
          return transport().mmio.doorbells ?? [];
        },
      },
      'virtio-mmio',
    );
  }

  get full(): boolean {
    return this.transport.device !== null;
  }

  /**
   * @param type QEMU's name of the whole
   * @param ioeventfd the host's kernel is to answer for its doorbells, where it can
   * @throws Error where there is one already
   */
  plug(device: VirtioDevice, type: string, ioeventfd = false): VirtioMmio {
    if (this.full) throw new Error(`Bus '${this.name}' does not have room for another device`);
    const onBells = ioeventfd ? () => this.region.doorbellsChanged?.() : null;
    this.transport = new VirtioMmio(device.id, device, this.irq, type, onBells);
    return this.transport;
  }
}
