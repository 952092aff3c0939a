/** Folders of the host's that guests are let into. */
import {
  chmodSync,
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  realpathSync,
  renameSync,
  rmdirSync,
  statfsSync,
  symlinkSync,
  unlinkSync,
  writeSync,
  type BigIntStats,
} from 'node:fs';
import {
  FILE_TYPE,
  type FileStatus,
  type FileTree,
  type OpenFile,
  type OpenFlags,
  type TreeAttributes,
  TreeError,
  type TreePath,
  type TreeSpace,
} from '../file-tree.ts';
import { getAttribute, hasAttributes, setAttribute } from './attributes.ts';
import { describeError } from './errors.ts';

const NS_PER_S = 1e9;

/**
 * @param readOnly nothing in it can be changed
 * @throws Error, one line, when there is no such folder
 */
export function openFileTree(path: string, readOnly: boolean): FileTree {
  let root: string;
  try {
    root = realpathSync(path, 'latin1');
    if (!lstatSync(bytes(root)).isDirectory()) throw new Error('not a directory');
  } catch (error) {
    throw new Error(describeError(error));
  }
  return new Folder(root === '/' ? '' : root, readOnly);
}

const bytes = (path: string): Buffer => Buffer.from(path, 'latin1');

/** Errors of the host's calls by their names. */
function attempt<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof TreeError) throw error;
    throw new TreeError((error as NodeJS.ErrnoException).code ?? 'EIO');
  }
}

class Folder implements FileTree {
  readonly attributes: TreeAttributes | null = hasAttributes()
    ? {
        get: (path, name, most) => getAttribute(this.place(path), name, most),
        set: (path, name, value) => setAttribute(this.changed(path), name, value),
      }
    : null;
  private readonly root: string;
  private readonly readOnly: boolean;

  constructor(root: string, readOnly: boolean) {
    this.root = root;
    this.readOnly = readOnly;
  }

  status(path: TreePath): FileStatus {
    return attempt(() => statusOf(lstatSync(this.place(path), { bigint: true })));
  }

  open(path: TreePath, flags: OpenFlags): OpenFile {
    const place = this.place(path);
    return attempt(() => {
      const kind = lstatSync(place).mode & FILE_TYPE.mask;
      if (kind === FILE_TYPE.symlink) throw new TreeError('ELOOP');
      // Pipes would hang, and devices are the host's alone.
      if (kind !== FILE_TYPE.regular && kind !== FILE_TYPE.directory) throw new TreeError('ENXIO');
      if (flags.write || flags.truncate) this.mayWrite();
      return new HostFile(openSync(place, hostFlags(flags)));
    });
  }

  create(path: TreePath, flags: OpenFlags, mode: number, exclusive: boolean): OpenFile {
    const place = this.changed(path);
    const create = constants.O_CREAT | (exclusive ? constants.O_EXCL : 0);
    return attempt(() => {
      const old = lstatSync(place, { throwIfNoEntry: false });
      if (old !== undefined && !old.isFile()) throw new TreeError(old.isDirectory() ? 'EISDIR' : 'EEXIST');
      const fd = openSync(place, hostFlags(flags) | create, mode & 0o7777);
      // The guest has applied its mask already.
      if (old === undefined) chmodSync(place, mode & 0o7777);
      return new HostFile(fd);
    });
  }

  list(path: TreePath): string[] {
    return attempt(() => readdirSync(this.place(path), 'latin1'));
  }

  makeDirectory(path: TreePath, mode: number): void {
    const place = this.changed(path);
    attempt(() => {
      mkdirSync(place, mode & 0o7777);
      chmodSync(place, mode & 0o7777);
    });
  }

  makeNode(path: TreePath, mode: number, _rdev: number): void {
    if ((mode & FILE_TYPE.mask) !== FILE_TYPE.regular) throw new TreeError('EPERM');
    this.create(path, { read: false, write: true, append: false, truncate: false }, mode, true).close();
  }

  makeLink(path: TreePath, target: string): void {
    const place = this.changed(path);
    attempt(() => symlinkSync(bytes(target), place));
  }

  readLink(path: TreePath): string {
    return attempt(() => readlinkSync(this.place(path), 'latin1'));
  }

  link(from: TreePath, to: TreePath): void {
    const place = this.changed(to);
    attempt(() => linkSync(this.place(from), place));
  }

