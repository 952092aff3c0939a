/** Writes initramfs archives: the "newc" cpio format (Linux, Documentation/driver-api/early-userspace/buffer-format). */

export interface ArchiveEntry {
  /** Path without a leading slash. */
  readonly path: string;
  /** File type and permission bits as in stat(2), e.g. 0o100755. */
  readonly mode: number;
  readonly data?: Uint8Array;
  /** Device number of a special file. */
  readonly device?: readonly [major: number, minor: number];
}

const S_IFDIR = 0o040000;
const S_IFCHR = 0o020000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

export function directory(path: string): ArchiveEntry {
  return { path, mode: S_IFDIR | 0o755 };
}

export function file(path: string, data: Uint8Array | string, permissions = 0o755): ArchiveEntry {
  const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
  return { path, mode: S_IFREG | permissions, data: bytes };
}

export function symlink(path: string, target: string): ArchiveEntry {
  return { path, mode: S_IFLNK | 0o777, data: new TextEncoder().encode(target) };
}

export function characterDevice(path: string, major: number, minor: number): ArchiveEntry {
  return { path, mode: S_IFCHR | 0o600, device: [major, minor] };
}

const align4 = (length: number): number => (length + 3) & ~3;

function header(entry: ArchiveEntry, inode: number, nameLength: number): string {
  const [major, minor] = entry.device ?? [0, 0];
  const fields = [inode, entry.mode, 0, 0, 1, 0, entry.data?.length ?? 0, 0, 0, major, minor, nameLength, 0];
  return '070701' + fields.map((value) => value.toString(16).padStart(8, '0')).join('');
}

/** The archive of these entries, uncompressed; directories must come before what lies in them. */
export function writeArchive(entries: readonly ArchiveEntry[]): Uint8Array {
  const encoder = new TextEncoder();
  const parts: Uint8Array[] = [];
  const put = (bytes: Uint8Array): void => {
    const padded = new Uint8Array(align4(bytes.length));
    padded.set(bytes);
    parts.push(padded);
  };
  const all = [...entries, { path: 'TRAILER!!!', mode: 0 }];
  all.forEach((entry, i) => {
    const name = encoder.encode(`${entry.path}\0`);
    const head = encoder.encode(header(entry, i + 1, name.length));
    const both = new Uint8Array(head.length + name.length);
    both.set(head);
    both.set(name, head.length);
    put(both);
    if (entry.data) put(entry.data);
  });
  const archive = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    archive.set(part, at);
    at += part.length;
  }
  return archive;
}
