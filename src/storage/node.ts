/** Nodes of the block graph: what every driver's images have in common. */
import { gather, giveBuffer, type Pieces, scatter, takeBuffer } from '../host/pieces.ts';
import type { BlockBackend, Completion } from '../machine/interfaces.ts';
import type { Maybe } from './task.ts';

export const SECTOR = 512;
/** Most bytes of an image: what QEMU allows, and exact in a number. */
export const MAX_SIZE = 2 ** 53 - 2 ** 30;

/** What a stretch of a node is. */
export interface Extent {
  /** Bytes from where one asked. */
  readonly length: number;
  /** There is something to read. */
  readonly data: boolean;
  /** It reads as zeros. */
  readonly zero: boolean;
  /** This node's own, not its backing file's. */
  readonly allocated: boolean;
  /** Where it lies, as it is, in `file`; null if it does not. */
  readonly offset: number | null;
  readonly file: BlockNode | null;
  readonly compressed?: boolean;
}

/** `driver`'s own part of `qemu-img info`: names with spaces for people, with dashes for programs. */
export type SpecificInfo = { readonly [name: string]: unknown };

export interface NodeInfo {
  readonly clusterSize?: number;
  readonly encrypted?: boolean;
  readonly compressed?: boolean;
  readonly dirty?: boolean;
  readonly specific?: { readonly type: string; readonly data: SpecificInfo };
  readonly snapshots?: readonly SnapshotInfo[];
}

export interface SnapshotInfo {
  readonly id: string;
  readonly name: string;
  readonly vmStateSize: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly vmClock: bigint;
  readonly icount: bigint | null;
  readonly diskSize: number;
}

export interface CheckResult {
  readonly errors: number;
  readonly leaks: number;
  readonly errorsFixed: number;
  readonly leaksFixed: number;
  readonly imageEnd: number;
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
}

/** Nothing found, nothing known. */
export const NO_FINDINGS: CheckResult = {
  errors: 0,
  leaks: 0,
  errorsFixed: 0,
  leaksFixed: 0,
  imageEnd: 0,
  totalClusters: 0,
  allocatedClusters: 0,
  fragmentedClusters: 0,
  compressedClusters: 0,
};

export type Fix = 'none' | 'leaks' | 'all';

/**
 * One node. Requests are within the size, and may be under way at the same time; those to the same bytes are the
 * caller's to order. Offsets and lengths are bytes.
 */
export abstract class BlockNode implements BlockBackend {
  /** QEMU's name of the driver. */
  abstract readonly driver: string;
  /** Unique in a graph; made up where the user gives none. */
  nodeName = '';
  /** As the user would name it: a path, `json:{…}`, an address. */
  filename = '';
  readOnly = false;
  /** Whether discards are passed on (`discard=unmap`). */
  unmap = false;

  abstract readonly size: number;
  abstract read(offset: number, into: Uint8Array): Completion;
  abstract write(offset: number, from: Uint8Array): Completion;

  /** Drivers that can take the pieces as they are do so. */
  readPieces(offset: number, into: Pieces): Completion {
    const whole = takeBuffer(into.total);
    const finish = (): void => {
      scatter(whole, into);
      giveBuffer(whole);
    };
    const reading = this.read(offset, whole);
    return reading === undefined ? finish() : reading.then(finish);
  }

  writePieces(offset: number, from: Pieces): Completion {
    const whole = takeBuffer(from.total);
    gather(from, whole);
    const writing = this.write(offset, whole);
    return writing === undefined ? giveBuffer(whole) : writing.then(() => giveBuffer(whole));
  }

  abstract flush(): Completion;
  /** Stops using what is below; children are closed by their parent. May still write. */
  abstract close(): Completion;

  /** The data's node, beneath a format or a filter. */
  get file(): BlockNode | null {
    return null;
  }

  /** What shows where this node has nothing. */
  get backing(): BlockNode | null {
    return null;
  }

  /** As the image names it, null if it names none. */
  get backingName(): { readonly file: string; readonly format: string | null } | null {
    return null;
  }

