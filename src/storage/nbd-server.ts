/** An NBD server: exports a node to clients, each with many requests at a time. */
import type { ByteStream } from '../host/host.ts';
import { chainStatus } from './chain.ts';
import {
  ALLOCATION,
  BASE_ALLOCATION,
  bytesOf,
  CHUNK,
  CHUNK_DONE,
  COMMAND,
  COMMAND_FLAG,
  ERRNO,
  Framer,
  HANDSHAKE,
  INFO,
  MAX_NAME,
  MAX_TRANSFER,
  NBD_MAGIC,
  OPTION,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  REPLY,
  REPLY_ERROR,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  SIMPLE_MAGIC,
  STRUCTURED_MAGIC,
  TRANSMISSION,
} from './nbd-protocol.ts';
import type { BlockNode } from './node.ts';

export interface NbdExport {
  readonly name: string;
  readonly description: string;
  readonly node: BlockNode;
  readonly readOnly: boolean;
  /** Several clients may work on it, which see what each has flushed. */
  readonly multiConn: boolean;
}

/** Bytes of requests that one client may have under way; more has to wait in its socket. */
const MAX_UNDER_WAY = 2 * MAX_TRANSFER;
const MAX_EXTENTS = 2048;
const CONTEXT_ID = 1;

type Request = { flags: number; type: number; handle: bigint; offset: number; length: number };

class Client {
  private readonly stream: ByteStream;
  private readonly framer: Framer;
  private readonly exports: readonly NbdExport[];
  private structured = false;
  private context = false;
  private underWay = 0;
  private room: (() => void) | null = null;

  constructor(stream: ByteStream, exports: readonly NbdExport[]) {
    this.stream = stream;
    this.framer = new Framer(stream);
    this.exports = exports;
  }

  async run(): Promise<void> {
    try {
      const chosen = await this.negotiate();
      if (chosen !== null) await this.transmit(chosen);
    } finally {
      this.stream.close();
    }
  }

  private async negotiate(): Promise<NbdExport | null> {
    this.stream.write(
      bytesOf(18, (view) => {
        view.setBigUint64(0, NBD_MAGIC);
        view.setBigUint64(8, OPTION_MAGIC);
        view.setUint16(16, HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes);
      }),
    );
    const flags = (await this.framer.take(4)).getUint32(0);
    if ((flags & ~(HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes)) !== 0) throw new Error('the client asks for what is not known');
    for (;;) {
      const head = await this.framer.take(16);
      if (head.getBigUint64(0) !== OPTION_MAGIC) throw new Error('the client does not speak NBD');
      const [option, length] = [head.getUint32(8), head.getUint32(12)];
      if (length > 8 * MAX_NAME) throw new Error('the client sends an option that is too long');
      const data = await this.framer.take(length);
      if (option === OPTION.exportName) return this.oldExport(data, (flags & HANDSHAKE.noZeroes) !== 0);
      if (option === OPTION.abort) {
        this.reply(option, REPLY.ack);
        return null;
      }
      const chosen = this.answer(option, data);
      if (chosen !== null) return chosen;
    }
  }

