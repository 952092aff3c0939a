import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, connect } from 'node:net';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { EXIT } from './constants.ts';
import { Kicker } from './kicker.ts';
import { callOut, INSIDE, OUTSIDE, READY, STATE, THREAD_WANTS } from './kicker-cells.ts';
import type { EndlessData } from './test-kicker-main.ts';
import { makeGuest, NO_KVM, type TestGuest } from './test-kit.ts';

const skip = NO_KVM;
const SPIN = [0xeb, 0xfe]; // jmp $
const HALT = [0xf4, 0xeb, 0xfd]; // hlt; jmp $ - 1

/** Runs an endless guest in this thread until it is told to stop, events in between. */
function runGuest(guest: TestGuest): { readonly kicker: Kicker; readonly stop: () => void; readonly left: () => number } {
  const kicker = new Kicker(guest.vm.libc);
  kicker.watch(guest.vcpu);
  let stopped = false;
  let left = 0;
  const slice = (): void => {
    if (stopped) return;
    while (kicker.enter(10_000)) {
      assert.equal(guest.vcpu.enter(), EXIT.KVM_EXIT_INTR);
      left++;
      if (kicker.leave()) break;
    }
    kicker.leave();
    kicker.afterEvents(slice);
  };
  setImmediate(slice);
  const stop = (): void => {
    stopped = true;
    kicker.close();
  };
  return { kicker, stop, left: () => left };
}

const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

for (const [name, code] of [
  ['spins', SPIN],
  ['is halted in the kernel', HALT],
] as const) {
  test(`events are served while the guest ${name}`, { skip, timeout: 30_000 }, async () => {
    const guest = makeGuest(code, (vm) => vm.createIrqchip());
    const { stop, left, kicker } = runGuest(guest);
    const server = createServer((socket) => socket.on('data', (bytes) => socket.end(bytes)));
    try {
      while (Atomics.load(kicker.cells, READY) === 0) await pause(1);
      for (let index = 0; index < 50; index++) await pause(1);
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as { port: number };
      for (let index = 0; index < 20; index++) {
        const socket = connect(port, '127.0.0.1');
        socket.end('x'.repeat(1000));
        let length = 0;
        for await (const bytes of socket) length += (bytes as Buffer).length;
        assert.equal(length, 1000);
      }
      assert.ok(left() > 20, `${left()} times`);
    } finally {
      stop();
      guest.close();
      server.close();
    }
  });
}

test('nothing to do is no reason to leave', { skip, timeout: 30_000 }, async () => {
  const guest = makeGuest(SPIN);
  const { stop, left, kicker } = runGuest(guest);
  while (Atomics.load(kicker.cells, READY) === 0) await pause(1);
  await pause(50);
  const before = left();
  await pause(500);
  // Its own alarm four times a second, and this timer.
  assert.ok(left() - before <= 20, `${left() - before} times`);
  stop();
  guest.close();
});

test('events are served without the kicker, too', { skip, timeout: 30_000 }, async () => {
  const guest = makeGuest(SPIN);
  const { stop, kicker } = runGuest(guest);
  await kicker['worker'].terminate();
  assert.equal(Atomics.load(kicker.cells, READY), 0);
  for (let index = 0; index < 20; index++) await pause(1);
  stop();
  guest.close();
});

test('another thread calls it out once', { skip, timeout: 30_000 }, () => {
  const guest = makeGuest(SPIN);
  const { libc } = guest.vm;
  const kicker = new Kicker(libc);
  kicker.watch(guest.vcpu);
  assert.equal(callOut(libc, kicker.cells, THREAD_WANTS), false, 'it is outside');
  Atomics.store(kicker.cells, STATE, INSIDE);
  assert.equal(callOut(libc, kicker.cells, THREAD_WANTS), true);
  assert.equal(callOut(libc, kicker.cells, THREAD_WANTS), false, 'it is on its way');
  assert.equal(kicker.enter(1000), false);
  // A kick that came before the guest is entered is not lost, nor does it last.
  assert.equal(guest.vcpu.enter(), EXIT.KVM_EXIT_INTR);
  kicker.leave();
  assert.equal(Atomics.load(kicker.cells, STATE), OUTSIDE);
  kicker.close();
  guest.close();
});

const startEndless = (data: EndlessData): Worker =>
  new Worker(new URL('./test-kicker-main.ts', import.meta.url), { execArgv: ['--no-warnings'], workerData: data });

for (const data of [
  { code: SPIN, irqchip: false },
  { code: HALT, irqchip: true },
]) {
  test(`a thread in the guest answers, and can be ended (${data.irqchip ? 'halted' : 'spinning'})`, {
    skip,
    timeout: 30_000,
  }, async () => {
    const worker = startEndless(data);
    assert.deepEqual(await once(worker, 'message'), ['ready']);
    for (let index = 0; index < 100; index++) {
      worker.postMessage(`message ${index}`);
      assert.deepEqual(await once(worker, 'message'), [`message ${index}`]);
    }
    await worker.terminate();
  });
}

test('a process with a thread in the guest can exit', { skip, timeout: 30_000 }, async () => {
  const url = new URL('./test-kicker-main.ts', import.meta.url);
  const source = `
    const { Worker } = await import('node:worker_threads');
    const workerData = { code: ${JSON.stringify(HALT)}, irqchip: true };
    const worker = new Worker(new URL(${JSON.stringify(url.href)}), { execArgv: ['--no-warnings'], workerData });
    worker.on('message', () => setTimeout(() => process.exit(7), 100));`;
  const child = spawn(process.execPath, ['--no-warnings', '--input-type=module', '-e', source], {
    stdio: 'inherit',
    cwd: fileURLToPath(new URL('.', url)),
  });
  assert.deepEqual(await once(child, 'exit'), [7, null]);
});

test('timers of the event loop are no later for a guest that never leaves', { skip, timeout: 30_000 }, async () => {
  const guest = makeGuest(SPIN);
  const kicker = new Kicker(guest.vm.libc);
  kicker.watch(guest.vcpu);
  while (Atomics.load(kicker.cells, READY) === 0) await pause(1);
  let rang = false;
  setTimeout(() => (rang = true), 20);
  await new Promise<void>((resolve) => {
    const slice = (): void => {
      // Without `leave` in between, as one does who serves exits.
      while (kicker.enter(10_000)) assert.equal(guest.vcpu.enter(), EXIT.KVM_EXIT_INTR);
      kicker.leave();
      if (rang) resolve();
      else kicker.afterEvents(slice);
    };
    kicker.afterEvents(slice);
  });
  kicker.close();
  guest.close();
});
