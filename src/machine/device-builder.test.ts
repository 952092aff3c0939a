import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FlatMemory, ManualClock, RecordingBackend } from '../devices/mocks.ts';
import { PciBus } from '../devices/pci.ts';
import type { VirtioBlk } from '../devices/virtio/blk.ts';
import { type DeviceConfig, drive } from './config.ts';
import { DeviceBuilder } from './device-builder.ts';
import { describeDeviceType, listDeviceTypes, loadAllDeviceTypes } from './device-types.ts';

const DEVICE_TYPES = await loadAllDeviceTypes();
import type { BlockBackend, Device } from './interfaces.ts';

const nothing = (): void => undefined;
const DISK: BlockBackend = {
  ...{ size: 65536, readOnly: false },
  ...{
    read: nothing,
    write: nothing,
    readPieces: nothing,
    writePieces: nothing,
    flush: nothing,
    discard: nothing,
    close: nothing,
  },
};

function start() {
  const none = { remove: () => undefined };
  const bus = new PciBus({ memory: { addMmio: () => none }, ports: { register: () => none } });
  const devices: Device[] = [];
  const builder = new DeviceBuilder({
    memory: new FlatMemory(1 << 16),
    memorySize: 1 << 16,
    clock: new ManualClock(),
    random: () => 4,
    links: {
      drives: ['d', 'e', 'f'].map((id) => ({ config: drive({ id, interface: 'none' }), backend: DISK })),
      network: () => null,
      character: (name) => (name === 'c' ? new RecordingBackend() : null),
      folder: () => null,
      hostNetwork: null,
    },
    ports: { register: () => none },
    irq: () => ({ set: () => undefined }),
    exit: () => undefined,
    buses: [[bus, null]],
    addKeyboard: () => () => undefined,
    addPointer: () => () => undefined,
    add: (device) => void devices.push(device),
    remove: (device) => void devices.splice(devices.indexOf(device), 1),
  });
  const build = (...configs: DeviceConfig[]) => configs.forEach((config) => builder.build(config));
  return { bus, builder, devices, build };
}

test('places: the first free slot, or the one that is asked for', () => {
  const { bus, build } = start();
  build(
    { driver: 'virtio-rng-pci', addr: '4.1' },
    { driver: 'virtio-rng-pci', addr: '0x4.0x2' },
    { driver: 'virtio-rng-pci' },
    { driver: 'virtio-rng', addr: 0x18 },
  );
  assert.deepEqual(
    bus
      .all()
      .map(({ devfn }) => devfn)
      .sort((a, b) => a - b),
    [0, 3 * 8, 4 * 8 + 1, 4 * 8 + 2],
  );
});

test('buses that devices provide, by their names', () => {
  const { devices, builder, build } = start();
  build(
    { driver: 'virtio-serial-pci', id: 's1' },
    { driver: 'virtio-serial-pci', id: 's2' },
    { driver: 'virtserialport', bus: 's2.0', chardev: 'c', id: 'p' },
    { driver: 'virtio-scsi-pci', id: 'scsi' },
    { driver: 'scsi-hd', drive: 'd', bootindex: 3, lun: '5' },
    { driver: 'virtio-blk-pci', drive: 'e', bootindex: '1' },
    { driver: 'nvme', drive: 'f', serial: 'x', bootindex: 2 },
  );
  assert.deepEqual(
    devices.map(({ id }) => id),
    ['s1', 's2', 'p', 'scsi', 'scsi-hd#0', 'virtio-blk-pci#0', 'nvme#0'],
  );
  assert.deepEqual(builder.bootEntries, [
    { index: 3, path: '/pci@i0cf8/scsi@2/channel@0/disk@0,5' },
    { index: 1, path: '/pci@i0cf8/scsi@3/disk@0,0' },
    { index: 2, path: '/pci@i0cf8/pci1b36,0010@4/namespace@1,0' },
  ]);
});

