/** The driver `nbd`: a disk that a server exports. */
import { connectStream } from '#host/byte-streams';
import type { ByteStream, StreamAddress } from '../host/host.ts';
import type { Completion } from '../machine/interfaces.ts';
import { driver } from './driver.ts';
import {
  ALLOCATION,
  BASE_ALLOCATION,
  bytesOf,
  CHUNK,
  CHUNK_DONE,
  COMMAND,
  COMMAND_FLAG,
  DEFAULT_PORT,
  errnoWords,
  Framer,
  HANDSHAKE,
  INFO,
  MAX_TRANSFER,
  NBD_MAGIC,
  OPTION,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  REPLY,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  SIMPLE_MAGIC,
  STRUCTURED_MAGIC,
  TRANSMISSION,
} from './nbd-protocol.ts';
import { BlockNode, type Extent, MAX_SIZE, type NodeInfo, writeZeroBytes } from './node.ts';
import { choice, type Given, group, integer, optional, type Schema, text, type Values } from './schema.ts';

const SERVER = {
  type: choice('inet', 'unix'),
  host: optional(text, null),
  port: optional(text, null),
  path: optional(text, null),
} satisfies Schema;
const OPTIONS = {
  server: group(SERVER),
  export: optional(text, ''),
  'reconnect-delay': optional(integer(0, 2 ** 31), 0),
  'open-timeout': optional(integer(0, 2 ** 31), 0),
} satisfies Schema;

/** A list that is longer is none. */
const MAX_EXPORTS = 10_000;

type Export = { size: number; flags: number; structured: boolean; context: number | null; most: number };

/** Says what one wants until the server begins to transmit. */
class Negotiation {
  private readonly stream: ByteStream;
  private readonly framer: Framer;

  constructor(stream: ByteStream, framer: Framer) {
    this.stream = stream;
    this.framer = framer;
  }

  private option(option: number, data: Uint8Array): void {
    const head = bytesOf(16, (view) => {
      view.setBigUint64(0, OPTION_MAGIC);
      view.setUint32(8, option);
      view.setUint32(12, data.length);
    });
    this.stream.write(head, data);
  }

  private async reply(option: number): Promise<{ type: number; data: DataView }> {
    const head = await this.framer.take(20);
    if (head.getBigUint64(0) !== OPTION_REPLY_MAGIC || head.getUint32(8) !== option)
      throw new Error('the server does not speak NBD');
    const length = head.getUint32(16);
    if (length > MAX_TRANSFER) throw new Error('the server sends a reply that is too long');
    return { type: head.getUint32(12), data: await this.framer.take(length) };
  }

  async run(name: string): Promise<Export> {
    await this.hello();
    this.option(OPTION.structuredReply, new Uint8Array(0));
    const structured = (await this.reply(OPTION.structuredReply)).type === REPLY.ack;
    const context = structured ? await this.metaContext(name) : null;
    return { ...(await this.ask(OPTION.go, name)), structured, context };
  }

  private async hello(): Promise<void> {
    const hello = await this.framer.take(18);
    if (hello.getBigUint64(0) !== NBD_MAGIC) throw new Error('the server does not speak NBD');
    if (hello.getBigUint64(8) !== OPTION_MAGIC) throw new Error('the server speaks the old NBD protocol only');
    const flags = hello.getUint16(16);
    if ((flags & HANDSHAKE.fixedNewstyle) === 0) throw new Error('the server speaks the old NBD protocol only');
    this.stream.write(bytesOf(4, (view) => view.setUint32(0, HANDSHAKE.fixedNewstyle | (flags & HANDSHAKE.noZeroes))));
  }

  /** Names and descriptions of all exports. */
  async list(): Promise<{ name: string; description: string }[]> {
    await this.hello();
    this.option(OPTION.list, new Uint8Array(0));
    const found: { name: string; description: string }[] = [];
    for (;;) {
      const { type, data } = await this.reply(OPTION.list);
      if (type === REPLY.ack) return found;
      if (type !== REPLY.server || data.byteLength < 4)
        throw new Error(`the server does not list its exports: ${serverWords(data, type)}`);
      const length = Math.min(data.getUint32(0), data.byteLength - 4);
      const text = (from: number, count: number): string => new TextDecoder().decode(new Uint8Array(data.buffer, from, count));
      if (found.length === MAX_EXPORTS) throw new Error('the server has too many exports');
      found.push({ name: text(4, length), description: text(4 + length, data.byteLength - 4 - length) });
    }
  }

  /** What `run` finds out, without beginning to transmit. */
  facts(name: string): Promise<Pick<Export, 'size' | 'flags' | 'most'>> {
    return this.ask(OPTION.info, name);
  }

