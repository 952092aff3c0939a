/** PCI hot plug in the DSDT: ACPI 6.4, 6.3, and QEMU's docs/specs/acpi_pci_hotplug for the registers behind. */
import type { HotplugBus } from '../../devices/acpi/pci-hotplug.ts';
import {
  acquire,
  type Aml,
  and,
  argument,
  buffer,
  call,
  device,
  dwordField,
  eisaId,
  element,
  equal,
  giveBack,
  integer,
  ioPorts,
  local,
  method,
  mutex,
  name,
  nameString,
  not,
  notify,
  or,
  otherwise,
  packageOf,
  portFields,
  release,
  resources,
  scope,
  shiftLeft,
  store,
  text,
  uuid,
  when,
} from './aml.ts';

export type HotplugTables = {
  /** First of the registers' ports, and how many. */
  readonly base: number;
  readonly length: number;
  readonly tree: HotplugBus;
};

/** Values of a notification (5.6.6). */
const CHECK_DEVICE = 1;
const EJECT_REQUEST = 3;

/** Registers, what they are for, and the slots: all within PCI0. */
export function hotplugSlots({ base, length, tree }: HotplugTables): Aml[] {
  return [
    device(
      'PHPR',
      name('_HID', eisaId('PNP0A06')),
      name('_UID', text('PCI Hotplug resources')),
      name('_STA', integer(0x0b)),
      name('_CRS', resources(ioPorts(base, length))),
    ),
    portFields('PCST', base, ['PCIU', 'PCID']),
    portFields('SEJ', base + 8, ['B0EJ']),
    portFields('BNMR', base + 16, ['BNUM', 'PIDX']),
    mutex('BLCK'),
    method(
      'PCEJ',
      2,
      acquire('BLCK'),
      store(argument(0), 'BNUM'),
      shiftLeft(integer(1), argument(1), nameString('B0EJ')),
      release('BLCK'),
      giveBack(integer(0)),
    ),
    ...naming(),
    ...busObjects(tree),
  ];
}

/** By which the system asks for a device's name, and the function that tells it (PCI Firmware Specification 3.1, 4.6.7). */
const NAMING = 'e5c937d0-3553-4d7a-9117-ea4d19c3434d';
const TELL_NAME = 7;

/** Of the device in a slot of a bus its number, 0 for none; and what `_DSM` answers of a device with a number. */
function naming(): Aml[] {
  return [
    method(
      'AIDX',
      2,
      acquire('BLCK'),
      store(argument(0), 'BNUM'),
      shiftLeft(integer(1), argument(1), nameString('PIDX')),
      store(nameString('PIDX'), local(0)),
      release('BLCK'),
      giveBack(local(0)),
    ),
    // Arguments: who asks, for which function, the number.
    method(
      'PDSM',
      3,
      when(
        equal(argument(0), uuid(NAMING)),
        when(
          argument(2),
          when(equal(argument(1), integer(0)), giveBack(buffer([1 | (1 << TELL_NAME)]))),
          when(
            equal(argument(1), integer(TELL_NAME)),
            store(packageOf(integer(0), text('')), local(0)),
            store(argument(2), element(local(0), 0)),
            giveBack(local(0)),
          ),
        ),
      ),
      giveBack(buffer([0])),
    ),
  ];
}

const nameMethod = (index: Aml): Aml => method('_DSM', 4, giveBack(call('PDSM', argument(0), argument(2), index)));

/** A device that stays. */
const namedDevice = ({ devfn, index }: { devfn: number; index: number }): Aml =>
  device(functionName(devfn), name('_ADR', integer(addressOf(devfn))), nameMethod(integer(index)));

/** The event behind it all: looks at every bus. */
export function hotplugEvent(): Aml {
  const lock = '\\_SB.PCI0.BLCK';
  return scope('\\_GPE', method('_E01', 0, acquire(lock), call('\\_SB.PCI0.PCNT'), release(lock)));
}

/** Slots of one bus, and the buses behind it. */
function busObjects({ select, slots, bridges, named }: HotplugBus): Aml[] {
  const further = bridges.map(({ devfn, bus }) =>
    device(functionName(devfn), name('_ADR', integer(addressOf(devfn))), ...busObjects(bus)),
  );
  const deeper = bridges.map(({ devfn }) => call(`^${functionName(devfn)}.PCNT`));
  const known = new Set(bridges.map(({ devfn }) => devfn));
  const others = named.filter(({ devfn }) => !known.has(devfn));
  if (select === null) return [...further, ...others.map(namedDevice), method('PCNT', 0, ...deeper)];
  return [
    name('BSEL', integer(select)),
    ...slots.map(slotDevice),
    ...further,
    method('DVNT', 2, ...slots.map(tellSlot)),
    method(
      'PCNT',
      0,
      store(integer(select), 'BNUM'),
      call('DVNT', call('PCIU'), integer(CHECK_DEVICE)),
      call('DVNT', call('PCID'), integer(EJECT_REQUEST)),
      ...deeper,
    ),
  ];
}

function slotDevice(slot: number): Aml {
  return device(
    functionName(8 * slot),
    name('_ADR', integer(addressOf(8 * slot))),
    name('_SUN', integer(slot)),
    method('_EJ0', 1, call('PCEJ', call('BSEL'), call('_SUN'))),
    nameMethod(call('AIDX', call('BSEL'), call('_SUN'))),
  );
}

const tellSlot = (slot: number): Aml =>
  when(and(argument(0), integer((1 << slot) >>> 0)), notify(functionName(8 * slot), argument(1)));

const functionName = (devfn: number): string => `S${devfn.toString(16).toUpperCase().padStart(2, '0')}`;
const addressOf = (devfn: number): number => (devfn >> 3) * 0x10000 + (devfn & 7);

/** Bits of `_OSC` (PCI Firmware Specification 3.0, 4.5.1): what the system may take over, and how it is answered. */
const CONTROL = { hotplug: 1, standardHotplug: 2, powerEvents: 4, errors: 8, capability: 16 } as const;
const ANSWER = { unknownIdentifier: 4, unknownRevision: 8, masked: 16 } as const;
const HOST_BRIDGE = '33db4d5b-1ff7-401c-9657-7441c03dd766';

/** @param native the system works the slots of PCI Express ports itself */
export function osControl(native: boolean): Aml {
  const { hotplug, standardHotplug, powerEvents, errors, capability } = CONTROL;
  const granted = standardHotplug | powerEvents | errors | capability | (native ? hotplug : 0);
  const answer = (bit: number): Aml => or(call('CDW1'), integer(bit), nameString('CDW1'));
  return method(
    '_OSC',
    4,
    dwordField(argument(3), 0, 'CDW1'),
    when(
      equal(argument(0), uuid(HOST_BRIDGE)),
      dwordField(argument(3), 8, 'CDW3'),
      and(call('CDW3'), integer(granted), local(0)),
      when(not(equal(argument(1), integer(1))), answer(ANSWER.unknownRevision)),
      when(not(equal(call('CDW3'), local(0))), answer(ANSWER.masked)),
      store(local(0), 'CDW3'),
    ),
    otherwise(answer(ANSWER.unknownIdentifier)),
    giveBack(argument(3)),
  );
}
