/** Files and block devices of the host. */
import { isBlockDevice, openBlockFile } from '#host/block-file';
import type { BlockFile } from '../host/host.ts';
import { type Pieces, viewsOf } from '../host/pieces.ts';
import type { Completion } from '../machine/interfaces.ts';
import { driver, type How, type Opening, RIGHT, RIGHT_NAMES } from './driver.ts';
import { BlockNode, type Extent, writeZeroBytes } from './node.ts';
import { choice, optional, type Schema, text, type Values } from './schema.ts';

const OPTIONS = {
  filename: text,
  /** How the host's file is accessed: there is one way here, whose requests run beside the guest. */
  aio: optional(choice('threads', 'native', 'io_uring'), 'threads'),
  locking: optional(choice('auto', 'on', 'off'), 'auto'),
} satisfies Schema;

export class FileNode extends BlockNode {
  readonly driver: string;
  readonly host: BlockFile;
  private readonly noFlush: boolean;
  /** What this process does with the file, as others see it; 0 where they see nothing. */
  private held = 0;
  /** Holes are told apart from data; asked anew after writes. */
  private known: { from: number; to: number; data: boolean } | null = null;
  private closed = false;

  constructor(name: string, host: BlockFile, how: How) {
    super();
    this.driver = name;
    this.host = host;
    this.readOnly = !how.writable;
    this.noFlush = how.noFlush;
  }

  get size(): number {
    return this.host.size;
  }

  override get zeroInit(): boolean {
    return !this.host.isDevice;
  }

  /** What lies beyond the end reads as zeros. */
  read(offset: number, into: Uint8Array): Completion {
    return this.whole(this.host.read(offset, into), offset, into.length, (count) => into.fill(0, count));
  }

  override readPieces(offset: number, into: Pieces): Completion {
    return this.whole(this.host.readPieces(offset, into), offset, into.total, (count) => {
      for (const view of viewsOf(into, count)) view.fill(0);
    });
  }

  /** @param clear what was not read, from a byte on */
  private whole(reading: number | Promise<number>, offset: number, length: number, clear: (from: number) => void): Completion {
    if (reading === length) return undefined;
    // What others add at the end meanwhile may have come too late for this.
    const { size } = this.host;
    const check = (count: number): void => {
      if (count === length) return;
      if (offset + count < size) throw new Error(`the file ends at byte ${offset + count}`);
      clear(count);
    };
    return typeof reading === 'number' ? check(reading) : reading.then(check);
  }

  write(offset: number, from: Uint8Array): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    this.known = null;
    return this.host.write(offset, from);
  }

  override writePieces(offset: number, from: Pieces): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    this.known = null;
    return this.host.writePieces(offset, from);
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    const { host } = this;
    this.known = null;
    if (!host.isDevice) {
      const beyond = offset + length > host.size;
      if (mayUnmap && this.unmap && !beyond && host.punchHole(offset, length)) return undefined;
      if (offset >= host.size && mayUnmap) return host.truncate(offset + length);
      if (host.zeroRange(offset, length)) return undefined;
    }
    return writeZeroBytes(this, offset, length);
  }

  override discard(offset: number, length: number): Completion {
    if (!this.unmap || this.readOnly || this.host.isDevice) return;
    this.known = null;
    this.host.punchHole(offset, Math.min(length, this.host.size - offset));
  }

  flush(): Completion {
    if (this.noFlush || this.readOnly) return undefined;
    return this.host.sync();
  }

  override status(offset: number, length: number): Extent {
    if (offset >= this.size) return { length, data: false, zero: true, allocated: true, offset, file: this };
    let { known } = this;
    if (known === null || offset < known.from || offset >= known.to) {
      const { data, end } = this.host.extent(offset);
      known = { from: offset, to: Math.max(end, offset + 1), data };
      this.known = known;
    }
    const count = Math.min(length, known.to - offset);
    return { length: count, data: known.data, zero: !known.data, allocated: true, offset, file: this };
  }

  override resize(size: number, preallocation: string): Completion {
    const { host } = this;
    const before = host.size;
    this.known = null;
    if (host.isDevice) {
      if (size > before) throw new Error('Cannot grow device files');
      return undefined;
    }
    if (preallocation === 'off' || size <= before) return host.truncate(size);
    if (preallocation === 'falloc') {
      if (!host.allocate(before, size - before)) throw new Error('Could not preallocate data: Operation not supported');
      return host.truncate(size);
    }
    if (preallocation !== 'full') throw new Error(`Unsupported preallocation mode '${preallocation}'`);
    return writeZeroBytes(this, before, size - before);
  }

  override allocatedBytes(): number {
    return this.host.allocatedBytes();
  }

  /**
   * Changes what this process does with the file and keeps others from.
   * @throws Error where another process is in the way
   */
  lock(held: number, unshared: number): void {
    this.held = held;
    const clash = this.host.lock(held, unshared);
    if (clash === null) return;
    const shared = clash.shared ? 'shared ' : '';
    throw new Error(
      `Failed to get ${shared}"${RIGHT_NAMES[clash.bit]}" lock\nIs another process using the image [${this.filename}]?`,
    );
  }

  override exclude(): void {
    if (this.held !== 0) this.lock(this.held, RIGHT.write | RIGHT.resize);
  }

  close(): Completion {
    if (this.closed) return undefined;
    this.closed = true;
    return this.host.close();
  }
}

async function openPath(name: string, values: Values<typeof OPTIONS>, { how }: Opening): Promise<FileNode> {
  const path = values.filename;
  const mode = { create: false, direct: how.direct, immediate: how.immediate, overlap: how.overlap };
  let used = how;
  let host: BlockFile;
  try {
    host = await openBlockFile(path, { ...mode, writable: how.writable });
  } catch (error) {
    if (!how.writable || !how.autoReadOnly) throw couldNotOpen(path, error);
    used = { ...how, writable: false };
    host = await openBlockFile(path, { ...mode, writable: false });
  }
  const node = new FileNode(name, host, used);
  node.filename = path;
  try {
    if (values.locking !== 'off') lockFile(node, used);
  } catch (error) {
    node.close();
    throw error;
  }
  return node;
}

const couldNotOpen = (path: string, error: unknown): Error => new Error(`Could not open '${path}': ${(error as Error).message}`);

function lockFile(node: FileNode, { writable, share, forceShare, resize }: How): void {
  const held = RIGHT.read | (writable ? RIGHT.write | (resize ? RIGHT.resize : 0) : 0);
  node.lock(held, share || (forceShare && !writable) ? 0 : RIGHT.write | RIGHT.resize);
}

/** @returns which of the two drivers a path is for. @param asked by its prefix */
export function pathDriver(path: string, asked: string | null): string {
  return asked ?? (isBlockDevice(path) ? 'host_device' : 'file');
}

const named = (name: string) =>
  driver({
    name,
    protocol: true,
    options: OPTIONS,
    open: (values, opening) => openPath(name, values, opening),
    fromName: (filename) => ({ filename: filename.replace(/^(file|host_device):/, '') }),
  });

export const fileDriver = named('file');
export const hostDeviceDriver = named('host_device');
