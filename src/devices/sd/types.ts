/** `sdhci-pci` and `sd-card`. */
import { bool, deviceType, type DeviceType, DRIVE, PCI_PLACE, uint, uint64 } from '../device-type.ts';
import type { SdBus } from './bus.ts';
import { SdCard } from './card.ts';
import { SdhciPci } from './pci.ts';

/** 3.3 and 1.8 V, high speed, SDMA, ADMA2, blocks of 512 bytes, clocks of 52 MHz (2.2.26). */
const CAPABILITIES = 0x057834b4;

export const SD_TYPES: readonly DeviceType[] = [
  deviceType({
    name: 'sdhci-pci',
    category: 'storage',
    bus: 'PCI',
    properties: {
      ...PCI_PLACE,
      multifunction: bool(false),
      capareg: uint64(CAPABILITIES),
      maxcurr: uint64(0),
      'sd-spec-version': uint(8, 2),
    },
    create({ capareg, maxcurr, multifunction, 'sd-spec-version': version }, { id, memory, clock }) {
      if (version !== 2 && version !== 3) throw new Error('Only Spec v2/v3 are supported');
      const registers = { capabilities: BigInt(capareg), currents: BigInt(maxcurr), version };
      return new SdhciPci({ id, memory, clock, multifunction, ...registers });
    },
    buses: (device) => [(device as SdhciPci).slot],
  }),
  deviceType({
    name: 'sd-card',
    category: 'storage',
    bus: 'sd-bus',
    properties: { drive: DRIVE },
    create({ drive }, context) {
      if (drive === null) throw new Error('drive property not set');
      const { backend, readOnly } = context.drive('drive', drive);
      if (backend === null) throw new Error('Device needs media, but drive is empty');
      const card = new SdCard({ id: context.id, backend, readOnly });
      (context.bus as SdBus).plug(card);
      return card;
    },
  }),
];
