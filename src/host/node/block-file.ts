/** Files and block devices of the host that are read and written in place. */
import {
  closeSync,
  constants,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  read,
  readSync,
  readv,
  readvSync,
  statfsSync,
  statSync,
  unlinkSync,
  write,
  writeSync,
  writev,
  writevSync,
} from 'node:fs';
import { join } from 'node:path';
import type { BlockFile, BlockFileMode, FileExtent } from '../host.ts';
import { gather, giveBuffer, type Pieces, scatter, takeBuffer, viewsOf } from '../pieces.ts';
import { describeError } from './errors.ts';
import { type FileCalls, fileCalls } from './file-calls.ts';

const FALLOC_KEEP_SIZE = 1;
const FALLOC_PUNCH_HOLE = 2;
const FALLOC_ZERO_RANGE = 16;
/** Longest read for which the page cache is asked first: longer ones would hold the guest up for too long. */
const CACHED_MOST = 1 << 20;
/** The same where long reads are to be another thread's: less costs no more than waking one. */
const OVERLAP_MOST = 1 << 16;
/**
 * Writes up to this length are done in place where they are only copied into the host's page cache, which takes less than
 * waking a thread twice: in regular files of file systems that are the host's own (numbers of statfs(2)).
 */
const WRITTEN_IN_PLACE = 1 << 20;
const TMPFS = 0x01021994;
const OWN_FILE_SYSTEMS = [0xef53, 0x58465342, 0x9123683e, TMPFS];
/** A write that took this long (milliseconds) has waited for a disk: the next ones are left to threads, so many a millisecond. */
const SLOW_WRITE = 4;
const CAUTIOUS_WRITES = 8;
const SEEK_END = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
/** O_DIRECT wants memory, offsets and lengths in multiples of this; no disk of the day asks for more. */
const DIRECT_ALIGN = 4096;
const DIRECT_BOUNCE = 1 << 20;

/** Node.js takes 4 ms to make `performance` when it is first asked for: a tenth of converting a small image. */
function milliseconds(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e3 + nanoseconds / 1e6;
}

/** In the C library's words, which begin with a capital; the code says what has failed to programs. */
function one(error: unknown): Error {
  const words = describeError(error);
  return Object.assign(new Error(`${words[0]?.toUpperCase() ?? ''}${words.slice(1)}`), {
    code: (error as NodeJS.ErrnoException).code,
  });
}

type FileKind = {
  readonly size: number;
  readonly isDevice: boolean;
  readonly immediate: boolean;
  /** What is written goes to the host's memory first, and nobody waits for a disk or a server as a rule. */
  readonly buffered: boolean;
  /** All of it is in the host's memory, which such file systems cannot say when asked. */
  readonly inMemory: boolean;
  readonly overlap: boolean;
};

class NodeBlockFile implements BlockFile {
  immediate: boolean;
  size: number;
  readonly isDevice: boolean;
  private readonly fd: number;
  private readonly calls: FileCalls | null;
  private readonly inMemory: boolean;
  /** Longest read, in bytes, that is done in place where the data are in memory. */
  private readonly readInPlace: number;
  /** Writes that are left to threads before one is tried in place again; Infinity where none ever is. */
  private caution: number;
  /** Operations of other threads that have not ended: the descriptor must not become another file's meanwhile. */
  private underWay = 0;
  private idle: (() => void) | null = null;

  constructor(fd: number, { size, isDevice, immediate, buffered, inMemory, overlap }: FileKind, calls: FileCalls | null) {
    this.fd = fd;
    this.size = size;
    this.isDevice = isDevice;
    this.immediate = immediate;
    this.calls = calls;
    this.inMemory = inMemory;
    this.readInPlace = overlap ? OVERLAP_MOST : CACHED_MOST;
    this.caution = buffered ? 0 : Infinity;
  }

  read(offset: number, into: Uint8Array): number | Promise<number> {
    const short = into.length <= this.readInPlace;
    if (this.immediate || (short && this.inMemory)) {
      return this.now(into.length, true, (done) => readSync(this.fd, into, done, into.length - done, offset + done));
    }
    // What is in memory is there sooner than a thread that would fetch it.
    if (short && this.readCached(offset, into)) return into.length;
    return this.readRest(offset, into);
  }