  /** A filter shows its child as it is. */
  get isFilter(): boolean {
    return false;
  }

  /** New space at the end, and what was never written, read as zeros. */
  get zeroInit(): boolean {
    return false;
  }

  /** Whether something reads differently from the backing file is this node's to know. */
  get supportsBacking(): boolean {
    return false;
  }

  /**
   * Makes a range read as zeros.
   * @param mayUnmap space may be given back
   */
  writeZeroes(offset: number, length: number, _mayUnmap: boolean): Completion {
    return writeZeroBytes(this, offset, length);
  }

  discard(_offset: number, _length: number): Completion {
    // What is no longer wanted may stay.
  }

  /** @returns what is at an offset, at most `length` bytes of it */
  status(offset: number, length: number): Maybe<Extent> {
    return { length, data: true, zero: false, allocated: true, offset, file: this };
  }

  /** Writes whole clusters compressed. @returns false where the driver cannot */
  writeCompressed(_offset: number, _from: Uint8Array): Maybe<boolean> {
    return false;
  }

  resize(_size: number, _preallocation: string): Maybe<void> {
    throw new Error('Image format driver does not support resize');
  }

  /** Keeps other processes from writing, where the one above cannot have them do so. @throws Error where one does */
  exclude(): void {
    // What has no file has no others.
  }

  /** Names another backing file in the image; what is behind this node stays as it is. */
  changeBacking(_file: string | null, _format: string | null): Maybe<void> {
    throw new Error('Operation not supported');
  }

  info(): Maybe<NodeInfo> {
    return {};
  }

  /** Looks for inconsistencies. @returns null where the driver cannot */
  check(_fix: Fix, _report: (line: string) => void): Maybe<CheckResult | null> {
    return null;
  }

  /** Bytes of the host's storage, null where that is not known. */
  allocatedBytes(): number | null {
    return this.file?.allocatedBytes() ?? null;
  }
}

const ZEROS = new Uint8Array(65536);

/** Zeros in writing, piece by piece. */
export function writeZeroBytes(node: Pick<BlockNode, 'write'>, offset: number, length: number): Completion {
  for (let at = 0; at < length; ) {
    const part = ZEROS.subarray(0, Math.min(ZEROS.length, length - at));
    const writing = node.write(offset + at, part);
    at += part.length;
    if (writing !== undefined) {
      return writing.then(() => (at < length ? writeZeroBytes(node, offset + at, length - at) : undefined));
    }
  }
}

/** Reads what must be there, for headers and tables. @throws Error where the file ends before */
export async function readBytes(node: BlockNode, offset: number, length: number): Promise<Uint8Array> {
  if (offset < 0 || length < 0 || !(offset + length <= node.size)) {
    throw new Error(`${length} bytes at offset ${offset} are beyond the end of the file (${node.size} bytes)`);
  }
  const bytes = new Uint8Array(length);
  await node.read(offset, bytes);
  return bytes;
}

/** Nothing but zeros? Looks at eight bytes at a time where it can. */
export function isZero(bytes: Uint8Array): boolean {
  const { length } = bytes;
  if (length === 0) return true;
  if (bytes[0] !== 0 || bytes[length - 1] !== 0) return false;
  let at = 0;
  while (at < length && ((bytes.byteOffset + at) & 7) !== 0) if (bytes[at++] !== 0) return false;
  if (length - at >= 8) {
    const words = new Float64Array(bytes.buffer, bytes.byteOffset + at, (length - at) >> 3);
    if (!zeroWords(words)) return false;
    at += words.length * 8;
  }
  for (; at < length; at++) if (bytes[at] !== 0) return false;
  return true;
}

function zeroWords(words: Float64Array): boolean {
  const { length } = words;
  // NaN and -0 differ from 0 only by Object.is: what compares equal is looked at as integers.
  for (let i = 0; i < length; i++) if (words[i] !== 0) return false;
  const halves = new Int32Array(words.buffer, words.byteOffset, length * 2);
  let any = 0;
  for (let i = 1; i < halves.length; i += 2) any |= halves[i]!;
  return any === 0;
}
