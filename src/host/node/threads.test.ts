import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { getPriority } from 'node:os';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { I32 } from '../../ir/ops.ts';
import { CALL_INDIRECT, I32_ADD, ModuleWriter } from '../../wasm/wasm.ts';
import { makeOptimised } from './threads.ts';

/** @returns index of a function that adds to its argument */
function adder(module: ModuleWriter, sum: number): number {
  const code = module.code();
  code.begin([I32]);
  code.get(0);
  code.i32(sum);
  code.op(I32_ADD);
  return module.function([I32], I32, code);
}

/** Of a module whose function `add` adds to its argument. */
function bytesFor(sum: number): Uint8Array<ArrayBuffer> {
  const module = new ModuleWriter(1, 1, true);
  module.export('add', adder(module, sum));
  return module.finish();
}

function run(module: WebAssembly.Module, value: number): number {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const table = new WebAssembly.Table({ initial: 1, element: 'anyfunc' });
  const { exports } = new WebAssembly.Instance(module, { v: { memory, table } });
  return (exports['add'] as (value: number) => number)(value);
}

test('modules made by the optimiser run, and so do others made before and afterwards', () => {
  const before = new WebAssembly.Module(bytesFor(1));
  const optimised = makeOptimised(bytesFor(2));
  const after = new WebAssembly.Module(bytesFor(3));
  assert.deepEqual(
    [before, optimised, after].map((module) => run(module, 40)),
    [41, 42, 43],
  );
});

test('bytes that are no module are refused, and modules can be made afterwards', () => {
  assert.throws(() => makeOptimised(new Uint8Array([0, 1, 2, 3])), WebAssembly.CompileError);
  assert.equal(run(makeOptimised(bytesFor(5)), 2), 7);
});

/** Whose function `call` calls, by way of the table, the one that its argument says. */
function callsByTable(): Uint8Array<ArrayBuffer> {
  const module = new ModuleWriter(1, 1, true);
  [1, 2].forEach((sum, at) => module.element(at, adder(module, sum)));
  const code = module.code();
  code.begin([I32]);
  code.i32(40);
  code.get(0);
  code.indirect(CALL_INDIRECT, module.type([I32], [I32]));
  module.export('call', module.function([I32], I32, code));
  return module.finish();
}

/** @returns what a process of its own printed, which turned to another function of a table when the first call was optimised */
function turnsAround(when: 'before' | 'after' | 'never'): string {
  const script = `
    const { tuneForTranslation } = await import(${JSON.stringify(new URL('./threads.ts', import.meta.url))});
    if ('${when}' === 'before') tuneForTranslation();
    const module = new WebAssembly.Module(Buffer.from('${Buffer.from(callsByTable()).toString('hex')}', 'hex'));
    const begin = () => {
      const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
      const table = new WebAssembly.Table({ initial: 2, element: 'anyfunc' });
      return new WebAssembly.Instance(module, { v: { memory, table } }).exports.call;
    };
    const call = begin();
    const often = (which, also) => {
      let sum = 0;
      for (let i = 0; i < 200000; i++) sum = call(which) + also(which);
      return sum;
    };
    often(0, call);
    await new Promise((resolve) => setTimeout(resolve, 200));
    often(0, call);
    if ('${when}' === 'after') tuneForTranslation();
    console.log(often(1, begin()));`;
  const args = ['--no-warnings', '--trace-deopt', '--wasm-sync-tier-up', '--input-type=module', '-e', script];
  return execFileSync(process.execPath, args, { encoding: 'utf8' });
}

test('the optimiser does not guess which function of a table is called, and what it has guessed before holds', () => {
  const guess = /wrong call target, type: Wasm/;
  // Else this test would not see it.
  assert.match(turnsAround('never'), guess);
  assert.doesNotMatch(turnsAround('before'), guess);
  assert.match(turnsAround('after'), /^84$/m);
});

test('a thread that steps back leaves the others their priority', { skip: process.platform !== 'linux' }, async () => {
  const usual = getPriority();
  const script = `
    const { parentPort } = require('node:worker_threads');
    const { getPriority } = require('node:os');
    import(${JSON.stringify(new URL('./threads.ts', import.meta.url))}).then(({ stepBack }) => {
      stepBack(4);
      parentPort.postMessage(getPriority());
    });`;
  const worker = new Worker(script, { eval: true });
  const [priority] = (await once(worker, 'message')) as [number];
  assert.equal(priority, Math.min(19, usual + 4));
  assert.equal(getPriority(), usual);
  await worker.terminate();
});
