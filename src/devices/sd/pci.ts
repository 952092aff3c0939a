/** `sdhci-pci`: an SD host controller as a PCI function (SD Host Controller Simplified Specification 3.00, appendix A). */
import type { GuestMemory, VirtualClock } from '../../machine/interfaces.ts';
import { PciDevice } from '../pci.ts';
import { SdBus } from './bus.ts';
import { Sdhci } from './sdhci.ts';
import { REGISTER_BYTES } from './sdhci-registers.ts';

const IDENTITY = { vendor: 0x1b36, device: 0x0007, classCode: 0x080501, subsystemVendor: 0x1af4, subsystem: 0x1100 } as const;
/** Slots less 1, and the base address register of the first (A.3). */
const SLOT_INFORMATION = 0x40;

export type SdhciPciOptions = {
  id: string;
  memory: GuestMemory;
  clock: VirtualClock;
  capabilities: bigint;
  currents: bigint;
  version: number;
  multifunction: boolean;
};

export class SdhciPci extends PciDevice {
  readonly type = 'sdhci-pci';
  readonly slot = new SdBus();

  constructor({ multifunction, ...options }: SdhciPciOptions) {
    super(options.id, { ...IDENTITY, interruptPin: 1, multifunction });
    const host = new Sdhci({ ...options, bus: this.slot, irq: { set: (level) => this.setIntx(level) } });
    this.setInitial(SLOT_INFORMATION, [0]);
    this.addBar(0, { kind: 'mem32', size: REGISTER_BYTES, handler: host.mmio, name: this.type });
    this.addPart('host', host);
  }
}