  protected readCached(offset: number, into: Uint8Array): boolean {
    return this.calls !== null && this.calls.readCached(this.fd, into, offset) === into.length;
  }

  private readRest(offset: number, into: Uint8Array): Promise<number> {
    return this.repeat(into.length, true, (done, next) => read(this.fd, into, done, into.length - done, offset + done, next));
  }

  readPieces(offset: number, into: Pieces): number | Promise<number> {
    const short = into.total <= this.readInPlace;
    if (this.immediate || (short && this.inMemory)) {
      return this.now(into.total, true, (done) => readvSync(this.fd, viewsOf(into, done), offset + done));
    }
    if (short && this.readCachedPieces(offset, into)) return into.total;
    return this.repeat(into.total, true, (done, next) => readv(this.fd, viewsOf(into, done), offset + done, next));
  }

  protected readCachedPieces(offset: number, into: Pieces): boolean {
    return this.calls !== null && this.calls.readCachedPieces(this.fd, into, offset) === into.total;
  }

  /**
   * Has another thread do so much, in as many steps as it takes.
   * @param ends a step of nothing is the file's end  @returns bytes done
   */
  private repeat(
    total: number,
    ends: boolean,
    step: (done: number, next: (error: unknown, count: number) => void) => void,
  ): Promise<number> {
    this.underWay++;
    return new Promise((resolve, reject) => {
      let done = 0;
      const next = (error: unknown, count: number): void => {
        done += error ? 0 : count;
        if (!error && done < total && !(ends && count === 0)) return step(done, next);
        if (--this.underWay === 0) this.idle?.();
        if (error) reject(one(error));
        else resolve(done);
      };
      step(0, next);
    });
  }

  /** The same in place. */
  private now(total: number, ends: boolean, step: (done: number) => number): number {
    try {
      for (let done = 0; done < total; ) {
        const count = step(done);
        if (ends && count === 0) return done;
        done += count;
      }
    } catch (error) {
      throw one(error);
    }
    return total;
  }

  write(offset: number, from: Uint8Array): void | Promise<void> {
    const { fd } = this;
    const { length } = from;
    if (!this.inPlace(length)) {
      const writing = this.repeat(length, false, (done, next) => write(fd, from, done, length - done, offset + done, next));
      return writing.then(() => this.reaches(offset + length));
    }
    this.timed(() => this.now(length, false, (done) => writeSync(fd, from, done, length - done, offset + done)));
    this.reaches(offset + length);
  }

  writePieces(offset: number, from: Pieces): void | Promise<void> {
    const { fd } = this;
    const { total } = from;
    if (!this.inPlace(total)) {
      const writing = this.repeat(total, false, (done, next) => writev(fd, viewsOf(from, done), offset + done, next));
      return writing.then(() => this.reaches(offset + total));
    }
    this.timed(() => {
      // What goes wrong goes wrong again, with an error that says more.
      if (this.calls?.writePieces(fd, from, offset) === total) return;
      this.now(total, false, (done) => writevSync(fd, viewsOf(from, done), offset + done));
    });
    this.reaches(offset + total);
  }

  private inPlace(length: number): boolean {
    if (this.immediate) return true;
    if (this.caution > 0) this.caution--;
    return this.caution === 0 && length <= WRITTEN_IN_PLACE;
  }

  private timed(writing: () => void): void {
    const start = milliseconds();
    writing();
    const ms = milliseconds() - start;
    if (ms > SLOW_WRITE) this.caution = Math.max(this.caution, Math.ceil(ms * CAUTIOUS_WRITES));
  }

  private reaches(end: number): void {
    if (end > this.size) this.size = end;
  }

  sync(): void | Promise<void> {
    if (this.immediate) {
      try {
        return fdatasyncSync(this.fd);
      } catch (error) {
        throw one(error);
      }
    }
    this.underWay++;
    return new Promise((resolve, reject) =>
      fdatasync(this.fd, (error) => {
        if (--this.underWay === 0) this.idle?.();
        if (error) reject(one(error));
        else resolve();
      }),
    );
  }

  truncate(size: number): void {
    try {
      ftruncateSync(this.fd, size);
    } catch (error) {
      throw one(error);
    }
    this.size = size;
  }

  punchHole(offset: number, length: number): boolean {
    return this.fallocate(FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length);
  }

