/** A server of 9P2000.L for one folder of the host's. Knows nothing of how messages reach it. */
import { FILE_TYPE, type FileStatus, type FileTree, type OpenFile, TreeError, type TreePath } from '../../../host/file-tree.ts';
import type { StateValue } from '../../../machine/interfaces.ts';
import type { StateFields } from '../../state.ts';
import { errorNumber } from './errors.ts';
import { type Qid, QID_SIZE, Reader, WireError, Writer } from './wire.ts';

/** Requests by number; the answer's is one more. */
const T = {
  statfs: 8,
  lopen: 12,
  lcreate: 14,
  symlink: 16,
  mknod: 18,
  rename: 20,
  readlink: 22,
  getattr: 24,
  setattr: 26,
  xattrwalk: 30,
  xattrcreate: 32,
  readdir: 40,
  fsync: 50,
  lock: 52,
  getlock: 54,
  link: 70,
  mkdir: 72,
  renameat: 74,
  unlinkat: 76,
  version: 100,
  attach: 104,
  flush: 108,
  walk: 110,
  read: 116,
  write: 118,
  clunk: 120,
  remove: 122,
} as const;
const R_LERROR = 7;
const VERSION = '9P2000.L';
/** Size 32, type 8, tag 16. */
export const HEADER = 7;
/** Of a read's answer and of a write's request before the data. */
export const READ_HEADER = HEADER + 4;
export const WRITE_HEADER = HEADER + 16;
const MIN_MESSAGE = 4096;
export const MAX_MESSAGE = 1 << 20;
/** What a guest may have going at a time. */
const MAX_FIDS = 65536;
const MAX_OPEN = 4096;

/** Flags of open, as Linux has them on every architecture. */
const OPEN = { access: 3, writeOnly: 1, readWrite: 2, exclusive: 0o200, truncate: 0o1000, append: 0o2000 } as const;
const REMOVE_DIRECTORY = 0x200;
const SET = { mode: 1, uid: 2, gid: 4, size: 8, atime: 0x10, mtime: 0x20, atimeSet: 0x80, mtimeSet: 0x100 } as const;
/** Everything but birth, generation and data version. */
const BASIC_ATTRIBUTES = 0x7ff;
const QID = { directory: 0x80, symlink: 0x02 } as const;
const UNLOCKED = 2;
const MAGIC = 0x01021997;
const NAME_MAX = 255;
const NS = 1_000_000_000n;

/** @param flags of the request that opened the file, as Linux has them */
type Fid = { path: TreePath; file: OpenFile | null; flags: number; entries: string[] | null };

type SavedFid = { number: number; path: string[]; open: boolean; flags: number; directory: boolean; entries: string[] };

function isSavedFid(value: StateValue): boolean {
  const isTexts = (list: unknown): boolean => Array.isArray(list) && list.every((item) => typeof item === 'string');
  const isWord = (number: unknown): boolean => typeof number === 'number' && number >>> 0 === number;
  const { number, path, open, flags, directory, entries } = value as { [name: string]: unknown };
  const switches = typeof open === 'boolean' && typeof directory === 'boolean';
  return isWord(number) && isWord(flags) && isTexts(path) && isTexts(entries) && switches;
}

/** Data that a request brings or an answer takes, in place. */
export interface P9Payload {
  /** @returns where the data of a read goes: at most so many bytes @param length what was asked for */
  room(length: number): Uint8Array;
  /** Data of a write. */
  readonly data: Uint8Array;
}

export class P9Server {
  private readonly tree: FileTree;
  private readonly now: () => bigint;
  private readonly fids = new Map<number, Fid>();
  private readonly out = new Writer();
  private open = 0;
  private messageSize = MIN_MESSAGE;

  /** @param now nanoseconds since 1970 */
  constructor(tree: FileTree, now: () => bigint) {
    this.tree = tree;
    this.now = now;
  }

  /** Everything that was going on is over. */
  reset(): void {
    for (const { file } of this.fids.values()) file?.close();
    this.fids.clear();
    this.open = 0;
    this.messageSize = MIN_MESSAGE;
  }

