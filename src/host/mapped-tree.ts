/**
 * Owners, permissions and special files that the host need not grant: kept in files beside the real ones, as
 * QEMU's `security_model=mapped-file` has them. `.virtfs_metadata/NAME` has lines like `virtfs.uid=0`.
 */
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

const FOLDER = '.virtfs_metadata';
/** Of the folder itself, whose own place for such files lies outside. */
const ROOT_NAME = '.virtfs_metadata_root';
const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;
const LARGEST = 4096;

type Mapped = { uid?: number; gid?: number; mode?: number; rdev?: number };
const KEYS = ['uid', 'gid', 'mode', 'rdev'] as const;

const READ: OpenFlags = { read: true, write: false, append: false, truncate: false };
const REPLACE: OpenFlags = { read: false, write: true, append: false, truncate: true };

const latin1 = (data: Uint8Array): string => String.fromCharCode(...data);
const fromLatin1 = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0));

export class MappedTree implements FileTree {
  private readonly base: FileTree;

  constructor(base: FileTree) {
    this.base = base;
  }

  status(path: TreePath): FileStatus {
    this.check(path);
    return withMapped(this.base.status(path), this.load(path));
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
    return this.base.list(path).filter((name) => !isOurs(name));
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
    this.save(to, this.load(from));
  }

  rename(from: TreePath, to: TreePath): void {
    this.check(from);
    this.check(to);
    const mapped = this.load(from);
    this.base.rename(from, to);
    this.forget(from);
    this.save(to, mapped);
  }

  remove(path: TreePath, directory: boolean): void {
    this.check(path);
    if (directory) this.removeFolder(path);
    this.base.remove(path, directory);
    this.forget(path);
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

  /** Our own files are not there for guests. */
  private check(path: TreePath): void {
    if (path.some(isOurs)) throw new TreeError('EINVAL');
  }

  private mappedFile(file: OpenFile, path: TreePath): OpenFile {
    return {
      read: (offset, into) => file.read(offset, into),
      write: (offset, from) => file.write(offset, from),
      sync: (dataOnly) => file.sync(dataOnly),
      status: () => withMapped(file.status(), this.load(path)),
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

  private place(path: TreePath): string[] {
    if (path.length === 0) return [ROOT_NAME];
    return [...path.slice(0, -1), FOLDER, path.at(-1)!];
  }

  private read(path: TreePath, size: number): Uint8Array {
    const file = this.base.open(path, READ);
    try {
      const data = new Uint8Array(Math.min(size, LARGEST));
      return data.subarray(0, file.read(0, data));
    } finally {
      file.close();
    }
  }

  private load(path: TreePath): Mapped {
    let text: string;
    try {
      text = latin1(this.read(this.place(path), LARGEST));
    } catch {
      return {};
    }
    const found: Mapped = {};
    for (const key of KEYS) {
      const value = new RegExp(`^virtfs\\.${key}=(\\d+)$`, 'm').exec(text)?.[1];
      if (value !== undefined) found[key] = Number(value);
    }
    return found;
  }

  private change(path: TreePath, more: Mapped): void {
    this.save(path, { ...this.load(path), ...more });
  }

  private save(path: TreePath, mapped: Mapped): void {
    const text = KEYS.filter((key) => mapped[key] !== undefined).map((key) => `virtfs.${key}=${mapped[key]!}\n`);
    const place = this.place(path);
    if (path.length > 0) this.makeFolder(place.slice(0, -1));
    const file = this.base.create(place, REPLACE, FILE_MODE, false);
    file.write(0, fromLatin1(text.join('')));
    file.close();
  }

  private makeFolder(path: TreePath): void {
    try {
      this.base.makeDirectory(path, FOLDER_MODE);
    } catch (error) {
      if ((error as TreeError).code !== 'EEXIST') throw error;
    }
  }

  /** A directory is empty for guests when only our files are left in it. */
  private removeFolder(path: TreePath): void {
    if (this.list(path).length > 0) throw new TreeError('ENOTEMPTY');
    const ours = [...path, FOLDER];
    try {
      for (const name of this.base.list(ours)) this.base.remove([...ours, name], false);
      this.base.remove(ours, true);
    } catch (error) {
      if ((error as TreeError).code !== 'ENOENT') throw error;
    }
  }

  private forget(path: TreePath): void {
    try {
      this.base.remove(this.place(path), false);
    } catch {
      // There was none.
    }
  }
}

const isOurs = (name: string): boolean => name === FOLDER || name === ROOT_NAME;

function withMapped(status: FileStatus, { uid, gid, mode, rdev }: Mapped): FileStatus {
  return {
    ...status,
    uid: uid ?? status.uid,
    gid: gid ?? status.gid,
    mode: mode ?? status.mode,
    rdev: rdev ?? status.rdev,
  };
}
