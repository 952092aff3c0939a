/** The NBD protocol (doc/proto.md of the NBD project): numbers, and messages cut out of a stream. All are big-endian. */
import type { ByteStream } from '../host/host.ts';

export const NBD_MAGIC = 0x4e42444d41474943n;
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_MAGIC = 0x67446698;
export const STRUCTURED_MAGIC = 0x668e33ef;
export const REQUEST_BYTES = 28;
export const DEFAULT_PORT = 10809;
/** Longest read or write: what servers must take. */
export const MAX_TRANSFER = 32 * 2 ** 20;
export const MAX_NAME = 4096;

export const HANDSHAKE = { fixedNewstyle: 1, noZeroes: 2 } as const;
export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const;
export const REPLY = { ack: 1, server: 2, info: 3, metaContext: 4 } as const;
const ERROR_BIT = 0x80000000;
export const REPLY_ERROR = {
  unsupported: ERROR_BIT + 1,
  policy: ERROR_BIT + 2,
  invalid: ERROR_BIT + 3,
  unknown: ERROR_BIT + 6,
  tooBig: ERROR_BIT + 9,
} as const;
export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const;
export const TRANSMISSION = {
  hasFlags: 1,
  readOnly: 2,
  flush: 4,
  fua: 8,
  trim: 32,
  writeZeroes: 64,
  df: 128,
  multiConn: 256,
  cache: 1024,
} as const;
export const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, cache: 5, writeZeroes: 6, blockStatus: 7 } as const;
export const COMMAND_FLAG = { fua: 1, noHole: 2, df: 4, one: 8 } as const;
export const CHUNK = { none: 0, data: 1, hole: 2, status: 5, error: 0x8001, errorOffset: 0x8002 } as const;
export const CHUNK_DONE = 1;
export const ERRNO = {
  perm: 1,
  io: 5,
  noMemory: 12,
  invalid: 22,
  noSpace: 28,
  overflow: 75,
  unsupported: 95,
  shutdown: 108,
} as const;
/** Flags of `base:allocation`. */
export const ALLOCATION = { hole: 1, zero: 2 } as const;
export const BASE_ALLOCATION = 'base:allocation';

const ERRNO_WORDS: Record<number, string> = {
  1: 'Operation not permitted',
  5: 'Input/output error',
  12: 'Cannot allocate memory',
  22: 'Invalid argument',
  28: 'No space left on device',
  75: 'Value too large for defined data type',
  95: 'Operation not supported',
  108: 'Cannot send after transport endpoint shutdown',
};

export const errnoWords = (errno: number): string => ERRNO_WORDS[errno] ?? `error ${errno}`;

export function bytesOf(length: number, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(length);
  fill(new DataView(bytes.buffer));
  return bytes;
}

/** A stream from which one takes as many bytes as one needs next. */
export class Framer {
  private readonly stream: ByteStream;
  private readonly chunks: Uint8Array[] = [];
  private have = 0;
  /** Bytes of the first chunk that have been taken. */
  private used = 0;
  private want: { into: Uint8Array; done: number; resolve: () => void; reject: (error: Error) => void } | null = null;
  private over: Error | null = null;

  constructor(stream: ByteStream) {
    this.stream = stream;
    stream.onData = (chunk) => this.arrived(chunk);
    stream.onEnd = (error) => this.ended(error);
  }

  onEnd: ((error: Error) => void) | null = null;

  private ended(error: Error | null): void {
    this.over = error ?? new Error('the connection was closed');
    this.want?.reject(this.over);
    this.want = null;
    this.onEnd?.(this.over);
  }

  private arrived(chunk: Uint8Array): void {
    let rest = chunk;
    const { want } = this;
    if (want !== null) {
      // Straight to where it belongs.
      const part = rest.subarray(0, want.into.length - want.done);
      want.into.set(part, want.done);
      want.done += part.length;
      rest = rest.subarray(part.length);
      if (want.done < want.into.length) return;
      this.want = null;
      want.resolve();
    }
    if (rest.length === 0) return;
    this.chunks.push(rest);
    this.have += rest.length;
    if (this.have > 4 * MAX_TRANSFER) this.stream.pause();
  }

  /** @throws Error where the stream ends before */
  fill(into: Uint8Array): void | Promise<void> {
    let done = 0;
    while (done < into.length && this.chunks.length > 0) {
      const first = this.chunks[0]!;
      const part = first.subarray(this.used, this.used + into.length - done);
      into.set(part, done);
      done += part.length;
      this.used += part.length;
      this.have -= part.length;
      if (this.used === first.length) {
        this.chunks.shift();
        this.used = 0;
      }
    }
    if (done === into.length) return;
    if (this.over !== null) throw this.over;
    this.stream.resume();
    return new Promise((resolve, reject) => {
      this.want = { into, done, resolve, reject };
    });
  }

  async take(length: number): Promise<DataView> {
    const bytes = new Uint8Array(length);
    const waiting = this.fill(bytes);
    if (waiting !== undefined) await waiting;
    return new DataView(bytes.buffer);
  }

  async text(length: number): Promise<string> {
    return new TextDecoder().decode((await this.take(length)).buffer as ArrayBuffer);
  }
}