test('one line says what is wrong', () => {
  const cases: [DeviceConfig, RegExp][] = [
    [{ driver: 'foo' }, /^'foo' is not a valid device model name$/],
    [{ driver: 'virtio-rng-pci', foo: 1 }, /^Property 'virtio-rng-pci.foo' not found$/],
    [{ driver: 'virtio-rng-pci', vectors: 'x' }, /^Parameter 'vectors' expects integer$/],
    [{ driver: 'virtio-rng-pci', event_idx: 'x' }, /^Parameter 'event_idx' expects 'on' or 'off'$/],
    [{ driver: 'virtio-rng-pci', addr: '20' }, /^Property 'virtio-rng-pci.addr' doesn't take value '20'$/],
    [{ driver: 'virtio-rng-pci', id: '1a' }, /^Parameter 'id' expects an identifier$/],
    [{ driver: 'virtio-rng-pci', id: 'taken' }, /^Duplicate ID 'taken' for device$/],
    [
      { driver: 'virtio-rng-pci', addr: '0' },
      /slot 0 function 0 not available for virtio-rng-pci, in use by virtio-rng-pci,id=taken/,
    ],
    [{ driver: 'virtio-rng-pci', bus: 'x' }, /^Bus 'x' not found$/],
    [{ driver: 'scsi-hd', drive: 'd' }, /^No 'SCSI' bus found for device 'scsi-hd'$/],
    [{ driver: 'virtserialport', bus: 'pci.0' }, /^Device 'virtserialport' can't go on PCI bus$/],
    [{ driver: 'virtio-blk-pci' }, /^drive property not set$/],
    [{ driver: 'virtio-blk-pci', drive: 'x' }, /^Property 'drive' can't find value 'x'$/],
    [{ driver: 'virtio-blk-pci', drive: 'd', 'queue-size': 17 }, /^Invalid queue-size \(= 17\)/],
    [{ driver: 'virtio-net-pci', netdev: 'x' }, /^Property 'netdev' can't find value 'x'$/],
    [{ driver: 'virtio-net-pci', mac: '1:2:3' }, /^Property 'virtio-net-pci.mac' doesn't take value '1:2:3'$/],
    [{ driver: 'virtio-rng-pci', 'disable-modern': true, 'disable-legacy': 'on' }, /neither modern nor legacy/],
    [{ driver: 'vhost-vsock-pci', 'guest-cid': 2 }, /greater than 2/],
  ];
  for (const [config, message] of cases) {
    const { build } = start();
    build({ driver: 'virtio-rng-pci', id: 'taken' });
    assert.throws(() => build(config), { message }, JSON.stringify(config));
  }
  const { build } = start();
  build({ driver: 'virtio-blk-pci', drive: 'd' });
  assert.throws(
    () => build({ driver: 'virtio-blk-pci', drive: 'd' }),
    /^Error: Property 'drive' can't take value 'd', it's in use$/,
  );
});

test('a bus that is full takes no more', () => {
  const { build } = start();
  for (let slot = 0; slot < 32; slot++) build({ driver: 'virtio-rng-pci' });
  assert.throws(() => build({ driver: 'virtio-rng-pci' }), /no slot\/function available/);
});

test('help: every type is listed once, and its properties are', async () => {
  const names = DEVICE_TYPES.flatMap(({ name, alias }) => (alias === undefined ? [name] : [name, alias]));
  assert.equal(new Set(names).size, names.length);
  const list = await listDeviceTypes();
  for (const { name } of DEVICE_TYPES) assert.ok(list.includes(`name "${name}"`));
  assert.match(list, /^Storage devices:\n(.*\n)*name "virtio-blk-pci", bus PCI, alias "virtio-blk"$/m);
  const properties = await describeDeviceType('virtio-blk');
  assert.match(properties, /^virtio-blk-pci options:\n {2}acpi-index=<uint32> +- \(default: 0\)\n {2}addr=<int32>/);
  assert.match(properties, /^ {2}queue-size=<uint16>$/m);
  assert.match(properties, /^ {2}logical_block_size=<size> +- .*\(default: 512\)$/m);
});

test('a disk takes requests of 510 pieces, or what firmware can do with the legacy interface, or what is said', () => {
  const sizes = [{}, { 'disable-modern': true }, { 'disable-modern': true, 'queue-size': 1024 }].map((more) => {
    const { devices, build } = start();
    build({ driver: 'virtio-blk-pci', drive: 'd', ...more });
    const { device } = devices[0] as unknown as { device: VirtioBlk };
    return [device.queues[0]!.maxSize, device.readConfig(12, 4)];
  });
  assert.deepEqual(sizes, [
    [512, 510],
    [256, 254],
    [1024, 1022],
  ]);
});

test('devices that come and go leave nothing behind', () => {
  const { bus, builder, devices, build } = start();
  build({ driver: 'virtio-scsi-pci', id: 's' }, { driver: 'virtio-serial-pci', id: 'p' });
  const gone: (string | null)[] = [];
  builder.onRemoved = ({ id }) => void gone.push(id);
  const told: unknown[] = [];
  bus.hotplug = { plugged: (device) => void told.push(device), requestUnplug: (device) => bus.onEject!(device as never) };
  const [before, slots] = [devices.length, bus.all().length];
  for (let round = 0; round < 50; round++) {
    const placed = builder.hotPlug({ driver: 'virtio-blk-pci', id: 'disk', drive: 'd' });
    assert.deepEqual(placed, { driver: 'virtio-blk-pci', id: 'disk', drive: 'd', bus: 'pci.0', addr: '2.0' });
    builder.hotPlug({ driver: 'scsi-hd', id: 'unit', drive: 'e', bus: 's.0' });
    builder.hotPlug({ driver: 'virtserialport', id: 'port', chardev: 'c' });
    for (const id of ['disk', 'unit', 'port']) builder.requestUnplug(id);
  }
  assert.equal(told.length, 50);
  assert.equal(gone.length, 150);
  assert.equal(devices.length, before);
  assert.equal(bus.all().length, slots);
  builder.hotPlug({ driver: 'scsi-hd', id: 'unit', drive: 'e', bus: 's.0' });
  builder.requestUnplug('s');
  assert.deepEqual(gone.slice(-2), ['unit', 's'], 'what is on a controller goes before it');
  assert.throws(() => builder.hotPlug({ driver: 'scsi-hd', drive: 'e' }), /No 'SCSI' bus found for device 'scsi-hd'/);
});

test('what cannot come or go, in the words of QEMU', () => {
  const { bus, builder, build } = start();
  build({ driver: 'virtio-rng-pci', id: 'cold', addr: '3' });
  const refused = (config: DeviceConfig, why: RegExp) => assert.throws(() => builder.hotPlug(config), why);
  refused({ driver: 'virtio-rng-pci', id: 'a' }, /^Error: Bus 'pci.0' does not support hotplugging$/);
  assert.throws(() => builder.requestUnplug('cold'), /^Error: Bus 'pci.0' does not support hotplugging$/);
  bus.hotplug = { plugged: () => undefined, requestUnplug: () => undefined };
  refused({ driver: 'virtio-rng-pci', id: 'cold' }, /^Error: Duplicate device ID 'cold'$/);
  refused(
    { driver: 'virtio-rng-pci', id: 'b', addr: '3' },
    /^Error: PCI: slot 3 function 0 not available for virtio-rng-pci, in use by virtio-rng-pci,id=cold$/,
  );
  refused({ driver: 'virtio-rng-pci', addr: '3.1' }, /^Error: PCI: single function device can't be populated in function 3.1$/);
  builder.hotPlug({ driver: 'virtio-rng-pci', addr: '7.1' });
  refused({ driver: 'virtio-rng-pci', addr: '7' }, /^Error: PCI: 7.0 indicates single function, but 7.1 is already populated.$/);
  refused({ driver: 'virtio-rng-pci', bus: 'x' }, /^Error: Bus 'x' not found$/);
  refused({ driver: 'VGA' }, /^Error: Parameter 'driver' expects a pluggable device type$/);
  refused({ driver: 'virtio-blk-pci', id: 'c', drive: 'nope' }, /can't find value 'nope'$/);
  builder.hotPlug({ driver: 'virtio-blk-pci', id: 'c', drive: 'd' });
  assert.throws(() => builder.requestUnplug('zz'), /^Error: Device 'zz' not found$/);
});
