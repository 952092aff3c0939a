/** Devices of a few registers each: entropy, ports, balloon, input. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock, RecordingBackend } from '../mocks.ts';
import { VirtioBalloon } from './balloon.ts';
import { ABS, EV, VirtioInput } from './input.ts';
import { keyEvents } from './input-keys.ts';
import { VirtioRng } from './rng.ts';
import { SerialPortDevice, VirtioSerial } from './serial.ts';
import { TestDriver } from './test-driver.ts';

const SECOND = 1e9;
const le = (...fields: (readonly [value: number, bytes: number])[]): Uint8Array =>
  Uint8Array.from(
    fields.flatMap(([value, bytes]) => Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff)),
  );

test('entropy: no more than is allowed in a period', () => {
  const clock = new ManualClock();
  const options = { random: () => 0x01010101, clock, maxBytes: 10, period: 1000 };
  const driver = new TestDriver((memory) => new VirtioRng({ id: 'rng', memory }, options));
  driver.start();
  assert.deepEqual(
    driver.request(0, driver.writable(8)).map(({ length }) => length),
    [8],
  );
  assert.deepEqual(
    driver.request(0, driver.writable(8)).map(({ length }) => length),
    [2],
  );
  assert.deepEqual(driver.request(0, driver.writable(8)), []);
  clock.run(SECOND);
  assert.deepEqual(
    driver.rings[0]!.used().map(({ length }) => length),
    [8],
  );
});

function serial() {
  const backend = new RecordingBackend();
  let device!: VirtioSerial;
  const driver = new TestDriver((memory) => {
    device = new VirtioSerial({ id: 's', memory }, 4, true);
    return device;
  });
  const port = (console: boolean) =>
    new SerialPortDevice({ type: 'p', id: 'p', name: console ? '' : 'a.name', console, backend: console ? null : backend });
  device.plug(port(false), null);
  device.plug(port(true), null);
  driver.start();
  const control = (id: number, event: number, value: number): void =>
    void driver.request(3, driver.readable(le([id, 4], [event, 2], [value, 2])));
  return { driver, device, backend, control };
}

test('ports: what the driver is told of them, when it has room', () => {
  const { driver, control } = serial();
  control(0, 0, 1);
  const buffers = Array.from({ length: 6 }, () => driver.writable(64));
  for (const buffer of buffers) driver.rings[2]!.add([buffer]);
  driver.device.notify(2);
  control(1, 3, 1);
  control(0, 3, 1);
  const said = driver.rings[2]!.used().map(({ length }, i) => {
    const bytes = driver.bytes(buffers[i]!).subarray(0, length);
    return [bytes[0], bytes[4], bytes[6], new TextDecoder().decode(bytes.subarray(8))];
  });
  assert.deepEqual(said, [
    [0, 1, 1, ''],
    [1, 1, 1, ''],
    [1, 7, 1, 'a.name'],
    [1, 6, 1, ''],
    [0, 4, 1, ''],
  ]);
});

test('ports: bytes both ways, and a host that is full', () => {
  const { driver, backend, control } = serial();
  assert.equal(backend.type('early'), 0, 'nobody has the port open');
  control(1, 6, 1);
  assert.equal(backend.resumed, 1);
  const room = driver.writable(4);
  driver.rings[4]!.add([room]);
  driver.device.notify(4);
  assert.equal(backend.type('hello'), 4);
  assert.equal(new TextDecoder().decode(driver.bytes(room)), 'hell');
  backend.accepts = false;
  assert.equal(driver.request(5, driver.readable([65])).length, 1);
  assert.equal(driver.request(5, driver.readable([66])).length, 0);
  backend.accepts = true;
  backend.onDrain!();
  assert.equal(driver.rings[5]!.used().length, 1);
  assert.equal(backend.output, 'AB');
});

test('ports: places', () => {
  const { device } = serial();
  const port = new SerialPortDevice({ type: 'p', id: 'q', name: '', console: false, backend: null });
  assert.throws(() => device.plug(port, 1), /A port already exists at id 1/);
  assert.throws(() => device.plug(port, 0), /reserved for virtconsole/);
  assert.throws(() => device.plug(port, 4), /Out-of-range port id specified, max. allowed: 3/);
});

test('balloon: what is wanted, what is there, statistics as often as asked', () => {
  const clock = new ManualClock();
  let balloon!: VirtioBalloon;
  const driver = new TestDriver((memory) => {
    balloon = new VirtioBalloon({ id: 'b', memory }, { clock, memorySize: 1 << 20, deflateOnOom: true, reporting: true });
    return balloon;
  });
  driver.start();
  balloon.setTarget(3 << 18);
  assert.equal(balloon.readConfig(0, 4), 64);
  assert.equal(driver.transport.configInterrupts, 1);
  assert.equal(driver.request(0, driver.readable(le([1, 4], [2, 4]))).length, 1);
  balloon.writeConfig(4, 4, 64);
  assert.equal(balloon.actual, 3 << 18);
  balloon.setPollingInterval(2);
  assert.equal(driver.request(2, driver.readable(le([4, 2], [5000, 8], [5, 2], [9000, 8]))).length, 0, 'the buffer is kept');
  assert.deepEqual(
    [...balloon.report.statistics],
    [
      ['stat-free-memory', 5000n],
      ['stat-total-memory', 9000n],
    ],
  );
  clock.run(2 * SECOND);
  assert.equal(driver.rings[2]!.used().length, 1);
});

test('input: what there is, and events in reports', () => {
  let input!: VirtioInput;
  const driver = new TestDriver((memory) => {
    input = new VirtioInput(
      { id: 'i', memory },
      { name: 'name', serial: '', ids: [6, 1, 2, 3], events: { [EV.absolute]: [ABS.x, ABS.y] }, axes: { [ABS.x]: [0, 100] } },
    );
    return input;
  });
  driver.start();
  const ask = (select: number, subselect: number): number[] => {
    input.writeConfig(0, 1, select);
    input.writeConfig(1, 1, subselect);
    return Array.from({ length: input.readConfig(2, 1) }, (_, i) => input.readConfig(8 + i, 1));
  };
  assert.equal(String.fromCharCode(...ask(1, 0)), 'name');
  assert.deepEqual(ask(0x11, EV.absolute), [3]);
  assert.deepEqual(ask(0x11, EV.key), []);
  assert.deepEqual(ask(0x12, ABS.x).slice(0, 8), [0, 0, 0, 0, 100, 0, 0, 0]);
  input.send([{ type: EV.absolute, code: ABS.x, value: -2 }]);
  const buffers = [driver.writable(8), driver.writable(8)];
  for (const buffer of buffers) driver.rings[0]!.add([buffer]);
  driver.device.notify(0);
  assert.deepEqual([...driver.bytes(buffers[0]!)], [3, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
  assert.deepEqual([...driver.bytes(buffers[1]!)], [0, 0, 0, 0, 0, 0, 0, 0]);
});

test('keys by their scancodes', () => {
  assert.deepEqual(
    keyEvents([0x1e, 0x9e, 0xe0, 0x4d, 0xe0, 0xcd, 0xe0, 0x7f]).map(({ code, value }) => [code, value]),
    [
      [30, 1],
      [30, 0],
      [106, 1],
      [106, 0],
    ],
  );
});