  rename(from: TreePath, to: TreePath): void {
    const place = this.changed(to);
    attempt(() => renameSync(this.changed(from), place));
  }

  remove(path: TreePath, directory: boolean): void {
    const place = this.changed(path);
    attempt(() => (directory ? rmdirSync(place) : unlinkSync(place)));
  }

  setMode(path: TreePath, mode: number): void {
    const place = this.changed(path);
    attempt(() => {
      if (lstatSync(place).isSymbolicLink()) throw new TreeError('EOPNOTSUPP');
      chmodSync(place, mode & 0o7777);
    });
  }

  setOwner(path: TreePath, uid: number, gid: number): void {
    const place = this.changed(path);
    attempt(() => {
      const old = lstatSync(place);
      lchownSync(place, uid < 0 ? old.uid : uid, gid < 0 ? old.gid : gid);
    });
  }

  setTimes(path: TreePath, accessed: bigint, modified: bigint): void {
    const place = this.changed(path);
    attempt(() => lutimesSync(place, Number(accessed) / NS_PER_S, Number(modified) / NS_PER_S));
  }

  truncate(path: TreePath, size: number): void {
    const file = this.open(path, { read: false, write: true, append: false, truncate: false });
    try {
      file.truncate(size);
    } finally {
      file.close();
    }
  }

  space(): TreeSpace {
    return attempt(() => {
      const { bsize, blocks, bfree, bavail, files, ffree } = statfsSync(bytes(`${this.root}/`), { bigint: true });
      return { blockSize: Number(bsize), blocks, free: bfree, available: bavail, files, filesFree: ffree };
    });
  }

  private mayWrite(): void {
    if (this.readOnly) throw new TreeError('EROFS');
  }

  /** The place of something that is to be changed. */
  private changed(path: TreePath): Buffer {
    this.mayWrite();
    return this.place(path);
  }

  /** Where a path is on the host, whose last name may be a link that must not be followed. */
  private place(path: TreePath): Buffer {
    for (const name of path) {
      if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) throw new TreeError('EINVAL');
    }
    if (path.length === 0) return bytes(`${this.root}/`);
    const parent = [this.root, ...path.slice(0, -1)].join('/');
    // A guest may have put a link where there was a folder: then the real path is another one.
    if (path.length > 1 && attempt(() => realpathSync.native(bytes(parent), 'latin1')) !== parent) throw new TreeError('ELOOP');
    return bytes(`${parent}/${path.at(-1)!}`);
  }
}

function hostFlags({ read, write, append, truncate }: OpenFlags): number {
  const access = write ? (read ? constants.O_RDWR : constants.O_WRONLY) : constants.O_RDONLY;
  const more = (append ? constants.O_APPEND : 0) | (truncate ? constants.O_TRUNC : 0);
  return access | more | constants.O_NOFOLLOW | constants.O_NONBLOCK;
}

class HostFile implements OpenFile {
  private readonly fd: number;

  constructor(fd: number) {
    this.fd = fd;
  }

  read(offset: number, into: Uint8Array): number {
    return attempt(() => {
      let done = 0;
      while (done < into.length) {
        const count = readSync(this.fd, into, done, into.length - done, offset + done);
        if (count === 0) break;
        done += count;
      }
      return done;
    });
  }

  write(offset: number, from: Uint8Array): number {
    return attempt(() => {
      let done = 0;
      while (done < from.length) done += writeSync(this.fd, from, done, from.length - done, offset + done);
      return done;
    });
  }

  sync(dataOnly: boolean): void {
    attempt(() => (dataOnly ? fdatasyncSync(this.fd) : fsyncSync(this.fd)));
  }

  status(): FileStatus {
    return attempt(() => statusOf(fstatSync(this.fd, { bigint: true })));
  }

  truncate(size: number): void {
    attempt(() => ftruncateSync(this.fd, size));
  }

  close(): void {
    closeSync(this.fd);
  }
}

function statusOf(stats: BigIntStats): FileStatus {
  return {
    mode: Number(stats.mode),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    links: Number(stats.nlink),
    rdev: Number(stats.rdev),
    size: stats.size,
    blocks: stats.blocks,
    blockSize: Number(stats.blksize),
    inode: stats.ino,
    accessed: stats.atimeNs,
    modified: stats.mtimeNs,
    changed: stats.ctimeNs,
  };
}
