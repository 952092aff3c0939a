import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '../../machine/interfaces.ts';
import { ScsiBus, type ScsiData, type ScsiDone, type ScsiUnit, SENSE } from '../scsi.ts';
import { VirtioScsi } from './scsi.ts';
import { TestDriver } from './test-driver.ts';

/** Answers with the command's own bytes, and takes what it is given. */
class Echo implements ScsiUnit {
  readonly type = 'echo';
  readonly id = 'echo';
  readonly backendSize = 0;
  taken = 0;
  slow = false;

  execute(cdb: Uint8Array, data: ScsiData, done: ScsiDone): void {
    if (cdb[0] === 0xff) return done(2, SENSE.badCommand, 0);
    if (data.outLength > 0) this.taken += data.takeOut(0, data.outLength).length;
    if (data.inLength > 0) {
      const part = data.takeIn(0, 4);
      part.set(cdb.subarray(0, 4));
      data.endIn(0, part);
    }
    const end = (): void => done(0, null, data.inLength > 0 ? 4 : data.outLength);
    if (this.slow) setImmediate(end);
    else end();
  }

  reset: Device['reset'] = () => undefined;
  saveState: Device['saveState'] = () => ({ version: 1, fields: {} });
  loadState: Device['loadState'] = () => undefined;
}

function start() {
  const bus = new ScsiBus('scsi.0', 255, 16383);
  const unit = new Echo();
  bus.plug(unit, 2, 1);
  const driver = new TestDriver(
    (memory) =>
      new VirtioScsi(
        { id: 'scsi', memory },
        { queues: 1, queueSize: 64, maxSectors: 100, commandsPerLun: 8, bus, hotplug: true },
      ),
    1 << 22,
  );
  driver.start();
  const request = (target: number, lun: number, cdb: readonly number[], inLength: number) => {
    const header = new Uint8Array(19 + 32);
    header.set([1, target, 0x40 | (lun >> 8), lun & 0xff]);
    header.set(cdb, 19);
    const response = driver.writable(12 + 96);
    const data = inLength > 0 ? [driver.writable(inLength)] : [];
    driver.rings[2]!.add([driver.readable(header), response, ...data]);
    driver.device.notify(2);
    const answer = () => {
      const bytes = driver.bytes(response);
      const view = new DataView(bytes.buffer);
      return {
        sense: bytes.slice(12, 12 + view.getUint32(0, true)),
        residual: view.getUint32(4, true),
        status: bytes[10],
        response: bytes[11],
      };
    };
    return { answer, data: () => driver.bytes(data[0]!) };
  };
  return { driver, unit, request };
}

test('commands reach the unit that they name', () => {
  const { request } = start();
  const one = request(2, 1, [9, 8, 7, 6], 16);
  assert.deepEqual([...one.data().slice(0, 5)], [9, 8, 7, 6, 0xee]);
  assert.deepEqual([one.answer().status, one.answer().response, one.answer().residual], [0, 0, 12]);
  const { status, sense } = request(2, 1, [0xff], 0).answer();
  assert.deepEqual([status, sense[2], sense[12]], [2, 5, 0x20]);
});

test('targets and units that are not there', () => {
  const { request } = start();
  assert.equal(request(3, 0, [0], 0).answer().response, 3);
  assert.equal(request(2, 0, [0], 0).answer().status, 2);
  assert.equal(request(2, 0, [0x12, 0, 0, 0, 36], 36).data()[0], 0x7f, 'INQUIRY says that there is none');
  assert.deepEqual(
    [...request(2, 0, [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64], 64).data().slice(0, 16)],
    [0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
  );
});

test('commands that take their time, and a reset in between', async () => {
  const { driver, unit, request } = start();
  unit.slow = true;
  request(2, 1, [1], 0);
  assert.equal(driver.rings[2]!.used().length, 0);
  assert.equal((await driver.settled(2)).length, 1);
  request(2, 1, [1], 0);
  driver.start();
  assert.equal((await driver.settled(2)).length, 0);
});

test('a request without a header breaks the device', () => {
  const { driver } = start();
  driver.request(2, driver.readable([1, 2]), driver.writable(200));
  assert.ok(driver.device.isBroken);
});