  private reply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): void {
    const head = bytesOf(20, (view) => {
      view.setBigUint64(0, OPTION_REPLY_MAGIC);
      view.setUint32(8, option);
      view.setUint32(12, type);
      view.setUint32(16, data.length);
    });
    this.stream.write(head, data);
  }

  /** @returns the export when the client begins to use it */
  private answer(option: number, data: DataView): NbdExport | null {
    switch (option) {
      case OPTION.list:
        for (const one of this.exports) this.reply(option, REPLY.server, listEntry(one));
        this.reply(option, REPLY.ack);
        return null;
      case OPTION.structuredReply:
        this.structured = true;
        this.reply(option, REPLY.ack);
        return null;
      case OPTION.listMetaContext:
      case OPTION.setMetaContext:
        this.metaContext(option, data);
        return null;
      case OPTION.info:
      case OPTION.go:
        return this.info(option, data);
      default:
        this.reply(option, REPLY_ERROR.unsupported);
        return null;
    }
  }

  private named(data: DataView): NbdExport | null {
    const length = data.byteLength >= 4 ? data.getUint32(0) : MAX_NAME + 1;
    if (length > MAX_NAME || 4 + length > data.byteLength) return null;
    const name = new TextDecoder().decode(new Uint8Array(data.buffer, 4, length));
    return this.exports.find((one) => one.name === name) ?? null;
  }

  private info(option: number, data: DataView): NbdExport | null {
    const found = this.named(data);
    if (found === null) {
      this.reply(option, REPLY_ERROR.unknown, new TextEncoder().encode('export not present'));
      return null;
    }
    const size = bytesOf(12, (view) => {
      view.setUint16(0, INFO.export);
      view.setBigUint64(2, BigInt(found.node.size));
      view.setUint16(10, this.flagsOf(found));
    });
    const blocks = bytesOf(14, (view) => {
      view.setUint16(0, INFO.blockSize);
      view.setUint32(2, 1);
      view.setUint32(6, 4096);
      view.setUint32(10, MAX_TRANSFER);
    });
    if (found.description !== '') {
      const words = new TextEncoder().encode(found.description);
      const description = new Uint8Array(2 + words.length);
      description.set([0, INFO.description]);
      description.set(words, 2);
      this.reply(option, REPLY.info, description);
    }
    this.reply(option, REPLY.info, blocks);
    this.reply(option, REPLY.info, size);
    this.reply(option, REPLY.ack);
    return option === OPTION.go ? found : null;
  }

  private flagsOf({ readOnly, multiConn }: NbdExport): number {
    const base = TRANSMISSION.hasFlags | TRANSMISSION.flush | TRANSMISSION.fua | TRANSMISSION.cache;
    const some = readOnly ? TRANSMISSION.readOnly : TRANSMISSION.trim | TRANSMISSION.writeZeroes;
    return base | some | (multiConn || readOnly ? TRANSMISSION.multiConn : 0) | (this.structured ? TRANSMISSION.df : 0);
  }

  private oldExport(data: DataView, noZeroes: boolean): NbdExport {
    const name = new TextDecoder().decode(data);
    const found = this.exports.find((one) => one.name === name);
    if (found === undefined) throw new Error(`the client asks for export '${name}', which there is not`);
    const answer = bytesOf(noZeroes ? 10 : 134, (view) => {
      view.setBigUint64(0, BigInt(found.node.size));
      view.setUint16(8, this.flagsOf(found));
    });
    this.stream.write(answer);
    return found;
  }

  private metaContext(option: number, data: DataView): void {
    const found = this.named(data);
    const start = found === null ? 0 : 4 + data.getUint32(0);
    if (!this.structured || found === null || start + 4 > data.byteLength) return this.reply(option, REPLY_ERROR.invalid);
    const queries: string[] = [];
    for (let at = start + 4, i = 0; i < data.getUint32(start); i++) {
      if (at + 4 > data.byteLength || at + 4 + data.getUint32(at) > data.byteLength)
        return this.reply(option, REPLY_ERROR.invalid);
      queries.push(new TextDecoder().decode(new Uint8Array(data.buffer, at + 4, data.getUint32(at))));
      at += 4 + data.getUint32(at);
    }
    const list = option === OPTION.listMetaContext;
    const wanted = queries.includes(BASE_ALLOCATION) || (list && (queries.length === 0 || queries.includes('base:')));
    if (!list) this.context = wanted;
    if (wanted) {
      const name = new TextEncoder().encode(BASE_ALLOCATION);
      const reply = new Uint8Array(4 + name.length);
      new DataView(reply.buffer).setUint32(0, CONTEXT_ID);
      reply.set(name, 4);
      this.reply(option, REPLY.metaContext, reply);
    }
    this.reply(option, REPLY.ack);
  }

  /** Requests begin as they come and end as they end. */
  private async transmit(chosen: NbdExport): Promise<void> {
    const running = new Set<Promise<void>>();
    for (;;) {
      let head: DataView;
      try {
        head = await this.framer.take(REQUEST_BYTES);
      } catch {
        break;
      }
      if (head.getUint32(0) !== REQUEST_MAGIC) break;
      const request: Request = {
        flags: head.getUint16(4),
        type: head.getUint16(6),
        handle: head.getBigUint64(8),
        offset: Number(head.getBigUint64(16)),
        length: head.getUint32(24),
      };
      if (request.type === COMMAND.disconnect) break;
      const carries = request.type === COMMAND.read || request.type === COMMAND.write;
      if (carries && request.length > MAX_TRANSFER) break;
      const bytes = carries ? request.length : 0;
      while (this.underWay > 0 && this.underWay + bytes > MAX_UNDER_WAY)
        await new Promise<void>((resolve) => (this.room = resolve));
      const data = new Uint8Array(bytes);
      if (request.type === COMMAND.write) {
        const filling = this.framer.fill(data);
        if (filling !== undefined) await filling;
      }
      this.underWay += bytes;
      const job = this.serve(chosen, request, data).finally(() => {
        this.underWay -= bytes;
        running.delete(job);
        this.room?.();
        this.room = null;
      });
      running.add(job);
    }
    await Promise.allSettled(running);
    if (!chosen.readOnly) await chosen.node.flush();
  }

  private async serve({ node, readOnly }: NbdExport, request: Request, data: Uint8Array): Promise<void> {
    const { type, offset, length, flags } = request;
    try {
      if (offset + length > node.size)
        return this.refuse(request, type === COMMAND.write ? ERRNO.noSpace : ERRNO.invalid, 'beyond the end');
      switch (type) {
        case COMMAND.read:
          await node.read(offset, data);
          return await this.sendData(request, data);
        case COMMAND.write:
          if (readOnly) return this.refuse(request, ERRNO.perm, 'the export is read-only');
          await node.write(offset, data);
          break;
        case COMMAND.writeZeroes:
          if (readOnly) return this.refuse(request, ERRNO.perm, 'the export is read-only');
          await node.writeZeroes(offset, length, (flags & COMMAND_FLAG.noHole) === 0);
          break;
        case COMMAND.trim:
          if (readOnly) return this.refuse(request, ERRNO.perm, 'the export is read-only');
          await node.discard(offset, length);
          break;
        case COMMAND.flush:
          if (!readOnly) await node.flush();
          break;
        case COMMAND.cache:
          break;
        case COMMAND.blockStatus:
          if (!this.context || length === 0) return this.refuse(request, ERRNO.invalid, 'no metadata context was chosen');
          return await this.sendStatus(node, request);
        default:
          return this.refuse(request, ERRNO.invalid, 'the command is not known');
      }
      if ((flags & COMMAND_FLAG.fua) !== 0 && !readOnly) await node.flush();
      this.done(request);
    } catch (error) {
      this.refuse(request, (error as { code?: string }).code === 'ENOSPC' ? ERRNO.noSpace : ERRNO.io, (error as Error).message);
    }
  }

  private chunk({ handle }: Request, flags: number, type: number, length: number): Uint8Array {
    return bytesOf(20, (view) => {
      view.setUint32(0, STRUCTURED_MAGIC);
      view.setUint16(4, flags);
      view.setUint16(6, type);
      view.setBigUint64(8, handle);
      view.setUint32(16, length);
    });
  }

  private simple({ handle }: Request, errno: number): Uint8Array {
    return bytesOf(16, (view) => {
      view.setUint32(0, SIMPLE_MAGIC);
      view.setUint32(4, errno);
      view.setBigUint64(8, handle);
    });
  }

  private done(request: Request): void {
    this.stream.write(this.structured ? this.chunk(request, CHUNK_DONE, CHUNK.none, 0) : this.simple(request, 0));
  }

  private refuse(request: Request, errno: number, words: string): void {
    if (!this.structured) {
      this.stream.write(this.simple(request, errno));
      return;
    }
    const text = new TextEncoder().encode(words).subarray(0, MAX_NAME);
    const body = bytesOf(6, (view) => {
      view.setUint32(0, errno);
      view.setUint16(4, text.length);
    });
    this.stream.write(this.chunk(request, CHUNK_DONE, CHUNK.error, 6 + text.length), body, text);
  }

  private async sendData(request: Request, data: Uint8Array): Promise<void> {
    if (!this.structured) return this.stream.write(this.simple(request, 0), data);
    const at = bytesOf(8, (view) => view.setBigUint64(0, BigInt(request.offset)));
    await this.stream.write(this.chunk(request, CHUNK_DONE, CHUNK.data, 8 + data.length), at, data);
  }

  private async sendStatus(node: BlockNode, request: Request): Promise<void> {
    const found: { length: number; flags: number }[] = [];
    const end = request.offset + request.length;
    const most = (request.flags & COMMAND_FLAG.one) !== 0 ? 1 : MAX_EXTENTS;
    for (let at = request.offset; at < end && found.length <= most; ) {
      const extent = await chainStatus(node, at, end - at, null, true);
      const flags = (extent.data ? 0 : ALLOCATION.hole) | (extent.zero ? ALLOCATION.zero : 0);
      const last = found.at(-1);
      if (last?.flags === flags) last.length += extent.length;
      else if (found.length === most) break;
      else found.push({ length: extent.length, flags });
      at += extent.length;
    }
    const body = bytesOf(4 + 8 * found.length, (view) => {
      view.setUint32(0, CONTEXT_ID);
      found.forEach(({ length, flags }, i) => {
        view.setUint32(4 + 8 * i, length);
        view.setUint32(8 + 8 * i, flags);
      });
    });
    this.stream.write(this.chunk(request, CHUNK_DONE, CHUNK.status, body.length), body);
  }
}

function listEntry({ name, description }: NbdExport): Uint8Array {
  const [title, words] = [new TextEncoder().encode(name), new TextEncoder().encode(description)];
  const bytes = new Uint8Array(4 + title.length + words.length);
  new DataView(bytes.buffer).setUint32(0, title.length);
  bytes.set(title, 4);
  bytes.set(words, 4 + title.length);
  return bytes;
}

/** Serves one client until it is gone. @throws Error where it does not keep to the protocol */
export function serveNbd(stream: ByteStream, exports: readonly NbdExport[]): Promise<void> {
  return new Client(stream, exports).run();
}
