/** Host bridge of the Q35: Intel 3 Series Express Chipset Family (316966), section 5.1. */
import type { IoHandler, MappedRegion, MmioBus } from '../../machine/interfaces.ts';
import { findFunction } from '../pci-bridge.ts';
import type { PciBus, PciDevice } from '../pci.ts';
import { HostBridge } from './i440fx.ts';

const PAM = 0x90;
const SMRAM = 0x9d;
/** PCIEXBAR: bit 0 enables, bits 2:1 choose 256, 128 or 64 MiB, a MiB for each bus. */
const ECAM_BASE = 0x60;
const MIB = 2 ** 20;
/** Configuration space of a function by way of memory; conventional functions have 256 bytes of it. */
const FUNCTION_SPACE = 4096;
const CONVENTIONAL = 256;

/** Memory that shows configuration space (ECAM; PCI Express Base 3.0, 7.2.2). */
export type EcamWindow = { base: number; size: number };

export class Q35Mch extends HostBridge {
  readonly type = 'mch';
  private readonly memory: MmioBus;
  private readonly ecam: IoHandler;
  private mapping: MappedRegion | null = null;
  private mapped: EcamWindow | null = null;

  constructor(memory: MmioBus, bus: PciBus, id = 'mch') {
    super(
      id,
      { vendor: 0x8086, device: 0x29c0, revision: 0, classCode: 0x060000, subsystemVendor: 0x1af4, subsystem: 0x1100 },
      { pam: PAM, smram: SMRAM },
    );
    this.memory = memory;
    this.writable.set([0x07, 0x00, 0x00, 0xfc, 0x0f], ECAM_BASE);
    const target = (offset: number): PciDevice | undefined =>
      findFunction(bus, Math.floor(offset / MIB), Math.floor((offset % MIB) / FUNCTION_SPACE));
    this.ecam = {
      read: (offset, size) => {
        const at = offset % FUNCTION_SPACE;
        const device = target(offset);
        if (device !== undefined && at < CONVENTIONAL) return device.configRead(at, size);
        return size === 4 ? 0xffffffff : size === 2 ? 0xffff : 0xff;
      },
      write: (offset, size, value) => {
        const at = offset % FUNCTION_SPACE;
        if (at < CONVENTIONAL) target(offset)?.configWrite(at, size, value);
      },
    };
  }

  /** Where configuration space shows, or null. */
  get window(): EcamWindow | null {
    const low = this.configRead(ECAM_BASE, 4);
    if ((low & 1) === 0) return null;
    const size = (256 * MIB) >> Math.min((low >> 1) & 3, 2);
    const base = this.configRead(ECAM_BASE + 4, 4) * 2 ** 32 + ((low & ~(size - 1)) >>> 0);
    return base === 0 ? null : { base, size };
  }

  protected override onConfigWrite(offset: number, size: number): void {
    super.onConfigWrite(offset, size);
    if (offset < ECAM_BASE + 8 && offset + size > ECAM_BASE) this.mapEcam();
  }

  protected override onReset(): void {
    super.onReset();
    this.mapEcam();
  }

  protected override onLoad(): void {
    super.onLoad();
    this.mapEcam();
  }

  private mapEcam(): void {
    const { window, mapped } = this;
    if (window?.base === mapped?.base && window?.size === mapped?.size) return;
    this.mapping?.remove();
    this.mapping = window === null ? null : this.memory.addMmio(window.base, window.size, this.ecam, 'ecam');
    this.mapped = window;
  }
}