  private async metaContext(name: string): Promise<number | null> {
    const [title, query] = [new TextEncoder().encode(name), new TextEncoder().encode(BASE_ALLOCATION)];
    const data = new Uint8Array(4 + title.length + 8 + query.length);
    const view = new DataView(data.buffer);
    view.setUint32(0, title.length);
    data.set(title, 4);
    view.setUint32(4 + title.length, 1);
    view.setUint32(8 + title.length, query.length);
    data.set(query, 12 + title.length);
    this.option(OPTION.setMetaContext, data);
    let found: number | null = null;
    for (;;) {
      const { type, data: reply } = await this.reply(OPTION.setMetaContext);
      if (type !== REPLY.metaContext) return found;
      if (reply.byteLength >= 4) found = reply.getUint32(0);
    }
  }

  private async ask(option: number, name: string): Promise<Pick<Export, 'size' | 'flags' | 'most'>> {
    const title = new TextEncoder().encode(name);
    const data = new Uint8Array(4 + title.length + 4);
    const view = new DataView(data.buffer);
    view.setUint32(0, title.length);
    data.set(title, 4);
    view.setUint16(4 + title.length, 1);
    view.setUint16(6 + title.length, INFO.blockSize);
    this.option(option, data);
    let found: { size: number; flags: number } | null = null;
    let most = MAX_TRANSFER;
    for (;;) {
      const { type, data: reply } = await this.reply(option);
      if (type === REPLY.info && reply.byteLength >= 12 && reply.getUint16(0) === INFO.export) {
        found = { size: Number(reply.getBigUint64(2)), flags: reply.getUint16(10) };
      } else if (type === REPLY.info && reply.byteLength >= 14 && reply.getUint16(0) === INFO.blockSize) {
        most = Math.min(most, Math.max(512, reply.getUint32(10)));
      } else if (type === REPLY.ack) break;
      else if (type !== REPLY.info) throw new Error(`the server has no export '${name}' for us: ${serverWords(reply, type)}`);
    }
    if (found === null || found.size > MAX_SIZE) throw new Error('the server does not say how large the export is');
    return { ...found, most };
  }
}

function serverWords(data: DataView, type: number): string {
  const words = new TextDecoder().decode(data).replace(/[^ -~]/g, '?');
  return words === '' ? `error ${(type >>> 0) & 0xffff}` : words;
}

/** What a server exports. Ends the connection. */
export async function listExports(
  stream: ByteStream,
): Promise<{ name: string; description: string; size: number; flags: number }[]> {
  const negotiation = new Negotiation(stream, new Framer(stream));
  try {
    const found: { name: string; description: string; size: number; flags: number }[] = [];
    for (const one of await negotiation.list()) found.push({ ...one, ...(await negotiation.facts(one.name)) });
    return found;
  } finally {
    stream.close();
  }
}

type Pending = {
  /** Of what was asked for, bytes. */
  offset: number;
  into: Uint8Array | null;
  extents: { length: number; flags: number }[] | null;
  errno: number;
  words: string;
  resolve: () => void;
  reject: (error: Error) => void;
};

class NbdNode extends BlockNode {
  readonly driver = 'nbd';
  readonly size: number;
  private readonly stream: ByteStream;
  private readonly framer: Framer;
  private readonly facts: Export;
  private readonly pending = new Map<number, Pending>();
  private nextHandle = 1;
  private broken: Error | null = null;

  constructor(stream: ByteStream, framer: Framer, facts: Export, readOnly: boolean) {
    super();
    this.stream = stream;
    this.framer = framer;
    this.facts = facts;
    this.size = facts.size;
    this.readOnly = readOnly;
    framer.onEnd = (error) => this.fail(error);
    this.listen().catch((error: Error) => this.fail(error));
  }

  private has(flag: number): boolean {
    return (this.facts.flags & flag) !== 0;
  }

