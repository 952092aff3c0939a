/**
 * How long a message to a thread and its answer take while that thread runs a guest that never leaves by itself, and
 * while it runs none:
 *
 *     node --no-warnings bench/kvm/latency.ts [MESSAGES]
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { EndlessData } from '../../src/kvm/test-kicker-main.ts';
import { median } from '../report.ts';

const messages = Number(process.argv[2] ?? 1000);
/** Milliseconds between two messages: the guest has been entered again by then. */
const PAUSE = 1;
const ECHO = `const { parentPort } = require('node:worker_threads');
parentPort.on('message', (message) => parentPort.postMessage(message));
parentPort.postMessage('ready');`;

function guest(data: EndlessData): Worker {
  const url = new URL('../../src/kvm/test-kicker-main.ts', import.meta.url);
  return new Worker(url, { execArgv: ['--no-warnings'], workerData: data });
}

const THREADS: Record<string, () => Worker> = {
  'no guest': () => new Worker(ECHO, { eval: true }),
  'a guest that spins': () => guest({ code: [0xeb, 0xfe], irqchip: false }),
  'a guest that is halted': () => guest({ code: [0xf4, 0xeb, 0xfd], irqchip: true }),
};

for (const [name, start] of Object.entries(THREADS)) {
  const worker = start();
  await once(worker, 'message');
  const times: number[] = [];
  for (let index = 0; index < messages; index++) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    const begin = performance.now();
    worker.postMessage('');
    await once(worker, 'message');
    times.push((performance.now() - begin) * 1000);
  }
  const late = times.toSorted((a, b) => a - b)[Math.floor(0.95 * messages)]!;
  console.log(`${name.padEnd(22)} ${median(times).toFixed(0).padStart(5)} us, of 20 one ${late.toFixed(0)} us or more`);
  await worker.terminate();
}