  /** @throws Error when a file is open that could not be opened again by its name */
  save(): StateFields {
    const fids = [...this.fids].map(([number, { path, file, flags, entries }]) => {
      if (file !== null && !this.isNamed(path, file)) {
        throw new Error(`"${path.join('/')}" is open and has that name no more, so that nobody could open it again`);
      }
      return { number, path: [...path], open: file !== null, flags, directory: entries !== null, entries: entries ?? [] };
    });
    return { messageSize: this.messageSize, fids };
  }

  private isNamed(path: TreePath, file: OpenFile): boolean {
    try {
      return this.tree.status(path).inode === file.status().inode;
    } catch {
      return false;
    }
  }

  /** Files are opened again by their names. @throws Error naming the field, or the file that cannot be opened */
  load(fields: StateFields): void {
    const { messageSize, fids } = fields;
    const inRange = typeof messageSize === 'number' && messageSize >= MIN_MESSAGE && messageSize <= MAX_MESSAGE;
    if (!inRange) throw new Error('field "messageSize" is not the size of a message');
    if (!Array.isArray(fids) || fids.length > MAX_FIDS || !fids.every(isSavedFid)) {
      throw new Error('field "fids" is not a list of fids');
    }
    this.reset();
    this.messageSize = messageSize;
    for (const { number, path, open, flags, directory, entries } of fids as unknown as SavedFid[]) {
      const checked = path.reduce((above: TreePath, name) => below(above, name), []);
      const fid: Fid = { path: checked, file: null, flags, entries: directory ? entries : null };
      if (open) fid.file = this.opened(() => this.reopened(checked, flags));
      this.fids.set(number, fid);
    }
  }

  private reopened(path: TreePath, flags: number): OpenFile {
    try {
      return this.tree.open(path, { ...flagsOf(flags), truncate: false });
    } catch (error) {
      throw new Error(`"${path.join('/')}", which the guest has open, cannot be opened again (${(error as Error).message})`);
    }
  }

  /**
   * @param message whole but for the data of a write
   * @returns the answer; a read's ends where its data begins, which is in the payload's room already
   * @throws WireError for what is no message
   */
  handle(message: Uint8Array, payload: P9Payload): Uint8Array {
    const reader = new Reader(message);
    reader.u32();
    const type = reader.u8();
    const tag = reader.u16();
    const out = this.out
      .clear()
      .u32(0)
      .u8(type + 1)
      .u16(tag);
    let extra = 0;
    try {
      extra = this.dispatch(type, reader, out, payload);
    } catch (error) {
      if (!(error instanceof TreeError)) throw error;
      out.clear().u32(0).u8(R_LERROR).u16(tag).u32(errorNumber(error.code));
    }
    return out.patch(0, out.length + extra).data;
  }

  /** @returns bytes of data behind the answer */
  private dispatch(type: number, r: Reader, out: Writer, payload: P9Payload): number {
    switch (type) {
      case T.version:
        return this.version(r, out);
      case T.attach:
        return this.attach(r, out);
      case T.walk:
        return this.walk(r, out);
      case T.statfs:
        return this.statfs(r, out);
      case T.lopen:
        return this.lopen(r, out);
      case T.lcreate:
        return this.lcreate(r, out);
      case T.getattr:
        return this.getattr(r, out);
      case T.setattr:
        return this.setattr(r);
      case T.readdir:
        return this.readdir(r, out);
      case T.read:
        return this.read(r, out, payload);
      case T.write:
        return this.write(r, out, payload);
      case T.clunk:
        return this.clunk(r.u32());
      case T.remove:
        return this.remove(r.u32());
      case T.fsync:
        return this.fsync(r);
      case T.lock:
        // One guest has the folder to itself as far as it can tell.
        this.fid(r.u32());
        out.u8(0);
        return 0;
      case T.getlock:
        return this.getlock(r, out);
      case T.flush:
        return 0;
      case T.xattrwalk:
      case T.xattrcreate:
        throw new TreeError('EOPNOTSUPP');
      default:
        return this.changeNames(type, r, out);
    }
  }

