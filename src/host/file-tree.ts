/**
 * A folder of the host's that a guest is let into. Names are strings with one character for each byte. No way
 * leads out: a path is names below the folder, and no symbolic link is ever followed.
 */

/** Names from the folder down; none for the folder itself. */
export type TreePath = readonly string[];

/** As lstat has it. Times are nanoseconds since 1970. */
export interface FileStatus {
  /** Type and permissions, as in Linux. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly links: number;
  /** Device number of a special file. */
  readonly rdev: number;
  readonly size: bigint;
  /** Of 512 bytes. */
  readonly blocks: bigint;
  readonly blockSize: number;
  readonly inode: bigint;
  readonly accessed: bigint;
  readonly modified: bigint;
  readonly changed: bigint;
}

/** File types in `FileStatus.mode`. */
export const FILE_TYPE = {
  mask: 0o170000,
  fifo: 0o010000,
  character: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  regular: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
} as const;

export interface OpenFlags {
  readonly read: boolean;
  readonly write: boolean;
  readonly append: boolean;
  readonly truncate: boolean;
}

export interface OpenFile {
  /** @returns bytes read, fewer than asked for at the file's end */
  read(offset: number, into: Uint8Array): number;
  /** @returns bytes written */
  write(offset: number, from: Uint8Array): number;
  sync(dataOnly: boolean): void;
  status(): FileStatus;
  truncate(size: number): void;
  close(): void;
}

export interface TreeSpace {
  readonly blockSize: number;
  readonly blocks: bigint;
  readonly free: bigint;
  readonly available: bigint;
  readonly files: bigint;
  readonly filesFree: bigint;
}

/** What goes wrong, by the name that Linux has for it, e.g. "ENOENT". */
export class TreeError extends Error {
  readonly code: string;

  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/** Extended attributes of files. */
export interface TreeAttributes {
  /** @param most bytes @returns null when there is none, or it is longer */
  get(path: TreePath, name: string, most: number): Uint8Array | null;
  set(path: TreePath, name: string, value: Uint8Array): void;
}

/** Everything throws TreeError. */
export interface FileTree {
  /** Null where there are none. */
  readonly attributes: TreeAttributes | null;
  status(path: TreePath): FileStatus;
  open(path: TreePath, flags: OpenFlags): OpenFile;
  /** @param exclusive it must not be there yet */
  create(path: TreePath, flags: OpenFlags, mode: number, exclusive: boolean): OpenFile;
  /** Names in a directory, without "." and "..". */
  list(path: TreePath): string[];
  makeDirectory(path: TreePath, mode: number): void;
  /** A special file. @param rdev its device number */
  makeNode(path: TreePath, mode: number, rdev: number): void;
  makeLink(path: TreePath, target: string): void;
  readLink(path: TreePath): string;
  /** Another name for a file. */
  link(from: TreePath, to: TreePath): void;
  rename(from: TreePath, to: TreePath): void;
  remove(path: TreePath, directory: boolean): void;
  setMode(path: TreePath, mode: number): void;
  /** @param uid, gid -1 to leave it as it is */
  setOwner(path: TreePath, uid: number, gid: number): void;
  setTimes(path: TreePath, accessed: bigint, modified: bigint): void;
  truncate(path: TreePath, size: number): void;
  space(): TreeSpace;
}
