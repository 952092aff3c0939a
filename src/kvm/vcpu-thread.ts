/** A vCPU beside the one that the machine's thread runs itself. */
import { Worker } from 'node:worker_threads';
import { Doorbells } from './doorbells.ts';
import { ExitChannel } from './exit-channel.ts';
import type { Kicker } from './kicker.ts';
import type { Vcpu } from './vcpu.ts';
import type { VcpuWorkerData } from './vcpu-worker.ts';

export class VcpuThread {
  /** Its state may be touched while the thread is paused. */
  readonly vcpu: Vcpu;
  readonly channel: ExitChannel;
  private readonly worker: Worker;
  private readonly exited: Promise<void>;

  /**
   * @param vcpu whose pages are in shared memory
   * @param kicker of the calling thread, which answers the vCPU's exits
   * @param onRequest is called when an exit wants an answer and nobody is in the guest; there may be several, or none any more
   * @param onError when the thread has failed
   * @param paused does not enter the guest before it is told to (`channel.resume`)
   * @param doorbells cells of the machine's `Doorbells`
   */
  constructor(
    vcpu: Vcpu,
    kicker: Kicker,
    onRequest: () => void,
    onError: (error: Error) => void,
    paused = false,
    doorbells = new Doorbells().cells,
  ) {
    this.vcpu = vcpu;
    this.channel = new ExitChannel(vcpu.libc, paused);
    const { bytes: pages } = vcpu.run;
    if (!(pages.buffer instanceof SharedArrayBuffer))
      throw new Error('a vCPU with a thread of its own needs its pages in shared memory');
    this.worker = new Worker(new URL('./vcpu-worker.ts', import.meta.url), {
      execArgv: ['--no-warnings'],
      workerData: { fd: vcpu.fd, pages, cells: this.channel.cells, machine: kicker.cells, doorbells } satisfies VcpuWorkerData,
    });
    this.worker.on('message', onRequest);
    this.worker.on('error', (error) => onError(error as Error));
    this.exited = new Promise((resolve) =>
      this.worker.once('exit', () => {
        this.channel.markEnded();
        resolve();
      }),
    );
  }

  /** Ends the thread, whatever it does. The vCPU must not be closed before this has happened. */
  async end(): Promise<void> {
    this.channel.end();
    await this.exited;
  }

  /** Ends it without its help. */
  async terminate(): Promise<void> {
    await this.worker.terminate();
  }
}
