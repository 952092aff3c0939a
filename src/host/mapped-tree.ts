/** Owners, permissions and special files that the host need not grant: they are kept apart, and the guest sees them. */
import {
  FILE_TYPE,
  type FileStatus,
  type FileTree,
  type OpenFile,
  type OpenFlags,
  TreeError,
  type TreePath,
  type TreeSpace,
} from './file-tree.ts';

/** What the real ones have. */
export const FOLDER_MODE = 0o700;
export const FILE_MODE = 0o600;
const LARGEST_LINK = 4096;

/** What is kept of a file. */
export type Mapped = { uid?: number; gid?: number; mode?: number; rdev?: number };
export const MAPPED_KEYS = ['uid', 'gid', 'mode', 'rdev'] as const;

/** Where it is kept. */
export interface MappedStore {
  load(path: TreePath): Mapped;
  save(path: TreePath, mapped: Mapped): void;
  /** The file is gone, or has another name. */
  forget(path: TreePath): void;
  /** A directory that is empty for the guest is about to be removed. */
  clear(path: TreePath): void;
  /** A name is the store's own, and is not there for guests. */
  hides(name: string): boolean;
}

const READ: OpenFlags = { read: true, write: false, append: false, truncate: false };
const REPLACE: OpenFlags = { read: false, write: true, append: false, truncate: true };

const latin1 = (data: Uint8Array): string => String.fromCharCode(...data);
const fromLatin1 = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0));

export class MappedTree implements FileTree {
  /** What the host's files have is not the guest's. */
  readonly attributes = null;
  private readonly base: FileTree;
  private readonly store: MappedStore;

  constructor(base: FileTree, store: MappedStore) {
    this.base = base;
    this.store = store;
  }

  status(path: TreePath): FileStatus {
    this.check(path);
    return withMapped(this.base.status(path), this.store.load(path));
  }

  open(path: TreePath, flags: OpenFlags): OpenFile {
    this.check(path);
    const kind = this.status(path).mode & FILE_TYPE.mask;
    if (kind === FILE_TYPE.symlink) throw new TreeError('ELOOP');
    if (kind !== FILE_TYPE.regular && kind !== FILE_TYPE.directory) throw new TreeError('ENXIO');
    return this.mappedFile(this.base.open(path, flags), path);
  }

  create(path: TreePath, flags: OpenFlags, mode: number, exclusive: boolean): OpenFile {
    this.check(path);
    const file = this.base.create(path, flags, FILE_MODE, exclusive);
    this.change(path, { mode: FILE_TYPE.regular | (mode & 0o7777) });
    return this.mappedFile(file, path);
  }

  list(path: TreePath): string[] {
    this.check(path);
    return this.base.list(path).filter((name) => !this.store.hides(name));
  }

  makeDirectory(path: TreePath, mode: number): void {
    this.check(path);
    this.base.makeDirectory(path, FOLDER_MODE);
    this.change(path, { mode: FILE_TYPE.directory | (mode & 0o7777) });
  }

  makeNode(path: TreePath, mode: number, rdev: number): void {
    this.put(path, new Uint8Array(0));
    this.change(path, { mode, rdev });
  }

  makeLink(path: TreePath, target: string): void {
    this.put(path, fromLatin1(target));
    this.change(path, { mode: FILE_TYPE.symlink | 0o777 });
  }

  readLink(path: TreePath): string {
    this.check(path);
    const { mode, size } = this.status(path);
    if ((mode & FILE_TYPE.mask) !== FILE_TYPE.symlink) throw new TreeError('EINVAL');
    return latin1(this.read(path, Number(size)));
  }

  link(from: TreePath, to: TreePath): void {
    this.check(from);
    this.check(to);
    this.base.link(from, to);
    this.store.save(to, this.store.load(from));
  }

  rename(from: TreePath, to: TreePath): void {
    this.check(from);
    this.check(to);
    const mapped = this.store.load(from);
    this.base.rename(from, to);
    this.store.forget(from);
    this.store.save(to, mapped);
  }

  remove(path: TreePath, directory: boolean): void {
    this.check(path);
    if (directory) {
      if (this.list(path).length > 0) throw new TreeError('ENOTEMPTY');
      this.store.clear(path);
    }
    this.base.remove(path, directory);
    this.store.forget(path);
  }

  setMode(path: TreePath, mode: number): void {
    const kind = this.status(path).mode & FILE_TYPE.mask;
    this.change(path, { mode: kind | (mode & 0o7777) });
  }

  setOwner(path: TreePath, uid: number, gid: number): void {
    this.check(path);
    this.change(path, { ...(uid < 0 ? {} : { uid }), ...(gid < 0 ? {} : { gid }) });
  }

  setTimes(path: TreePath, accessed: bigint, modified: bigint): void {
    this.check(path);
    this.base.setTimes(path, accessed, modified);
  }

  truncate(path: TreePath, size: number): void {
    this.check(path);
    this.base.truncate(path, size);
  }

  space(): TreeSpace {
    return this.base.space();
  }

  /** The store's own files are not there for guests. */
  private check(path: TreePath): void {
    if (path.some((name) => this.store.hides(name))) throw new TreeError('EINVAL');
  }

  private mappedFile(file: OpenFile, path: TreePath): OpenFile {
    return {
      read: (offset, into) => file.read(offset, into),
      write: (offset, from) => file.write(offset, from),
      sync: (dataOnly) => file.sync(dataOnly),
      status: () => withMapped(file.status(), this.store.load(path)),
      truncate: (size) => file.truncate(size),
      close: () => file.close(),
    };
  }

  private put(path: TreePath, data: Uint8Array): void {
    this.check(path);
    const file = this.base.create(path, REPLACE, FILE_MODE, true);
    file.write(0, data);
    file.close();
  }

  private read(path: TreePath, size: number): Uint8Array {
    const file = this.base.open(path, READ);
    try {
      const data = new Uint8Array(Math.min(size, LARGEST_LINK));
      return data.subarray(0, file.read(0, data));
    } finally {
      file.close();
    }
  }

  private change(path: TreePath, more: Mapped): void {
    this.store.save(path, { ...this.store.load(path), ...more });
  }
}

function withMapped(status: FileStatus, { uid, gid, mode, rdev }: Mapped): FileStatus {
  return {
    ...status,
    uid: uid ?? status.uid,
    gid: gid ?? status.gid,
    mode: mode ?? status.mode,
    rdev: rdev ?? status.rdev,
  };
}
