import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FromMachine, OUTPUT_WINDOW } from './messages.ts';
import { PortChannel } from './port-channel.ts';

function channel() {
  const sent: FromMachine[] = [];
  return { sent, port: new PortChannel(2, (message) => sent.push(message)) };
}

test('output is collected until it is flushed', () => {
  const { sent, port } = channel();
  port.write(Uint8Array.of(1));
  port.write(Uint8Array.of(2, 3));
  assert.deepEqual(sent, []);
  port.flush();
  port.flush();
  assert.deepEqual(sent, [{ type: 'output', channel: 2, data: Uint8Array.of(1, 2, 3) }]);
});

test('the window fills, and drains when its reader says so', () => {
  const { sent, port } = channel();
  let drained = 0;
  port.onDrain = () => drained++;
  assert.equal(port.write(new Uint8Array(OUTPUT_WINDOW - 1)), true);
  assert.equal(port.write(Uint8Array.of(1)), false);
  port.consumed(1000);
  assert.equal(drained, 0);
  port.consumed(OUTPUT_WINDOW / 2);
  assert.equal(drained, 1);
  assert.equal(port.write(Uint8Array.of(1)), true);
  port.flush();
  const total = sent.reduce((sum, one) => sum + (one.type === 'output' ? one.data.length : 0), 0);
  assert.equal(total, OUTPUT_WINDOW + 1);
});

test('input waits for room, in order', () => {
  const { sent, port } = channel();
  const got: number[] = [];
  let room = 2;
  port.onReceive = (data) => {
    const count = Math.min(room, data.length);
    got.push(...data.subarray(0, count));
    room -= count;
    // A device may ask for more from within.
    port.resume();
    return count;
  };
  port.receive(Uint8Array.of(1, 2, 3));
  port.receive(Uint8Array.of(4));
  assert.deepEqual(got, [1, 2]);
  room = 16;
  port.resume();
  assert.deepEqual(got, [1, 2, 3, 4]);
  port.flush();
  assert.deepEqual(sent, [{ type: 'taken', channel: 2, bytes: 4 }]);
});

test('a port without a device swallows its input', () => {
  const { sent, port } = channel();
  port.receive(new Uint8Array(9));
  port.flush();
  assert.deepEqual(sent, [{ type: 'taken', channel: 2, bytes: 9 }]);
});
