import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXIT, exitName } from './constants.ts';
import { Kicker } from './kicker.ts';
import { loadLibc } from './libc.ts';
import { Kvm } from './system.ts';
import { CODE, GUEST_SIZE, NO_KVM, startAt, UNDEFINED, withoutInterruptTable } from './test-kit.ts';
import { VcpuThread } from './vcpu-thread.ts';
import type { Vcpu } from './vcpu.ts';

const skip = NO_KVM;
const options = { skip, timeout: 30_000 };
const SPIN = [0xeb, 0xfe];
/** Code of the second vCPU. */
const SECOND = 0x4000;

interface Machine {
  readonly first: Vcpu;
  readonly second: Vcpu;
  readonly kicker: Kicker;
  close(): void;
}

/** Two vCPUs, each with code of its own, in the same memory. */
function makeMachine(code: readonly number[]): Machine {
  const libc = loadLibc();
  const kvm = new Kvm(libc);
  const { buffer } = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
  const memory = new Uint8Array(buffer, 0, GUEST_SIZE);
  memory.set(SPIN, CODE);
  memory.set(code, SECOND);
  const vm = kvm.createVm();
  vm.setMemory({ slot: 0, guestAddress: 0, size: GUEST_SIZE, hostAddress: libc.addressOf(memory) });
  const place = (index: number): Uint8Array => new Uint8Array(buffer, GUEST_SIZE + index * kvm.vcpuMapSize, kvm.vcpuMapSize);
  const [first, second] = [vm.createVcpu(0, place(0)), vm.createVcpu(1, place(1))];
  startAt(first, CODE);
  startAt(second, SECOND);
  const kicker = new Kicker(libc);
  kicker.watch(first);
  return {
    first,
    second,
    kicker,
    close: () => {
      kicker.close();
      vm.close();
      kvm.close();
    },
  };
}

/** in al, 60h; out 61h, al; for ever. */
const ECHO = [0xe4, 0x60, 0xe6, 0x61, 0xeb, 0xfa];
const ROUNDS = 500;

/** Answers the echoing vCPU, and counts. */
class Device {
  rounds = 0;
  private expected = -1;

  serve(vcpu: Vcpu): void {
    const { run } = vcpu;
    assert.equal(run.reason, EXIT.KVM_EXIT_IO, exitName(run.reason));
    if (run.ioIsOut) {
      assert.equal(run.ioValue(0), this.expected);
      this.rounds++;
    } else {
      this.expected = this.rounds & 0xff;
      run.setIoValue(0, this.expected);
    }
  }
}

function serve(thread: VcpuThread, device: Device): void {
  if (thread.channel.request === null) return;
  device.serve(thread.vcpu);
  thread.channel.answer();
}

const failed = (error: Error): void => {
  throw error;
};

test('exits are answered by a thread that sleeps in its event loop', options, async () => {
  const { second, kicker, close } = makeMachine(ECHO);
  const device = new Device();
  await new Promise<void>((resolve) => {
    const thread = new VcpuThread(
      second,
      kicker,
      () => {
        if (device.rounds < ROUNDS) serve(thread, device);
        else void thread.end().then(resolve);
      },
      failed,
    );
  });
  close();
});

test('exits are answered by a thread that is in the guest itself', options, async () => {
  const { first, second, kicker, close } = makeMachine(ECHO);
  const device = new Device();
  const thread = new VcpuThread(second, kicker, () => serve(thread, device), failed);
  await new Promise<void>((resolve) => {
    const slice = (): void => {
      while (device.rounds < ROUNDS) {
        serve(thread, device);
        if (!kicker.enter(10_000)) {
          if (kicker.leave()) break;
          serve(thread, device);
          break;
        }
        assert.equal(first.enter(), EXIT.KVM_EXIT_INTR);
        if (kicker.leave()) break;
      }
      if (device.rounds < ROUNDS) kicker.afterEvents(slice);
      else resolve();
    };
    setImmediate(slice);
  });
  await thread.end();
  close();
});

test('a vCPU that is paused stays out of the guest, and goes on where it was', options, async () => {
  const count = [0x66, 0x40, 0xeb, 0xfc]; // inc eax, for ever
  const { second, kicker, close } = makeMachine(count);
  const thread = new VcpuThread(second, kicker, () => assert.fail('asked'), failed);
  const { channel } = thread;
  const pause = (): bigint => {
    channel.pause((reason) => assert.fail(exitName(reason)));
    return second.get('regs').rax;
  };
  // It has to be there first.
  while (pause() === 0n) {
    channel.resume();
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  channel.resume();
  const progress: bigint[] = [];
  for (let index = 0; index < 20; index++) {
    progress.push(pause());
    assert.equal(second.get('regs').rax, progress.at(-1));
    if (index === 10) second.set('regs', { ...second.get('regs'), rax: 0x1000_0000n });
    channel.resume();
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  assert.ok(progress[10]! < 0x1000_0000n && progress[11]! >= 0x1000_0000n);
  assert.ok(progress[19]! > progress[11]!);
  await thread.end();
  assert.equal(channel.ended, true);
  close();
});

test('a request that comes before the pause is carried out', options, async () => {
  const { second, kicker, close } = makeMachine(ECHO);
  const device = new Device();
  const thread = new VcpuThread(second, kicker, () => undefined, failed);
  for (let index = 0; index < 50; index++) {
    thread.channel.pause(() => device.serve(second));
    assert.equal(thread.channel.request, null);
    // What it asked for last is done when the instruction is completed.
    second.complete();
    thread.channel.resume();
    while (thread.channel.request === null) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(device.rounds >= 20, `${device.rounds} rounds`);
  await thread.end();
  close();
});

test('a vCPU that is beyond help waits until its thread is ended', options, async () => {
  const { second, kicker, close } = makeMachine(UNDEFINED);
  withoutInterruptTable(second, SECOND);
  await new Promise<void>((resolve) => {
    const thread = new VcpuThread(
      second,
      kicker,
      () => {
        assert.equal(exitName(thread.channel.request!), 'KVM_EXIT_SHUTDOWN');
        void thread.end().then(resolve);
      },
      failed,
    );
  });
  close();
});

test("an error of KVM_RUN is told to the machine's thread", options, async () => {
  const { first, kicker, close } = makeMachine([]);
  const pages = new Uint8Array(new SharedArrayBuffer(12288));
  const broken = { libc: first.libc, fd: -1, run: { bytes: pages } } as unknown as Vcpu;
  const error = await new Promise<Error>((resolve) => new VcpuThread(broken, kicker, () => undefined, resolve));
  assert.match(error.message, /KVM_SET_SIGNAL_MASK: EBADF/);
  close();
});

test('threads in the guest are ended without their help', options, async () => {
  const { second, kicker, close } = makeMachine(SPIN);
  const thread = new VcpuThread(second, kicker, () => undefined, failed);
  await new Promise((resolve) => setTimeout(resolve, 100));
  await thread.terminate();
  assert.equal(thread.channel.ended, true);
  close();
});
