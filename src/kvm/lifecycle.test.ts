import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { EXIT } from './constants.ts';
import { loadLibc } from './libc.ts';
import { Kvm } from './system.ts';
import type { EndlessData } from './test-kicker-main.ts';
import { CODE, GUEST_SIZE, NO_KVM, startAt } from './test-kit.ts';

const MACHINES = 1000;
const descriptors = (): number => readdirSync('/proc/self/fd').length;
const mappings = (): number => readFileSync('/proc/self/maps', 'latin1').split('\n').length;
const residentMiB = (): number => process.memoryUsage.rss() / 2 ** 20;

test('a thousand machines come and go, and nothing stays', { skip: NO_KVM, timeout: 120_000 }, () => {
  const libc = loadLibc();
  const kvm = new Kvm(libc);
  const { buffer } = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
  const memory = new Uint8Array(buffer, 0, GUEST_SIZE);
  const hostAddress = libc.addressOf(memory);
  const place = new Uint8Array(buffer, GUEST_SIZE, kvm.vcpuMapSize);
  memory.set([0xf4], CODE); // hlt
  const live = (index: number): void => {
    const vm = kvm.createVm();
    vm.setMemory({ slot: 0, guestAddress: 0, size: GUEST_SIZE, hostAddress });
    // Pages in memory that is there anyway, and pages of its own.
    const vcpu = vm.createVcpu(0, index % 2 === 0 ? place : null);
    startAt(vcpu, CODE);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
    vm.close();
    // What is left of the pages can be looked at, and written to, without harm.
    vcpu.run.setImmediateExit(true);
    assert.equal(vcpu.run.bytes.length, kvm.vcpuMapSize);
  };
  for (let index = 0; index < 50; index++) live(index);
  const before = { descriptors: descriptors(), mappings: mappings(), resident: residentMiB() };
  for (let index = 0; index < MACHINES; index++) live(index);
  assert.equal(descriptors(), before.descriptors);
  // Node.js itself maps and unmaps.
  assert.ok(mappings() - before.mappings < 100, `${before.mappings} mappings, then ${mappings()}`);
  assert.ok(residentMiB() - before.resident < 100, `${before.resident} MiB, then ${residentMiB()}`);
  kvm.close();
  assert.equal(descriptors(), before.descriptors - 1);
});

test('a thread that is ended in the guest leaves nothing open', { skip: NO_KVM, timeout: 60_000 }, async () => {
  const end = async (): Promise<void> => {
    const workerData: EndlessData = { code: [0xeb, 0xfe], irqchip: true };
    const worker = new Worker(new URL('./test-kicker-main.ts', import.meta.url), { execArgv: ['--no-warnings'], workerData });
    assert.deepEqual(await once(worker, 'message'), ['ready']);
    await worker.terminate();
  };
  await end();
  const before = descriptors();
  for (let index = 0; index < 5; index++) await end();
  assert.equal(descriptors(), before);
});