  zeroRange(offset: number, length: number): boolean {
    if (!this.fallocate(FALLOC_ZERO_RANGE, offset, length)) return false;
    this.size = Math.max(this.size, offset + length);
    return true;
  }

  allocate(offset: number, length: number): boolean {
    return this.fallocate(FALLOC_KEEP_SIZE, offset, length);
  }

  extent(offset: number): FileExtent {
    const { calls, fd, size } = this;
    if (calls === null || this.isDevice) return { data: true, end: size };
    const data = Number(calls.lseek(fd, BigInt(offset), SEEK_DATA));
    // ENXIO: nothing but a hole from here on; any other error: a file system without holes.
    if (data < 0) return calls.errno() === ENXIO ? { data: false, end: size } : { data: true, end: size };
    if (data > offset) return { data: false, end: data };
    const hole = Number(calls.lseek(fd, BigInt(offset), SEEK_HOLE));
    return { data: true, end: hole > offset ? hole : size };
  }

  allocatedBytes(): number {
    return fstatSync(this.fd).blocks * 512;
  }

  lock(held: number, unshared: number): { shared: boolean; bit: number } | null {
    return this.calls === null ? null : this.calls.lock(this.fd, held, unshared);
  }

  refresh(): void {
    if (!this.isDevice) this.size = fstatSync(this.fd).size;
  }

  close(): void | Promise<void> {
    if (this.underWay === 0) return closeSync(this.fd);
    return new Promise((resolve) => {
      this.idle = () => {
        closeSync(this.fd);
        resolve();
      };
    });
  }

  private fallocate(mode: number, offset: number, length: number): boolean {
    if (this.calls === null) return false;
    return this.calls.fallocate(this.fd, mode, BigInt(offset), BigInt(length)) === 0;
  }
}

const ENXIO = 6;

/** Transfers past the page cache: through aligned memory where the caller's is not. */
class DirectBlockFile extends NodeBlockFile {
  /** WebAssembly memory begins on a page. */
  private readonly bounces: Uint8Array[] = [];
  /** End of the last write of a part of a block: the next one must find what it wrote. */
  private last: Promise<void> = Promise.resolve();

  /** There is no cache to look into, and the disk would be waited for. */
  protected override readCached(): boolean {
    return false;
  }

  protected override readCachedPieces(): boolean {
    return false;
  }

  override readPieces(offset: number, into: Pieces): number | Promise<number> {
    if (allAligned(offset, into)) return super.readPieces(offset, into);
    const whole = takeBuffer(into.total);
    const finish = (count: number): number => {
      scatter(whole, into);
      giveBuffer(whole);
      return count;
    };
    const reading = this.read(offset, whole);
    return typeof reading === 'number' ? finish(reading) : reading.then(finish);
  }

  override writePieces(offset: number, from: Pieces): void | Promise<void> {
    if (allAligned(offset, from)) return super.writePieces(offset, from);
    const whole = takeBuffer(from.total);
    gather(from, whole);
    const writing = this.write(offset, whole);
    if (writing === undefined) giveBuffer(whole);
    else return writing.then(() => giveBuffer(whole));
  }

  override read(offset: number, into: Uint8Array): number | Promise<number> {
    if (aligned(offset, into)) return super.read(offset, into);
    const start = offset - (offset % DIRECT_ALIGN);
    const length = Math.min(DIRECT_BOUNCE, roundUp(offset + into.length) - start);
    const bounce = this.take();
    const usable = start + length - offset;
    const finish = (count: number): number | Promise<number> => {
      const got = Math.max(0, Math.min(into.length, start + count - offset));
      into.set(bounce.subarray(offset - start, offset - start + got));
      this.bounces.push(bounce);
      if (got === into.length || got < Math.min(usable, into.length)) return got;
      const rest = this.read(offset + got, into.subarray(got));
      return typeof rest === 'number' ? got + rest : rest.then((more) => got + more);
    };
    const reading = super.read(start, bounce.subarray(0, length));
    return typeof reading === 'number' ? finish(reading) : reading.then(finish);
  }

  override write(offset: number, from: Uint8Array): void | Promise<void> {
    if (aligned(offset, from)) return super.write(offset, from);
    if (this.immediate) return this.writeParts(offset, from);
    const writing = this.last.then(() => this.writeParts(offset, from));
    this.last = writing.catch(() => undefined);
    return writing;
  }

