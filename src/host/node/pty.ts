/** Pseudo-terminals, by the C library's own functions: Node.js offers none. */
import { closeSync, constants, openSync, writeSync } from 'node:fs';
import type { Channel } from '../host.ts';

const NAME_ROOM = 128;
/** More than struct termios takes in any C library. */
const TERMIOS_ROOM = 256;
const TCSANOW = 0;
const RETRY_MS = 10;
/** When nobody has read for so long, output is dropped: nobody is there. */
const PATIENCE_MS = 300;

async function library() {
  try {
    const { dlopen } = await import('node:ffi');
    return dlopen('libc.so.6', {
      posix_openpt: { arguments: ['i32'], return: 'i32' },
      grantpt: { arguments: ['i32'], return: 'i32' },
      unlockpt: { arguments: ['i32'], return: 'i32' },
      ptsname_r: { arguments: ['i32', 'buffer', 'u64'], return: 'i32' },
      tcgetattr: { arguments: ['i32', 'buffer'], return: 'i32' },
      cfmakeraw: { arguments: ['buffer'], return: 'void' },
      tcsetattr: { arguments: ['i32', 'i32', 'buffer'], return: 'i32' },
    }).functions;
  } catch (error) {
    throw new Error(`pseudo-terminals are not available here (${(error as Error).message})`);
  }
}

/** @returns both ends; the user's end is in raw mode, as a serial line is */
async function openPair(): Promise<{ master: number; slave: number; name: string }> {
  const c = await library();
  const master = c.posix_openpt(constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK);
  const nameBytes = Buffer.alloc(NAME_ROOM);
  if (
    master < 0 ||
    c.grantpt(master) !== 0 ||
    c.unlockpt(master) !== 0 ||
    c.ptsname_r(master, nameBytes, BigInt(NAME_ROOM)) !== 0
  ) {
    throw new Error('the host gives no pseudo-terminal');
  }
  const name = nameBytes.toString('latin1', 0, nameBytes.indexOf(0));
  // Held open, so that the line survives its users' coming and going.
  const slave = openSync(name, constants.O_RDWR | constants.O_NOCTTY);
  const termios = Buffer.alloc(TERMIOS_ROOM);
  if (c.tcgetattr(slave, termios) === 0) {
    c.cfmakeraw(termios);
    c.tcsetattr(slave, TCSANOW, termios);
  }
  return { master, slave, name };
}

class PatientWriter {
  private readonly fd: number;
  private stuck = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  async write(data: Uint8Array): Promise<void> {
    let since = performance.now();
    for (let at = 0; at < data.length; ) {
      const count = this.tryWrite(data.subarray(at));
      at += count;
      if (count > 0) {
        this.stuck = false;
        since = performance.now();
        continue;
      }
      if (this.stuck || performance.now() - since > PATIENCE_MS) {
        this.stuck = true;
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  private tryWrite(data: Uint8Array): number {
    try {
      return writeSync(this.fd, data);
    } catch {
      return 0;
    }
  }
}

export async function openPty(): Promise<{ channel: Channel; name: string }> {
  const { master, slave, name } = await openPair();
  const { ReadStream } = process.getBuiltinModule('node:tty');
  const stream = new ReadStream(master);
  const writer = new PatientWriter(master);
  const readable = new ReadableStream<Uint8Array>({
    start: (controller) => {
      stream.on('data', (chunk: Buffer) => {
        controller.enqueue(new Uint8Array(chunk));
        if ((controller.desiredSize ?? 0) <= 0) stream.pause();
      });
      stream.on('error', () => undefined);
    },
    pull: () => {
      stream.resume();
    },
  });
  const channel: Channel = {
    readable,
    writable: new WritableStream<Uint8Array>({ write: (data) => writer.write(data) }),
    close: () => {
      stream.destroy();
      closeSync(slave);
    },
  };
  return { channel, name };
}
