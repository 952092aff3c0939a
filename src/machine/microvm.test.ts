import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock } from '../devices/mocks.ts';
import { GED_RESET, GED_RESET_VALUE, GED_SLEEP_CONTROL } from '../devices/acpi/ged.ts';
import { ClockTsc } from './clock.ts';
import { completeConfig, type MachineConfig, type MicrovmOptions } from './config.ts';
import { loadDeviceTypes } from './device-types.ts';
import type { PowerEvent } from './interfaces.ts';
import { LAYOUT } from './loader/place.ts';
import { MicrovmMachine } from './microvm.ts';

const RAM = 64 * 2 ** 20;
const EVENTS = 0xfea00000;
const VIRTIO = 0xfeb00000;
const ALL: MicrovmOptions = { isaSerial: true, rtc: true, acpi: true, autoKernelCmdline: true };

/** As little of a bzImage as the loader takes. */
function kernel(): Uint8Array {
  const image = new Uint8Array(0x800);
  const view = new DataView(image.buffer);
  view.setUint8(0x1f1, 1);
  view.setUint16(0x1fe, 0xaa55, true);
  view.setUint8(0x201, 0x66);
  view.setUint32(0x202, 0x53726448, true);
  view.setUint16(0x206, 0x20f, true);
  view.setUint8(0x211, 1);
  view.setUint32(0x22c, 0x7fffffff, true);
  view.setUint32(0x230, 0x200000, true);
  view.setUint8(0x234, 1);
  view.setUint16(0x236, 1, true);
  view.setUint32(0x238, 2047, true);
  view.setBigUint64(0x258, 0x1000000n, true);
  view.setUint32(0x260, 0x100000, true);
  return image;
}

async function makeMachine(options: Partial<MicrovmOptions>, wanted: readonly string[]) {
  await loadDeviceTypes(wanted);
  const clock = new ManualClock();
  const power: PowerEvent[] = [];
  const machine = new MicrovmMachine({
    memory: { bytes: new Uint8Array(RAM), ramOffset: 0, ramSize: RAM },
    cpuPort: { setIntr() {}, nmi() {}, smi() {}, init() {}, sipi() {}, setA20() {} },
    clock,
    tsc: new ClockTsc(clock),
    kernel: kernel(),
    kernelName: 'kernel',
    append: 'quiet',
    options: { ...ALL, ...options },
    devices: {
      wanted: wanted.map((driver, index) => ({ config: { driver }, field: 'devices', index })),
      links: { drives: [], network: () => null, character: () => null, folder: () => null, hostNetwork: null },
      random: () => 0,
    },
    onPower: (event) => void power.push(event),
  });
  machine.reset();
  return { machine, power };
}

function commandLine({ mem }: MicrovmMachine): string {
  const bytes = new Uint8Array(200);
  mem.readBytes(LAYOUT.commandLine, bytes);
  return new TextDecoder().decode(bytes).replace(/\0[\s\S]*$/, '');
}

test('a kernel without ACPI is told of devices on its command line, if wanted', async () => {
  const devices = ['virtio-rng-device', 'virtio-net-device'];
  const tell = 'quiet virtio_mmio.device=512@0xfeb00000:5 virtio_mmio.device=512@0xfeb00200:6';
  assert.equal(commandLine((await makeMachine({ acpi: false }, devices)).machine), tell);
  assert.equal(commandLine((await makeMachine({ acpi: false, autoKernelCmdline: false }, devices)).machine), 'quiet');
  assert.equal(commandLine((await makeMachine({}, devices)).machine), 'quiet');
});

test('devices take places in their order, and there are eight', async () => {
  const { machine } = await makeMachine({}, ['virtio-rng-device', 'virtio-serial-device']);
  const typeAt = (place: number): number => machine.mem.read(VIRTIO + 0x200 * place + 8, 4);
  assert.deepEqual([typeAt(0), typeAt(1), typeAt(2)], [4, 3, 0]);
  assert.equal(machine.mem.read(VIRTIO + 0x400, 4), 0x74726976, 'an empty place is one nevertheless');
  const nine = Array<string>(9).fill('virtio-rng-device');
  await assert.rejects(makeMachine({}, nine), /device 8: Bus 'virtio-mmio-bus.0' does not have room for another device$/);
  await assert.rejects(makeMachine({}, ['virtio-rng-pci']), /No 'PCI' bus found for device 'virtio-rng-pci'$/);
});

test('registers of the reduced hardware turn the machine off and reset it; the button is an event', async () => {
  const { machine, power } = await makeMachine({}, []);
  machine.mem.write(EVENTS + GED_SLEEP_CONTROL, 1, (5 << 2) | 0x20);
  machine.mem.write(EVENTS + GED_RESET, 1, GED_RESET_VALUE);
  assert.deepEqual(power, ['poweroff', 'reset']);
  const level = (): number => (machine.inputLevels >> 9) & 1;
  assert.equal(level(), 0);
  machine.powerButton();
  assert.equal(level(), 1);
  assert.equal(machine.mem.read(EVENTS, 4), 2);
  assert.equal(level(), 0);
  assert.equal(machine.mem.read(EVENTS, 4), 0);
});

test('what a microvm does not have is refused in one line', () => {
  const given = { name: 'k', data: kernel() };
  const refused = (more: Partial<MachineConfig>, why: RegExp): void =>
    assert.throws(() => completeConfig({ machine: 'microvm', kernel: given, ...more }), why);
  refused({ kernel: null }, /^Error: kernel: the machine "microvm" starts a kernel, and none is given$/);
  refused({ vga: 'std' }, /^Error: vga: the machine "microvm" has no display$/);
  refused({ bios: { name: 'b', data: new Uint8Array(0x10000) } }, /^Error: bios: the machine "microvm" has no firmware$/);
});