  /** The rest of the first and last block is read first. */
  private writeParts(offset: number, from: Uint8Array): void | Promise<void> {
    const start = offset - (offset % DIRECT_ALIGN);
    const length = Math.min(DIRECT_BOUNCE, roundUp(offset + from.length) - start);
    const part = from.subarray(0, Math.min(from.length, start + length - offset));
    const bounce = this.take().fill(0);
    const sizeAfter = Math.max(this.size, offset + part.length);
    const finish = (): void | Promise<void> => {
      this.bounces.push(bounce);
      // Whole blocks are written: a file that ends within one keeps its length.
      if (this.size > sizeAfter && !this.isDevice) this.truncate(sizeAfter);
      if (part.length < from.length) return this.writeParts(offset + part.length, from.subarray(part.length));
      return undefined;
    };
    const put = (): void | Promise<void> => {
      bounce.set(part, offset - start);
      const writing = super.write(start, bounce.subarray(0, length));
      return writing === undefined ? finish() : writing.then(finish);
    };
    const reading = super.read(start, bounce.subarray(0, length));
    return typeof reading === 'number' ? put() : reading.then(put);
  }

  private take(): Uint8Array {
    return this.bounces.pop() ?? new Uint8Array(new WebAssembly.Memory({ initial: DIRECT_BOUNCE / 65536 }).buffer);
  }
}

const roundUp = (value: number): number => Math.ceil(value / DIRECT_ALIGN) * DIRECT_ALIGN;

/** Only WebAssembly memory, which is a guest's, is known to begin on a page: it is a whole number of 64 KiB. */
function aligned(offset: number, bytes: Uint8Array): boolean {
  const { buffer, byteOffset, length } = bytes;
  if (offset % DIRECT_ALIGN !== 0 || length % DIRECT_ALIGN !== 0 || byteOffset % DIRECT_ALIGN !== 0) return false;
  return buffer instanceof SharedArrayBuffer && buffer.byteLength % 65536 === 0 && buffer.byteLength >= 1 << 20;
}

function allAligned(offset: number, { memory, offsets, lengths, count }: Pieces): boolean {
  if (!aligned(offset, memory)) return false;
  let bits = 0;
  for (let i = 0; i < count; i++) bits |= (offsets[i]! | lengths[i]!) & (DIRECT_ALIGN - 1);
  return bits === 0;
}

/** @throws Error, one line, when the file cannot be had that way */
export async function openBlockFile(path: string, mode: BlockFileMode): Promise<BlockFile> {
  let fd: number;
  const access = mode.writable ? constants.O_RDWR : constants.O_RDONLY;
  const extra = (mode.create ? constants.O_CREAT : 0) | (mode.direct ? constants.O_DIRECT : 0);
  try {
    fd = openSync(path, access | extra, 0o644);
  } catch (error) {
    throw one(error);
  }
  try {
    const status = fstatSync(fd);
    if (!status.isFile() && !status.isBlockDevice()) throw new Error('not a regular file or block device');
    const calls = await fileCalls();
    const isDevice = status.isBlockDevice();
    const size = isDevice ? deviceSize(fd, calls) : status.size;
    const Kind = mode.direct ? DirectBlockFile : NodeBlockFile;
    const system = mode.direct || isDevice ? null : statfsSync(path).type;
    const buffered = system !== null && OWN_FILE_SYSTEMS.includes(system);
    return new Kind(fd, { ...mode, size, isDevice, buffered, inMemory: system === TMPFS }, calls);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * A file that has no name, and is gone when it is closed.
 * @throws Error, one line, where there is no room for one
 */
export async function openTemporaryFile(immediate: boolean): Promise<BlockFile> {
  const path = join(process.env['TMPDIR'] ?? '/var/tmp', `virelay-${crypto.randomUUID()}`);
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    unlinkSync(path);
  } catch (error) {
    throw one(error);
  }
  const kind = { size: 0, isDevice: false, immediate, buffered: false, inMemory: false, overlap: false };
  return new NodeBlockFile(fd, kind, await fileCalls());
}

function deviceSize(fd: number, calls: FileCalls | null): number {
  const size = calls === null ? -1 : Number(calls.lseek(fd, 0n, SEEK_END));
  if (size < 0) throw new Error('the size of the device is not known');
  return size;
}

export function isBlockDevice(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isBlockDevice() ?? false;
}