  private changeNames(type: number, r: Reader, out: Writer): number {
    switch (type) {
      case T.symlink:
        return this.symlink(r, out);
      case T.mknod:
        return this.mknod(r, out);
      case T.mkdir:
        return this.mkdir(r, out);
      case T.link:
        return this.link(r);
      case T.readlink:
        out.text(this.tree.readLink(this.fid(r.u32()).path));
        return 0;
      case T.rename: {
        const { path } = this.fid(r.u32());
        return this.move(path, below(this.fid(r.u32()).path, r.text()));
      }
      case T.renameat: {
        const from = below(this.fid(r.u32()).path, r.text());
        return this.move(from, below(this.fid(r.u32()).path, r.text()));
      }
      case T.unlinkat: {
        const path = below(this.fid(r.u32()).path, r.text());
        this.tree.remove(path, (r.u32() & REMOVE_DIRECTORY) !== 0);
        return 0;
      }
      default:
        throw new TreeError('EOPNOTSUPP');
    }
  }

  // --- Sessions and fids.

  private version(r: Reader, out: Writer): number {
    this.reset();
    const size = r.u32();
    const known = r.text() === VERSION && size >= MIN_MESSAGE;
    this.messageSize = Math.min(Math.max(size, MIN_MESSAGE), MAX_MESSAGE);
    out.u32(this.messageSize).text(known ? VERSION : 'unknown');
    return 0;
  }

  private attach(r: Reader, out: Writer): number {
    const fid = r.u32();
    this.setFid(fid, []);
    out.qid(qidOf(this.tree.status([])));
    return 0;
  }

  private walk(r: Reader, out: Writer): number {
    const from = this.fid(r.u32());
    const number = r.u32();
    const count = r.u16();
    let path = from.path;
    const qids: Qid[] = [];
    for (let i = 0; i < count; i++) {
      const name = r.text();
      const next = name === '..' ? path.slice(0, -1) : name === '.' ? path : below(path, name);
      try {
        qids.push(qidOf(this.tree.status(next)));
      } catch (error) {
        if (i === 0) throw error;
        break;
      }
      path = next;
    }
    // A walk that stops on its way leaves the new fid as it was.
    if (qids.length === count) this.setFid(number, path, from);
    out.u16(qids.length);
    for (const qid of qids) out.qid(qid);
    return 0;
  }

  private fid(number: number): Fid {
    const fid = this.fids.get(number);
    if (fid === undefined) throw new TreeError('EBADF');
    return fid;
  }

  /** @param old may be the fid of that number itself */
  private setFid(number: number, path: TreePath, old: Fid | null = null): void {
    const there = this.fids.get(number);
    if (there !== undefined && (there !== old || there.file !== null)) throw new TreeError('EINVAL');
    if (this.fids.size >= MAX_FIDS) throw new TreeError('ENFILE');
    this.fids.set(number, { path, file: null, flags: 0, entries: null });
  }

  private clunk(number: number): number {
    const fid = this.fid(number);
    this.fids.delete(number);
    if (fid.file !== null) {
      this.open--;
      fid.file.close();
    }
    return 0;
  }

  private remove(number: number): number {
    const { path } = this.fid(number);
    this.clunk(number);
    this.tree.remove(path, isDirectory(this.tree.status(path)));
    return 0;
  }

  // --- Files.

  private statfs(r: Reader, out: Writer): number {
    this.fid(r.u32());
    const { blockSize, blocks, free, available, files, filesFree } = this.tree.space();
    out.u32(MAGIC).u32(blockSize).u64(blocks).u64(free).u64(available).u64(files).u64(filesFree).u64(0).u32(NAME_MAX);
    return 0;
  }

  private lopen(r: Reader, out: Writer): number {
    const fid = this.fid(r.u32());
    const flags = r.u32();
    if (fid.file !== null || fid.entries !== null) throw new TreeError('EINVAL');
    const status = this.tree.status(fid.path);
    if (isDirectory(status)) fid.entries = this.tree.list(fid.path);
    else fid.file = this.opened(() => this.tree.open(fid.path, flagsOf(flags)));
    fid.flags = flags;
    out.qid(qidOf(status)).u32(this.unit);
    return 0;
  }

