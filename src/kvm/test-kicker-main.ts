/** A thread for tests: runs a guest that never leaves by itself and looks after its event loop in between. */
import { parentPort, workerData } from 'node:worker_threads';
import { EXIT } from './constants.ts';
import { Kicker } from './kicker.ts';
import { makeGuest } from './test-kit.ts';

export interface EndlessData {
  readonly code: readonly number[];
  /** Whether halts are the kernel's. */
  readonly irqchip: boolean;
}

const { code, irqchip } = workerData as EndlessData;
const guest = makeGuest(code, (vm) => {
  if (irqchip) vm.createIrqchip();
});
const kicker = new Kicker(guest.vm.libc);
kicker.watch(guest.vcpu);

function slice(): void {
  while (kicker.enter(10_000)) {
    if (guest.vcpu.enter() !== EXIT.KVM_EXIT_INTR) throw new Error(`left: ${guest.vcpu.run.reason}`);
    if (kicker.leave()) break;
  }
  kicker.leave();
  kicker.afterEvents(slice);
}

parentPort!.on('message', (message: string) => {
  if (message === 'close') {
    kicker.close();
    guest.close();
    process.exit();
  }
  parentPort!.postMessage(message);
});
parentPort!.postMessage('ready');
setImmediate(slice);
