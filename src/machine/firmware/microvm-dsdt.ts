/** The microvm's differentiated system description: virtio devices in memory, events, and what it has of a PC. */
import { GED_POWER_BUTTON, GED_SLEEP_TYPE_S5 } from '../../devices/acpi/ged.ts';
import {
  type Aml,
  and,
  argument,
  device,
  eisaId,
  fixedMemory,
  integer,
  ioPorts,
  irq,
  levelInterrupt,
  local,
  memoryFields,
  method,
  name,
  nameString,
  notify,
  packageOf,
  resources,
  scope,
  store,
  text,
  when,
} from './aml.ts';
import { type DsdtOptions, isaDevice, processors, serialPorts } from './dsdt.ts';

export type MicrovmDsdtOptions = Pick<DsdtOptions, 'serials' | 'cpus'> & {
  /** Places for virtio devices that have one: their registers, and the I/O APIC's input. */
  virtio: readonly { base: number; size: number; input: number }[];
  /** Generic events (devices/acpi/ged.ts). */
  events: { base: number; input: number };
  rtc: boolean;
};

export function buildMicrovmDsdt(options: MicrovmDsdtOptions): Uint8Array {
  const five = packageOf(integer(GED_SLEEP_TYPE_S5), integer(0), integer(0), integer(0));
  return Uint8Array.from([
    ...name('\\_S5', five),
    ...scope(
      '\\_SB',
      ...processors(options.cpus),
      ...serialPorts(options.serials),
      ...(options.rtc ? [isaDevice('RTC', 'PNP0B00', 0, ioPorts(0x70, 2), irq(8))] : []),
      device('PWRB', name('_HID', eisaId('PNP0C0C')), name('_UID', integer(0))),
      events(options.events),
      ...options.virtio.map(virtioDevice),
    ),
  ]);
}

/** Linux knows them by this name (drivers/virtio/virtio_mmio.c). */
function virtioDevice({ base, size, input }: MicrovmDsdtOptions['virtio'][number], index: number): Aml {
  return device(
    `VR${index.toString().padStart(2, '0')}`,
    name('_HID', text('LNRO0005')),
    name('_UID', integer(index)),
    name('_CCA', integer(1)),
    name('_CRS', resources(fixedMemory(base, size), levelInterrupt(input))),
  );
}

/** 5.6.9: the interrupt's method finds out what there was. */
function events({ base, input }: MicrovmDsdtOptions['events']): Aml {
  return device(
    'GED',
    name('_HID', text('ACPI0013')),
    name('_UID', text('GED')),
    name('_CRS', resources(levelInterrupt(input))),
    memoryFields('EREG', base, ['ESEL']),
    method(
      '_EVT',
      1,
      store(nameString('ESEL'), local(0)),
      when(and(local(0), integer(GED_POWER_BUTTON)), notify('PWRB', integer(0x80))),
      store(argument(0), local(1)),
    ),
  );
}
