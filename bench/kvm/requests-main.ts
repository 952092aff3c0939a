/** Runs on a host with a whole KVM (requests.ts): machines in this thread, whose counters are read. */
import { readFileSync, writeFileSync } from 'node:fs';
import { completeConfig, drive } from '../../src/machine/config.ts';
import { createMachine } from '../../src/machine/create.ts';
import type { CharBackend } from '../../src/machine/interfaces.ts';
import { Drives } from '../../src/storage/open.ts';

const requests = Number(process.argv[2]);
const DISK = '/tmp/disk';
const MIB = 2 ** 20;
const BLOCK = 4096;

/** The guest's console, which carries out what it is told. */
class Shell implements CharBackend {
  onReceive: ((data: Uint8Array) => number) | null = null;
  onDrain = null;
  private text = '';
  private changed: (() => void) | null = null;
  private waiting = new Uint8Array(0);

  write(data: Uint8Array): boolean {
    this.text += Buffer.from(data).toString('latin1');
    this.changed?.();
    return true;
  }

  resume(): void {
    if (this.waiting.length > 0) this.waiting = this.waiting.subarray(this.onReceive?.(this.waiting) ?? 0);
  }

  close(): void {
    // Nothing is open.
  }

  async until(mark: string): Promise<string> {
    while (!this.text.includes(mark)) await new Promise<void>((resolve) => (this.changed = resolve));
    const [said, ...rest] = this.text.split(mark);
    this.text = rest.join(mark);
    return said!;
  }

  async run(command: string): Promise<string> {
    this.waiting = Buffer.from(`${command}; echo do"ne"\n`);
    this.resume();
    return this.until('done');
  }
}

async function machineOf(cpus: number, ioeventfd: 'on' | 'auto'): Promise<void> {
  const named = (name: string) => ({ name, data: readFileSync(`/guest/${name}`) });
  const config = completeConfig({
    accel: 'kvm',
    cpus,
    memory: 192 * MIB,
    append: 'console=ttyS0 panic=-1 quiet cryptomgr.notests lpj=4000000 tsc=reliable no_timer_check',
    kernel: named('kernel'),
    initrd: named('initrd'),
    vga: 'none',
    drives: [drive({ interface: 'none', id: 'd', file: DISK, format: 'raw' })],
    devices: [{ driver: 'virtio-blk-pci', drive: 'd', ioeventfd }],
  });
  const shell = new Shell();
  const drives = await Drives.open(config, { stop: console.log, warn: console.log });
  const machine = await createMachine(
    config,
    { onEnd: () => undefined, warn: (line) => console.log(line) },
    {
      serials: [shell],
      debugcon: null,
      chardevs: new Map(),
      drives: drives.backends,
      awaitsDisk: () => drives.underWay > 0,
    },
  );
  machine.start();
  await shell.until('listening');
  const counters = (): Record<string, number> => machine.accelerator.statistics();
  const reads = async (): Promise<number> => Number(/^ *(\d+)/m.exec(await shell.run('cat /sys/block/vda/stat'))?.[1]);
  await shell.run('echo 0 >/sys/block/vda/queue/read_ahead_kb');
  for (let cpu = 0; cpu < cpus; cpu++) {
    const run = async (count: number): Promise<[number, Record<string, number>, number]> => {
      const before = await reads();
      const counted = counters();
      const begun = performance.now();
      await shell.run(`taskset ${1 << cpu} dd if=/dev/vda of=/dev/null bs=4k count=${count} skip=${skip} 2>/dev/null`);
      skip += count;
      const time = performance.now() - begun;
      const after = counters();
      return [
        (await reads()) - before,
        Object.fromEntries(Object.keys(after).map((key) => [key, after[key]! - counted[key]!])),
        time,
      ];
    };
    // What the command itself takes is what it takes for one request.
    const [fewer, least, short] = await run(1);
    const [more, most, long] = await run(requests);
    const per = (name: string): string => ((most[name]! - least[name]!) / (more - fewer)).toFixed(2);
    const time = ((1000 * (long - short)) / (more - fewer)).toFixed(0);
    const counts =
      `${per('exits')} exits that the machine's thread served, ${per('doorbells')} notes, ` +
      `${per('ioeventfds')} notifications and ${per('irqfds')} interrupts by eventfds`;
    console.log(`cpus=${cpus}, CPU ${cpu}, ioeventfd=${ioeventfd}: ${more} requests; of each ${counts}; ${time} us`);
  }
  machine.quit();
  await drives.close();
}

let skip = 0;
writeFileSync(DISK, new Uint8Array(BLOCK * (6 * requests + 100)).fill(1));
for (const cpus of [1, 2]) for (const ioeventfd of ['auto', 'on'] as const) await machineOf(cpus, ioeventfd);
process.exit();