  private lcreate(r: Reader, out: Writer): number {
    const fid = this.fid(r.u32());
    const path = below(fid.path, r.text());
    const flags = r.u32();
    const mode = r.u32();
    if (fid.file !== null || fid.entries !== null) throw new TreeError('EINVAL');
    fid.file = this.opened(() => this.tree.create(path, flagsOf(flags), mode, (flags & OPEN.exclusive) !== 0));
    fid.path = path;
    fid.flags = flags;
    this.giveTo(path, r.u32());
    out.qid(qidOf(this.tree.status(path))).u32(this.unit);
    return 0;
  }

  private opened(open: () => OpenFile): OpenFile {
    if (this.open >= MAX_OPEN) throw new TreeError('EMFILE');
    const file = open();
    this.open++;
    return file;
  }

  /** Most that one read or write moves. */
  private get unit(): number {
    return this.messageSize - WRITE_HEADER - 1;
  }

  private read(r: Reader, out: Writer, payload: P9Payload): number {
    const { file } = this.fid(r.u32());
    const offset = r.size();
    const asked = r.u32();
    if (file === null) throw new TreeError('EBADF');
    const room = payload.room(Math.min(asked, this.messageSize - READ_HEADER));
    const count = file.read(offset, room);
    out.u32(count);
    return count;
  }

  private write(r: Reader, out: Writer, payload: P9Payload): number {
    const { file } = this.fid(r.u32());
    const offset = r.size();
    const count = r.u32();
    if (file === null) throw new TreeError('EBADF');
    if (count > payload.data.length) throw new TreeError('EINVAL');
    out.u32(file.write(offset, payload.data.subarray(0, count)));
    return 0;
  }

  private fsync(r: Reader): number {
    const { file } = this.fid(r.u32());
    file?.sync(r.u32() !== 0);
    return 0;
  }

  private getlock(r: Reader, out: Writer): number {
    this.fid(r.u32());
    r.u8();
    const [start, length] = [r.u64(), r.u64()];
    out.u8(UNLOCKED).u64(start).u64(length).u32(r.u32()).text(r.text());
    return 0;
  }

  // --- Attributes.

  private getattr(r: Reader, out: Writer): number {
    const { path, file } = this.fid(r.u32());
    // A file that is open may have no name any more.
    const status = file === null ? this.tree.status(path) : file.status();
    out.u64(BASIC_ATTRIBUTES).qid(qidOf(status)).u32(status.mode).u32(status.uid).u32(status.gid);
    out.u64(status.links).u64(status.rdev).u64(status.size).u64(status.blockSize).u64(status.blocks);
    for (const time of [status.accessed, status.modified, status.changed, 0n]) out.u64(time / NS).u64(time % NS);
    out.u64(0).u64(0);
    return 0;
  }

  private setattr(r: Reader): number {
    const { path, file } = this.fid(r.u32());
    const valid = r.u32();
    const mode = r.u32();
    const [uid, gid] = [r.u32(), r.u32()];
    const size = r.size();
    const [accessed, modified] = [timeOf(r), timeOf(r)];
    if ((valid & SET.mode) !== 0) this.tree.setMode(path, mode);
    if ((valid & (SET.atime | SET.mtime)) !== 0) this.setTimes(path, valid, accessed, modified);
    if ((valid & (SET.uid | SET.gid)) !== 0) {
      this.tree.setOwner(path, (valid & SET.uid) === 0 ? -1 : uid, (valid & SET.gid) === 0 ? -1 : gid);
    }
    if ((valid & SET.size) === 0) return 0;
    if (!Number.isSafeInteger(size)) throw new TreeError('EFBIG');
    if (file === null) this.tree.truncate(path, size);
    else file.truncate(size);
    return 0;
  }

  private setTimes(path: TreePath, valid: number, accessed: bigint, modified: bigint): void {
    const old = this.tree.status(path);
    const choose = (bit: number, setBit: number, given: bigint, kept: bigint): bigint =>
      (valid & bit) === 0 ? kept : (valid & setBit) === 0 ? this.now() : given;
    this.tree.setTimes(
      path,
      choose(SET.atime, SET.atimeSet, accessed, old.accessed),
      choose(SET.mtime, SET.mtimeSet, modified, old.modified),
    );
  }

