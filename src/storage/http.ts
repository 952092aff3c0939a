/** The drivers `http` and `https`: a file of a web server's, read in ranges. */
import type { Completion } from '../machine/interfaces.ts';
import { driver } from './driver.ts';
import { BlockNode, type Extent, MAX_SIZE, type NodeInfo } from './node.ts';
import { flag, integer, optional, type Schema, size, text, type Values } from './schema.ts';
import { run, type Task } from './task.ts';

const OPTIONS = {
  url: text,
  /** Bytes that are fetched at least, from a multiple of it on. */
  readahead: optional(size, 256 * 1024),
  sslverify: optional(flag, true),
  timeout: optional(integer(0, 3600), 5),
  username: optional(text, null),
  'password-secret': optional(text, null),
  cookie: optional(text, null),
} satisfies Schema;

/** Memory for what has been fetched, bytes. */
const CACHE = 16 * 2 ** 20;
const RETRIES = 2;

class HttpNode extends BlockNode {
  readonly driver: string;
  readonly size: number;
  private readonly url: string;
  private readonly headers: Readonly<Record<string, string>>;
  private readonly block: number;
  private readonly timeout: number;
  /** Blocks by number, the one used last at the end; promises while they are on their way. */
  private readonly blocks = new Map<number, Uint8Array | Promise<Uint8Array>>();

  constructor(
    name: string,
    size: number,
    url: string,
    headers: Readonly<Record<string, string>>,
    values: Values<typeof OPTIONS>,
  ) {
    super();
    this.driver = name;
    this.size = size;
    this.url = url;
    this.headers = headers;
    this.block = Math.max(4096, values.readahead);
    this.timeout = values.timeout;
    this.readOnly = true;
  }

  read(offset: number, into: Uint8Array): Completion {
    return run(this.readTask(offset, into));
  }

  private *readTask(offset: number, into: Uint8Array): Task<void> {
    const there = Math.max(0, Math.min(into.length, this.size - offset));
    into.fill(0, there);
    const first = Math.floor(offset / this.block);
    const last = Math.floor((offset + there - 1) / this.block);
    // All are asked for before the first is waited for.
    const asked: (Uint8Array | Promise<Uint8Array>)[] = [];
    for (let number = first; number <= last; number++) asked.push(this.fetchBlock(number));
    for (let i = 0; i < asked.length; i++) {
      let block = asked[i]!;
      if (block instanceof Promise) {
        let got: Uint8Array | null = null;
        yield block.then((bytes) => (got = bytes));
        block = got!;
      }
      const start = (first + i) * this.block;
      const from = Math.max(0, offset - start);
      const at = Math.max(0, start - offset);
      into.set(block.subarray(from, from + Math.min(block.length - from, there - at)), at);
    }
  }

  private fetchBlock(number: number): Uint8Array | Promise<Uint8Array> {
    const there = this.blocks.get(number);
    if (there !== undefined) {
      this.blocks.delete(number);
      this.blocks.set(number, there);
      return there;
    }
    const coming = this.fetchRange(number * this.block, Math.min(this.size, (number + 1) * this.block)).then(
      (bytes) => {
        this.blocks.set(number, bytes);
        return bytes;
      },
      (error: Error) => {
        this.blocks.delete(number);
        throw error;
      },
    );
    // Whoever asked is told; nobody else needs to be.
    coming.catch(() => undefined);
    this.blocks.set(number, coming);
    while (this.blocks.size * this.block > CACHE && this.blocks.size > 1) this.blocks.delete(this.blocks.keys().next().value!);
    return coming;
  }

  private async fetchRange(start: number, end: number): Promise<Uint8Array> {
    for (let left = RETRIES; ; left--) {
      try {
        return await this.fetchOnce(start, end);
      } catch (error) {
        if (left === 0) throw new Error(`${this.url}: bytes ${start} to ${end - 1} cannot be had: ${(error as Error).message}`);
      }
    }
  }

  private async fetchOnce(start: number, end: number): Promise<Uint8Array> {
    const signal = AbortSignal.timeout(this.timeout * 1000 + 60_000);
    const response = await fetch(this.url, { headers: { ...this.headers, Range: `bytes=${start}-${end - 1}` }, signal });
    if (response.status !== 206) {
      await response.body?.cancel();
      throw new Error(`the server answers ${response.status}`);
    }
    // A server may send more than it was asked for: that is not kept.
    const reader = response.body!.getReader();
    const bytes = new Uint8Array(end - start);
    let at = 0;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      if (at + value.length > bytes.length) {
        await reader.cancel();
        throw new Error('the server sends more than it was asked for');
      }
      bytes.set(value, at);
      at += value.length;
    }
    if (at < bytes.length) throw new Error('the server sends less than it was asked for');
    return bytes;
  }

  write(): Completion {
    throw new Error('the image is read-only');
  }

  flush(): Completion {
    // Nothing is written.
  }

  override status(offset: number, length: number): Extent {
    return { length, data: true, zero: false, allocated: true, offset, file: this };
  }

  override info(): NodeInfo {
    return {};
  }

  override allocatedBytes(): null {
    return null;
  }

  close(): void {
    this.blocks.clear();
  }
}

/** @throws Error where the server does not say how long the file is, or has no ranges */
async function sizeOf(url: string, headers: Record<string, string>, timeout: number): Promise<number> {
  const limit = timeout === 0 ? {} : { signal: AbortSignal.timeout(timeout * 1000) };
  const response = await fetch(url, { method: 'HEAD', headers, ...limit }).catch((error: Error & { cause?: Error }) => {
    throw new Error(error.cause?.message || error.message);
  });
  if (!response.ok) throw new Error(`the server answers ${response.status}`);
  const length = Number(response.headers.get('content-length') ?? NaN);
  if (!Number.isSafeInteger(length) || length > MAX_SIZE) throw new Error('Server did not report file size.');
  if (response.headers.get('accept-ranges') !== 'bytes') throw new Error("Server does not support 'range' (byte ranges).");
  return length;
}

const named = (name: string) =>
  driver({
    name,
    protocol: true,
    options: OPTIONS,
    fromName: (url) => ({ url }),
    open: async (values, { how }) => {
      if (how.writable && !how.autoReadOnly) throw new Error(`${name} images can only be read`);
      if (!values.url.startsWith(`${name}://`)) throw new Error(`${name} is not the protocol of '${values.url}'`);
      if (!values.sslverify) throw new Error('certificates are always verified here: sslverify=off is not available');
      const secret = values['password-secret'] === null ? null : how.secrets.get(values['password-secret']);
      if (secret === undefined) throw new Error(`No secret with id '${values['password-secret']}'`);
      const password = secret === null ? '' : new TextDecoder().decode(secret);
      const headers: Record<string, string> = {
        // Ranges are of what is stored.
        'Accept-Encoding': 'identity',
        ...(values.cookie === null ? {} : { Cookie: values.cookie }),
        ...(values.username === null ? {} : { Authorization: `Basic ${btoa(`${values.username}:${password}`)}` }),
      };
      try {
        return new HttpNode(name, await sizeOf(values.url, headers, values.timeout), values.url, headers, values);
      } catch (error) {
        throw new Error(`Could not open '${values.url}': ${(error as Error).message}`);
      }
    },
  });

export const httpDriver = named('http');
export const httpsDriver = named('https');
