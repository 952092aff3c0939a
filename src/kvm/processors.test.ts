import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXIT } from './constants.ts';
import { Kicker } from './kicker.ts';
import { loadLibc } from './libc.ts';
import { MemorySlots } from './memory.ts';
import { Processors, type Serve } from './processors.ts';
import { Kvm } from './system.ts';
import { CODE, GUEST_SIZE, NO_KVM, startAt } from './test-kit.ts';
import type { Vcpu } from './vcpu.ts';

const options = { skip: NO_KVM, timeout: 30_000 };
/** Where each vCPU's code begins, the boot processor's first. */
const codeOf = (index: number): number => CODE + 0x1000 * index;

const SPIN = [0xeb, 0xfe];
/** inc eax, for ever */
const COUNT = [0x66, 0x40, 0xeb, 0xfc];
/** in al, 60h; inc al; out 61h, al; for ever */
const ECHO = [0xe4, 0x60, 0xfe, 0xc0, 0xe6, 0x61, 0xeb, 0xf8];

interface Kit {
  readonly processors: Processors;
  readonly slots: MemorySlots;
  readonly map: { base: number; size: number; hostOffset: number; writable: boolean }[];
  requests: number;
  close(): void;
}

/** @param codes one for each vCPU beside the first, which spins where it is let */
function makeKit(...codes: readonly (readonly number[])[]): Kit {
  const libc = loadLibc();
  const kvm = new Kvm(libc);
  const { buffer } = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const memory = new Uint8Array(buffer, 0, GUEST_SIZE);
  [SPIN, ...codes].forEach((code, index) => void memory.set(code, codeOf(index)));
  const vm = kvm.createVm();
  const map = [{ base: 0, size: GUEST_SIZE, hostOffset: 0, writable: true }];
  const kicker = new Kicker(libc);
  const processors = new Processors(
    kvm,
    vm,
    [0, ...codes].map((_, index) => index),
    (vcpu, index) => startAt(vcpu, codeOf(index)),
    kicker,
    () => kit.requests++,
    (text) => assert.fail(text),
  );
  const slots = new MemorySlots(vm, { visibleMemory: () => map }, libc.addressOf(memory), (change) => processors.alone(change));
  slots.update();
  const close = (): void => {
    processors.close();
    kicker.close();
    vm.close();
    kvm.close();
  };
  const kit: Kit = { processors, slots, map, requests: 0, close };
  return kit;
}

const refuse: Serve = (_, reason) => assert.fail(`asked: ${reason}`);
const counts = ({ processors }: Kit): bigint[] => processors.all.slice(1).map((vcpu) => vcpu.get('regs').rax);
const pause = (milliseconds = 2): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Lets them run until each has counted on. */
async function countOn(kit: Kit): Promise<void> {
  const before = counts(kit);
  let patience = 1;
  do {
    kit.processors.release();
    // A slow host's threads take their time to begin.
    patience *= 2;
    await pause(patience);
    kit.processors.hold(refuse);
  } while (counts(kit).some((count, index) => count <= before[index]!));
}

test('vCPUs wait until they are released, and stand still while somebody holds them', options, async () => {
  const kit = makeKit(COUNT, COUNT, COUNT);
  assert.deepEqual(counts(kit), [0n, 0n, 0n]);
  await countOn(kit);
  const held = counts(kit);
  await pause();
  assert.deepEqual(counts(kit), held);
  // What is done alone within does not let them go.
  kit.processors.alone(() => undefined);
  await pause();
  assert.deepEqual(counts(kit), held);
  await countOn(kit);
  kit.close();
});

test('memory goes and comes while vCPUs run from it', options, async () => {
  const kit = makeKit(COUNT, COUNT);
  kit.processors.release();
  for (let i = 0; i < 50; i++) {
    // Another slot in its place: in between there is no memory at all.
    kit.map[0] = { ...kit.map[0]!, size: i % 2 === 0 ? GUEST_SIZE - 0x1000 : GUEST_SIZE };
    kit.slots.update();
    if (i % 10 === 0) await pause();
  }
  kit.processors.hold(refuse);
  await countOn(kit);
  kit.close();
});

test('exits of all are answered, also while they are being stopped; instructions are done by then', options, async () => {
  const kit = makeKit(ECHO, ECHO);
  const said = new Map<Vcpu, number[]>();
  const serve: Serve = (vcpu, reason) => {
    assert.equal(reason, EXIT.KVM_EXIT_IO);
    const { run } = vcpu;
    const list = said.get(vcpu) ?? [];
    said.set(vcpu, list);
    if (run.ioIsOut) list.push(run.ioValue(0));
    else run.setIoValue(0, list.length & 0xff);
    // A device may change the memory map while a vCPU waits for its answer.
    if (list.length % 8 === 1) kit.processors.alone(() => undefined);
    return true;
  };
  for (let i = 0; i < 20; i++) {
    kit.processors.release();
    for (let answered = 0; answered < 20; ) {
      if (kit.processors.answer(serve)) answered++;
      else await pause();
    }
    kit.processors.hold(serve);
    for (const vcpu of kit.processors.all.slice(1)) {
      const { rip } = vcpu.get('regs');
      assert.ok([0n, 2n, 4n, 6n].includes(rip & 0xfffn), `in an instruction: ${rip.toString(16)}`);
    }
  }
  assert.equal(said.size, 2);
  for (const list of said.values()) list.forEach((value, index) => assert.equal(value, (index + 1) & 0xff));
  assert.ok(kit.requests > 0);
  kit.close();
});

test('a vCPU that cannot go on is left where it is, and holds nobody up', options, async () => {
  const kit = makeKit(ECHO, COUNT);
  kit.processors.release();
  let broken: Vcpu | null = null;
  while (broken === null) {
    await pause();
    kit.processors.answer((vcpu) => {
      broken = vcpu;
      return false;
    });
  }
  kit.processors.hold(refuse);
  assert.equal(kit.processors.all.indexOf(broken), 1);
  assert.match(kit.processors.describe(broken, null), /^CPU 1: KVM_EXIT_IO: in port 60h.*\nRAX=/);
  kit.processors.release();
  assert.equal(kit.processors.answer(refuse), false);
  kit.close();
});

test("time-stamp counters agree to the tick with the boot processor's", options, (t) => {
  const kit = makeKit(SPIN);
  const [first, second] = kit.processors.all as [Vcpu, Vcpu];
  first.setMsrs(new Map([[0x10, 0x1234_5678n]]));
  const offset = first.tscOffset;
  if (offset === null) t.skip('this kernel does not tell offsets');
  else {
    assert.equal(second.setTscOffset(offset), true);
    // Where the processor's counters do not agree, the kernel moves offsets by itself.
    if (first.tscOffset !== offset) t.skip("this host's counters are not stable");
    else assert.equal(second.tscOffset, offset);
  }
  kit.close();
});