  // --- Directories and names.

  private readdir(r: Reader, out: Writer): number {
    const fid = this.fid(r.u32());
    const offset = r.size();
    const count = Math.min(r.u32(), this.messageSize - READ_HEADER);
    if (fid.entries === null) throw new TreeError('EBADF');
    if (offset === 0) fid.entries = this.tree.list(fid.path);
    const at = out.length;
    out.u32(0);
    const start = out.length;
    const names = ['.', '..', ...fid.entries];
    for (let i = offset; i < names.length; i++) {
      const name = names[i]!;
      if (out.length - start + QID_SIZE + 8 + 1 + 2 + name.length > count) break;
      const status = this.statusOfEntry(fid.path, name);
      // What has gone since is left out.
      if (status !== null)
        out
          .qid(qidOf(status))
          .u64(i + 1)
          .u8((status.mode & FILE_TYPE.mask) >> 12)
          .text(name);
    }
    out.patch(at, out.length - start);
    return 0;
  }

  private statusOfEntry(path: TreePath, name: string): FileStatus | null {
    try {
      return this.tree.status(name === '.' ? path : name === '..' ? path.slice(0, -1) : below(path, name));
    } catch {
      return null;
    }
  }

  private symlink(r: Reader, out: Writer): number {
    const path = below(this.fid(r.u32()).path, r.text());
    this.tree.makeLink(path, r.text());
    return this.made(path, r.u32(), out);
  }

  private mknod(r: Reader, out: Writer): number {
    const path = below(this.fid(r.u32()).path, r.text());
    const mode = r.u32();
    const [major, minor] = [r.u32(), r.u32()];
    this.tree.makeNode(path, mode, ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0);
    return this.made(path, r.u32(), out);
  }

  private mkdir(r: Reader, out: Writer): number {
    const path = below(this.fid(r.u32()).path, r.text());
    this.tree.makeDirectory(path, r.u32());
    return this.made(path, r.u32(), out);
  }

  private made(path: TreePath, gid: number, out: Writer): number {
    this.giveTo(path, gid);
    out.qid(qidOf(this.tree.status(path)));
    return 0;
  }

  /** A new file's group; where the host does not grant it, it has its own. */
  private giveTo(path: TreePath, gid: number): void {
    try {
      this.tree.setOwner(path, -1, gid);
    } catch {
      // See above.
    }
  }

  private link(r: Reader): number {
    const folder = this.fid(r.u32()).path;
    const { path } = this.fid(r.u32());
    this.tree.link(path, below(folder, r.text()));
    return 0;
  }

  /** Fids that were in what has moved are there now. */
  private move(from: TreePath, to: TreePath): number {
    this.tree.rename(from, to);
    for (const fid of this.fids.values()) {
      if (from.every((name, i) => fid.path[i] === name)) fid.path = [...to, ...fid.path.slice(from.length)];
    }
    return 0;
  }
}

function below(path: TreePath, name: string): TreePath {
  if (name.length > NAME_MAX) throw new TreeError('ENAMETOOLONG');
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) throw new TreeError('EINVAL');
  return [...path, name];
}

function flagsOf(flags: number) {
  const access = flags & OPEN.access;
  return {
    read: access !== OPEN.writeOnly,
    write: access !== 0,
    append: (flags & OPEN.append) !== 0,
    truncate: (flags & OPEN.truncate) !== 0,
  };
}

const isDirectory = ({ mode }: FileStatus): boolean => (mode & FILE_TYPE.mask) === FILE_TYPE.directory;

function qidOf(status: FileStatus): Qid {
  const kind = status.mode & FILE_TYPE.mask;
  const type = kind === FILE_TYPE.directory ? QID.directory : kind === FILE_TYPE.symlink ? QID.symlink : 0;
  const version = Number((status.modified ^ (status.size << 8n)) & 0xffffffffn);
  return { type, version, path: status.inode };
}

const timeOf = (r: Reader): bigint => r.u64() * NS + r.u64();

export { WireError };