  private request(
    type: number,
    flags: number,
    offset: number,
    length: number,
    more: Partial<Pending>,
    data?: Uint8Array,
  ): Promise<Pending> {
    if (this.broken !== null) return Promise.reject(this.broken);
    const handle = this.nextHandle++;
    const head = bytesOf(REQUEST_BYTES, (view) => {
      view.setUint32(0, REQUEST_MAGIC);
      view.setUint16(4, flags);
      view.setUint16(6, type);
      view.setBigUint64(8, BigInt(handle));
      view.setBigUint64(16, BigInt(offset));
      view.setUint32(24, length);
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const pending: Pending = { offset, into: null, extents: null, errno: 0, words: '', resolve, reject, ...more };
    this.pending.set(handle, pending);
    if (data === undefined) this.stream.write(head);
    else this.stream.write(head, data);
    return promise.then(() => pending);
  }

  /** Takes replies as they come. */
  private async listen(): Promise<void> {
    for (;;) {
      const head = await this.framer.take(4);
      switch (head.getUint32(0)) {
        case SIMPLE_MAGIC:
          await this.simple(await this.framer.take(12));
          break;
        case STRUCTURED_MAGIC:
          await this.chunk(await this.framer.take(16));
          break;
        default:
          throw new Error('the server sends what is no reply');
      }
    }
  }

  private find(handle: bigint): Pending {
    const pending = this.pending.get(Number(handle));
    if (pending === undefined) throw new Error('the server answers what nobody has asked');
    return pending;
  }

  private async simple(head: DataView): Promise<void> {
    const handle = head.getBigUint64(4);
    const pending = this.find(handle);
    pending.errno = head.getUint32(0);
    if (pending.errno === 0 && pending.into !== null) {
      const filling = this.framer.fill(pending.into);
      if (filling !== undefined) await filling;
    }
    this.finish(handle, pending);
  }

  private finish(handle: bigint, pending: Pending): void {
    this.pending.delete(Number(handle));
    if (pending.errno === 0) return pending.resolve();
    const error = new Error(pending.words || errnoWords(pending.errno));
    pending.reject(Object.assign(error, { code: pending.errno === 28 ? 'ENOSPC' : 'EIO' }));
  }

  private async chunk(head: DataView): Promise<void> {
    const [flags, type, handle, length] = [head.getUint16(0), head.getUint16(2), head.getBigUint64(4), head.getUint32(12)];
    const pending = this.find(handle);
    if (length > MAX_TRANSFER + 8) throw new Error('the server sends a reply that is too long');
    if (type === CHUNK.data) await this.dataChunk(pending, length);
    else {
      const data = await this.framer.take(length);
      if (type === CHUNK.hole && length === 12) this.place(pending, Number(data.getBigUint64(0)), data.getUint32(8)).fill(0);
      else if (type === CHUNK.status && length >= 12) {
        for (let at = 4; at + 8 <= length; at += 8)
          pending.extents?.push({ length: data.getUint32(at), flags: data.getUint32(at + 4) });
      } else if ((type & 0x8000) !== 0 && length >= 6) {
        pending.errno ||= data.getUint32(0) || 5;
        const words = new Uint8Array(data.buffer).subarray(6, 6 + data.getUint16(4));
        pending.words ||= new TextDecoder().decode(words).replace(/[^ -~]/g, '?');
      } else if (type !== CHUNK.none) throw new Error('the server sends a reply of a kind that is not known');
    }
    if ((flags & CHUNK_DONE) !== 0) this.finish(handle, pending);
  }

  private async dataChunk(pending: Pending, length: number): Promise<void> {
    if (length < 8) throw new Error('the server sends a reply that is too short');
    const at = Number((await this.framer.take(8)).getBigUint64(0));
    const filling = this.framer.fill(this.place(pending, at, length - 8));
    if (filling !== undefined) await filling;
  }

  /** @throws Error where a server sends what was not asked for */
  private place(pending: Pending, at: number, length: number): Uint8Array {
    const from = at - pending.offset;
    if (pending.into === null || from < 0 || from + length > pending.into.length)
      throw new Error('the server sends data that nobody has asked for');
    return pending.into.subarray(from, from + length);
  }

  private fail(error: Error): void {
    if (this.broken !== null) return;
    this.broken = new Error(`the connection to the NBD server is gone: ${error.message}`);
    for (const { reject } of this.pending.values()) reject(this.broken);
    this.pending.clear();
    this.stream.close();
  }

  /** Longer requests than the server takes go in parts. */
  private parts(offset: number, bytes: Uint8Array, ask: (at: number, part: Uint8Array) => Promise<unknown>): Promise<void> {
    const { most } = this.facts;
    if (bytes.length <= most) return ask(offset, bytes) as Promise<void>;
    const asked: Promise<unknown>[] = [];
    for (let at = 0; at < bytes.length; at += most) asked.push(ask(offset + at, bytes.subarray(at, at + most)));
    return Promise.all(asked).then(() => undefined);
  }

  read(offset: number, into: Uint8Array): Completion {
    // A last sector that is not whole.
    const there = Math.max(0, Math.min(into.length, this.size - offset));
    into.fill(0, there);
    if (there === 0) return;
    return this.parts(offset, into.subarray(0, there), (at, part) =>
      this.request(COMMAND.read, 0, at, part.length, { into: part }),
    );
  }

  write(offset: number, from: Uint8Array): Completion {
    this.checkWritable();
    return this.parts(offset, from, (at, part) => this.request(COMMAND.write, 0, at, part.length, {}, part));
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    this.checkWritable();
    if (!this.has(TRANSMISSION.writeZeroes)) return writeZeroBytes(this, offset, length);
    return this.ranges(COMMAND.writeZeroes, mayUnmap ? 0 : COMMAND_FLAG.noHole, offset, length);
  }

  override discard(offset: number, length: number): Completion {
    if (!this.unmap || this.readOnly || !this.has(TRANSMISSION.trim)) return undefined;
    return this.ranges(COMMAND.trim, 0, offset, length);
  }

  private async ranges(type: number, flags: number, offset: number, length: number): Promise<void> {
    const most = 2 ** 30;
    for (let at = 0; at < length; at += most) await this.request(type, flags, offset + at, Math.min(most, length - at), {});
  }

  flush(): Completion {
    if (this.readOnly || !this.has(TRANSMISSION.flush)) return undefined;
    return this.request(COMMAND.flush, 0, 0, 0, {}).then(() => undefined);
  }

  override status(offset: number, length: number): Extent | Promise<Extent> {
    if (this.facts.context === null) return super.status(offset, length) as Extent;
    const want = Math.min(length, 2 ** 31);
    return this.request(COMMAND.blockStatus, COMMAND_FLAG.one, offset, want, { extents: [] }).then(({ extents }) => {
      const first = extents?.[0];
      if (first === undefined || first.length === 0) throw new Error('the server does not say what is there');
      const zero = (first.flags & ALLOCATION.zero) !== 0;
      const data = (first.flags & ALLOCATION.hole) === 0;
      return { length: Math.min(length, first.length), data: data || !zero, zero, allocated: true, offset, file: this };
    });
  }

  override info(): NodeInfo {
    return {};
  }

  override allocatedBytes(): null {
    return null;
  }

  close(): Completion {
    if (this.broken === null) {
      this.request(COMMAND.disconnect, 0, 0, 0, {}).catch(() => undefined);
      this.broken = new Error('the image is closed');
    }
    this.stream.close();
  }

  private checkWritable(): void {
    if (this.readOnly) throw new Error('the image is read-only');
  }
}

function addressOf({ type, host, port, path }: Values<typeof SERVER>): StreamAddress {
  if (type === 'unix') {
    if (path === null) throw new Error("Parameter 'server.path' is missing");
    return { path };
  }
  const number = Number(port ?? DEFAULT_PORT);
  if (!Number.isInteger(number) || number < 1 || number > 65535) throw new Error(`Parameter 'server.port' expects a port number`);
  return { host: host ?? 'localhost', port: number };
}

/** `nbd://host:port/export`, `nbd+unix:///export?socket=path`, and the older `nbd:…`. */
export function parseNbdName(name: string): Given {
  const old = /^nbd:(?!\/\/)(?:unix:([^:]+)|([^:]+):(\d+))(?::exportname=(.*))?$/.exec(name);
  if (old !== null) {
    const [, path, host, port, exported = ''] = old;
    return { server: path === undefined ? { type: 'inet', host, port } : { type: 'unix', path }, export: exported };
  }
  const uri = /^nbd(\+tcp|\+unix)?:\/\/([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/.exec(name);
  if (uri === null) throw new Error(`Invalid NBD name '${name}'`);
  const [, transport, authority = '', path = '', query = ''] = uri;
  const exported = decodeURIComponent(path);
  if (transport === '+unix') {
    const socket = new URLSearchParams(query).get('socket');
    if (socket === null) throw new Error(`Invalid NBD name '${name}': needs ?socket=`);
    return { server: { type: 'unix', path: socket }, export: exported };
  }
  const place = /^(\[[^\]]*\]|[^:]*)(?::(\d+))?$/.exec(authority);
  if (place === null) throw new Error(`Invalid NBD name '${name}'`);
  return {
    server: { type: 'inet', host: place[1]!.replace(/[[\]]/g, '') || 'localhost', port: place[2] ?? String(DEFAULT_PORT) },
    export: exported,
  };
}

async function connect(address: StreamAddress, patience: number): Promise<ByteStream> {
  const end = performance.now() + patience * 1000;
  for (;;) {
    try {
      return await connectStream(address);
    } catch (error) {
      const why = (error as Error).message;
      const where = 'path' in address ? address.path : `${address.host}:${address.port}`;
      if (performance.now() >= end)
        throw new Error(`Failed to connect to '${where}': ${why[0]?.toUpperCase() ?? ''}${why.slice(1)}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

export const nbdDriver = driver({
  name: 'nbd',
  protocol: true,
  options: OPTIONS,
  fromName: parseNbdName,
  open: async (values, { how }) => {
    const stream = await connect(addressOf(values.server), values['open-timeout']);
    const framer = new Framer(stream);
    try {
      const facts = await new Negotiation(stream, framer).run(values.export);
      const readOnly = (facts.flags & TRANSMISSION.readOnly) !== 0;
      if (readOnly && how.writable && !how.autoReadOnly) throw new Error('request on write denied without write permission');
      return new NbdNode(stream, framer, facts, !how.writable || readOnly);
    } catch (error) {
      stream.close();
      throw error;
    }
  },
});
