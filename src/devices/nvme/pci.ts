/** The NVMe controller as a PCI function: NVM Express 1.4, chapter 2. */
import type { IoHandler } from '../../machine/interfaces.ts';
import { PciDevice } from '../pci.ts';
import type { Msix } from '../pci-msix.ts';
import { NvmeController, type NvmeOptions, type NvmeParts } from './controller.ts';
import { REGISTER } from './spec.ts';

/** Class 01h (storage), 08h (non-volatile memory), 02h (NVM Express). */
const IDENTITY = {
  vendor: 0x1b36,
  device: 0x0010,
  revision: 2,
  classCode: 0x010802,
  subsystemVendor: 0x1af4,
  subsystem: 0x1100,
  interruptPin: 1,
};
const MSIX = 0x40;
const BAR = 0;
const PAGE = 0x1000;
const VECTOR = 16;

export class NvmePci extends PciDevice {
  readonly type = 'nvme';
  readonly controller: NvmeController;

  /**
   * One memory range has everything, each part from a new page: registers and doorbells, the table of vectors,
   * their pending bits.
   */
  constructor(parts: NvmeParts, options: NvmeOptions, multifunction: boolean) {
    super(parts.id, { ...IDENTITY, multifunction });
    const { queuePairs, vectors } = options;
    const table = REGISTER.doorbells + pages(8 * (queuePairs + 1));
    const pending = table + pages(VECTOR * vectors);
    const size = 2 ** Math.ceil(Math.log2(pending + pages(Math.ceil(vectors / 64) * 8)));
    const msix = this.addMsix(MSIX, vectors, { bar: BAR, table, pending });
    this.controller = new NvmeController(parts, options, {
      get messages() {
        return msix.enabled;
      },
      raise: (vector) => msix.notify(vector),
      setPin: (level) => this.setIntx(level),
    });
    this.addBar(BAR, { kind: 'mem64', size, handler: this.memory(msix, table, pending), name: this.type });
    this.addPart('nvme', this.controller);
    this.addPart('features', this.controller.features);
    this.addPart('logs', {
      reset: () => undefined,
      save: () => this.controller.logs.save(),
      load: (state) => this.controller.logs.load(state),
    });
  }

  private memory(msix: Msix, table: number, pending: number): IoHandler {
    return {
      read: (offset, size) => {
        if (offset >= pending) return msix.pendingBits.read(offset - pending, size);
        if (offset >= table) return msix.table.read(offset - table, size);
        const whole = this.controller.readRegister(offset & ~3) >>> (8 * (offset & 3));
        return size === 4 ? whole : whole & (2 ** (8 * size) - 1);
      },
      write: (offset, size, value) => {
        if (offset >= pending) return;
        if (offset >= table) return msix.table.write(offset - table, size, value);
        // Registers are written whole; of a doorbell its lower half will do.
        if (offset % 4 === 0 && (size === 4 || (offset >= REGISTER.doorbells && size === 2))) {
          this.controller.writeRegister(offset, value);
        }
      },
    };
  }

  protected override onConfigWrite(offset: number, size: number): void {
    if (offset < MSIX + 4 && offset + size > MSIX + 2) this.controller.drivePin();
  }
}

/** Bytes, rounded up to whole pages. */
const pages = (bytes: number): number => Math.ceil(bytes / PAGE) * PAGE;
