/** For tests of saved machines: what a console says, and a machine's state in memory. */
import type { Machine, MachineConfig } from 'virelay';
import type { GuestFiles } from '../src/cli/guest-files.ts';
import { LastWords } from './last-words.ts';

const MIB = 2 ** 20;
/** What a guest says that something has gone wrong for. */
export const TROUBLE = /Call Trace|BUG:|Oops|segfault|WARNING:|I\/O error|timeout|clocksource.*unstable/;

/** A machine that boots Debian's kernel with its console on the serial port. */
export function machineConfig(
  files: Pick<GuestFiles, 'kernel'>,
  initrd: Uint8Array,
  more: Partial<MachineConfig>,
): Partial<MachineConfig> {
  return {
    memory: 256 * MIB,
    append: 'console=ttyS0 panic=-1',
    noReboot: true,
    kernel: { name: 'vmlinuz', data: files.kernel },
    initrd: { name: 'initramfs', data: initrd },
    ...more,
  };
}

/** What comes out of a serial port, a way to wait for it, and one to answer. */
export class Console {
  text = '';
  /** Settles at the machine's end. */
  readonly done: Promise<void>;
  private readonly machine: Machine;
  private readonly lastWords: LastWords;
  private readonly writer: WritableStreamDefaultWriter<Uint8Array>;
  private readonly waiting = new Set<() => void>();
  /** What is waited for must come after that. */
  private cursor = 0;

  constructor(machine: Machine) {
    this.machine = machine;
    this.lastWords = new LastWords(machine);
    const [port] = machine.serial;
    const decoder = new TextDecoder();
    this.writer = port!.writable.getWriter();
    const sink = new WritableStream<Uint8Array>({
      write: (data) => {
        this.text += decoder.decode(data, { stream: true });
        for (const check of this.waiting) check();
      },
    });
    this.done = port!.readable.pipeTo(sink);
  }

  async until(wanted: string): Promise<void> {
    const seen = new Promise<void>((resolve) => {
      const check = (): void => {
        const at = this.text.indexOf(wanted, this.cursor);
        if (at < 0) return;
        this.cursor = at + wanted.length;
        this.waiting.delete(check);
        resolve();
      };
      this.waiting.add(check);
      check();
    });
    const ended = this.machine.ended.then(async () => {
      throw await this.lastWords.ended(`"${wanted}"`, this.text);
    });
    await Promise.race([seen, ended]);
  }

  type(text: string): Promise<void> {
    return this.writer.write(new TextEncoder().encode(text));
  }
}

/** Saves a machine and ends it. */
export async function savedAndEnded(machine: Machine): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = [];
  for await (const piece of machine.save()) pieces.push(piece);
  await machine.quit();
  return pieces;
}

export async function* streamOf(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* pieces;
}
