import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { demand, EAGAIN, loadLibc, PAGE_SIZE, POLLFD_SIZE, POLLIN, SystemCallError } from './libc.ts';

const skip = process.platform !== 'linux' && 'this is not Linux';
const SIGURG = 23;

test('errors have the name of the call and of the error', { skip }, () => {
  const libc = loadLibc();
  assert.throws(() => demand(libc.open('/nowhere/at/all'), '/nowhere/at/all'), /^SystemCallError: \/nowhere\/at\/all: ENOENT$/);
  assert.throws(
    () => demand(libc.close(-1), 'close'),
    (error) => error instanceof SystemCallError && error.code === 'EBADF' && error.errno === 9,
  );
  assert.match(new SystemCallError('call', 4321).message, /^call: .*4321/);
  assert.equal(demand(7, 'call'), 7);
});

test('an eventfd counts, and poll waits for it', { skip }, () => {
  const libc = loadLibc();
  const fd = demand(libc.eventfd(), 'eventfd');
  const request = new DataView(new ArrayBuffer(POLLFD_SIZE));
  request.setInt32(0, fd, true);
  request.setInt16(4, POLLIN, true);
  const bytes = new Uint8Array(request.buffer);
  assert.equal(libc.poll(bytes, 1, 0), 0);
  assert.equal(libc.poll(bytes, 1, 0.001), 0);
  const value = BigUint64Array.of(3n);
  const valueBytes = new Uint8Array(value.buffer);
  assert.equal(libc.write(fd, valueBytes), 8);
  assert.equal(libc.write(fd, valueBytes), 8);
  assert.equal(libc.poll(bytes, 1, -1), 1);
  assert.equal(request.getInt16(6, true), POLLIN);
  assert.equal(libc.read(fd, valueBytes), 8);
  assert.equal(value[0], 6n);
  assert.equal(libc.read(fd, valueBytes), -EAGAIN);
  libc.close(fd);
});

test('a file is mapped into shared memory, and ordinary memory put back', { skip }, () => {
  const libc = loadLibc();
  const folder = mkdtempSync(join(tmpdir(), 'virelay-libc-'));
  const file = openSync(join(folder, 'page'), 'w+');
  try {
    ftruncateSync(file, PAGE_SIZE);
    const memory = new Uint8Array(new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer);
    memory.fill(0xee);
    const at = libc.addressOf(memory) + BigInt(PAGE_SIZE);
    assert.equal(libc.mapFile(file, PAGE_SIZE, at), at);
    assert.deepEqual([memory[PAGE_SIZE - 1], memory[PAGE_SIZE], memory[2 * PAGE_SIZE]], [0xee, 0, 0xee]);
    memory[PAGE_SIZE + 5] = 0x77;
    const one = new Uint8Array(1);
    readSync(file, one, 0, 1, 5);
    assert.equal(one[0], 0x77);
    assert.equal(libc.mapAnonymous(at, PAGE_SIZE), 0n);
    assert.equal(memory[PAGE_SIZE + 5], 0);
    const elsewhere = libc.mapFile(file, PAGE_SIZE, null);
    assert.equal(libc.view(elsewhere, PAGE_SIZE)[5], 0x77);
    assert.equal(libc.unmap(elsewhere, PAGE_SIZE), 0);
    assert.ok(libc.mapFile(-1, PAGE_SIZE, null) < 0n);
  } finally {
    closeSync(file);
    rmSync(folder, { recursive: true });
  }
});

test('a signal that waits is taken once, however often it came', { skip }, () => {
  const libc = loadLibc();
  assert.equal(libc.blockSignal(SIGURG), 0);
  assert.equal(libc.blockedSignals() & (1n << BigInt(SIGURG - 1)), 1n << BigInt(SIGURG - 1));
  assert.equal(libc.takeSignal(SIGURG), -EAGAIN);
  const tid = libc.gettid();
  assert.equal(libc.tgkill(tid, SIGURG), 0);
  assert.equal(libc.tgkill(tid, SIGURG), 0);
  assert.equal(libc.takeSignal(SIGURG), SIGURG);
  assert.equal(libc.takeSignal(SIGURG), -EAGAIN);
});

test('a timer sends its signal', { skip }, () => {
  const libc = loadLibc();
  libc.blockSignal(SIGURG);
  const timer = libc.createTimer(SIGURG);
  assert.ok(timer >= 0n);
  assert.equal(libc.setTimer(timer, 1.5), 0);
  const nobody = new Uint8Array(POLLFD_SIZE);
  while (libc.takeSignal(SIGURG) < 0) libc.poll(nobody, 0, 0.001);
  // Again and again, until it is stopped.
  assert.equal(libc.setTimer(timer, 1, true), 0);
  for (let count = 0; count < 3; ) {
    if (libc.takeSignal(SIGURG) >= 0) count++;
    else libc.poll(nobody, 0, 0.001);
  }
  assert.equal(libc.deleteTimer(timer), 0);
  libc.takeSignal(SIGURG);
  libc.poll(nobody, 0, 0.01);
  assert.equal(libc.takeSignal(SIGURG), -EAGAIN);
});

test('every thread has its own number, errors and event loop', { skip, timeout: 20_000 }, async () => {
  const libc = loadLibc();
  const source = `import(${JSON.stringify(new URL('./libc.ts', import.meta.url).href)}).then(({ loadLibc }) => {
    const libc = loadLibc();
    const { parentPort } = require('node:worker_threads');
    parentPort.postMessage([libc.gettid(), libc.loopDescriptor(), libc.close(-1)]);
  });`;
  const worker = new Worker(source, { eval: true, execArgv: ['--no-warnings'] });
  const [tid, loop, failure] = await new Promise<number[]>((resolve) => worker.on('message', resolve));
  await worker.terminate();
  assert.notEqual(tid, libc.gettid());
  assert.notEqual(loop, libc.loopDescriptor());
  assert.equal(failure, -9);
});

test('a Node.js that cannot call functions says so in one line', { skip }, () => {
  const url = JSON.stringify(new URL('./libc.ts', import.meta.url).href);
  const script = `import(${url}).then(({ loadLibc }) => loadLibc()).catch((error) => console.log(error.message))`;
  const { stdout } = spawnSync(process.execPath, ['--no-warnings', '--no-experimental-ffi', '-e', script], { encoding: 'utf8' });
  assert.match(stdout, /^this Node\.js \(v[\d.]+\) cannot call functions of the system \(node:ffi\): use [^\n]+\n$/);
});
