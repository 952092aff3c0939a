/**
 * The header of a qcow2 image (QEMU's docs/interop/qcow2.txt). All numbers are big-endian.
 *
 *     0 magic           8 backing name's offset   20 cluster bits   32 encryption       48 refcount table's offset
 *     4 version        16 its length              24 virtual size   36 L1 entries       56 its clusters
 *                                                                   40 L1 offset        60 snapshots  64 their offset
 *   from version 3 on:
 *    72 incompatible features   80 compatible   88 auto-clear   96 refcount order   100 header length   104 compression
 *
 * Extensions follow (type, length, data, up to a multiple of 8), then the backing file's name.
 */
import { MAX_SIZE } from '../node.ts';

export const MAGIC = 0x514649fb;
const V2_LENGTH = 72;
const V3_LENGTH = 104;
const FULL_LENGTH = 112;
/** What tables may take, bytes. */
export const MAX_L1_BYTES = 32 * 2 ** 20;
const MAX_REFTABLE_BYTES = 8 * 2 ** 20;
const MAX_BACKING_NAME = 1023;
export const MAX_SNAPSHOTS = 65536;

export const INCOMPATIBLE = { dirty: 1, corrupt: 2, dataFile: 4, compression: 8, extendedL2: 16 } as const;
export const COMPATIBLE = { lazyRefcounts: 1 } as const;
export const AUTOCLEAR = { bitmaps: 1, rawData: 2 } as const;
const KNOWN_INCOMPATIBLE = 31;

export const EXTENSION = {
  backingFormat: 0xe2792aca,
  features: 0x6803f857,
  bitmaps: 0x23852875,
  encryption: 0x0537be77,
  dataFile: 0x44415441,
} as const;

export type Compression = 'zlib' | 'zstd';
export type Place = { offset: number; length: number };

export interface Header {
  version: number;
  clusterBits: number;
  size: number;
  /** 0 none, 1 AES of old, 2 LUKS. */
  encryption: number;
  l1Entries: number;
  l1Offset: number;
  reftableOffset: number;
  reftableClusters: number;
  snapshots: number;
  snapshotsOffset: number;
  incompatible: number;
  compatible: number;
  autoclear: number;
  refcountOrder: number;
  compression: Compression;
  backingFile: string | null;
  backingFormat: string | null;
  dataFile: string | null;
  /** Where the LUKS header lies. */
  encryptionHeader: Place | null;
  bitmaps: { count: number; directorySize: number; directoryOffset: number } | null;
  /** Extensions that are not known here, kept as they are. */
  others: { type: number; data: Uint8Array }[];
}

/** Names of feature bits, as images carry them for those that do not know the bits. */
const FEATURES: readonly (readonly [kind: number, bit: number, name: string])[] = [
  [0, 0, 'dirty bit'],
  [0, 1, 'corrupt bit'],
  [0, 2, 'external data file'],
  [0, 3, 'compression type'],
  [0, 4, 'extended L2 entries'],
  [1, 0, 'lazy refcounts'],
  [2, 0, 'bitmaps'],
  [2, 1, 'raw external data'],
];

export const read64 = (view: DataView, at: number): number => view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);

export function write64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value % 2 ** 32);
}

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const latin = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const bad = (why: string): Error => new Error(why);

/**
 * @param bytes the beginning of the file, a cluster at least if the file has one
 * @param fileSize bytes; nothing that is allocated by what the header says may exceed what is there
 * @throws Error in one line
 */
export function parseHeader(bytes: Uint8Array, fileSize: number): Header {
  if (bytes.length < V2_LENGTH) throw bad('Image is not in qcow2 format');
  const view = viewOf(bytes);
  if (view.getUint32(0) !== MAGIC) throw bad('Image is not in qcow2 format');
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) throw bad(`Unsupported qcow2 version ${version}`);
  const clusterBits = view.getUint32(20);
  if (clusterBits < 9 || clusterBits > 21) throw bad(`Unsupported cluster size: 2^${clusterBits}`);
  const length = version === 2 ? V2_LENGTH : bytes.length < V3_LENGTH ? 0 : view.getUint32(100);
  if (version === 3 && length < V3_LENGTH) throw bad('qcow2 header too short');
  if (length > 2 ** clusterBits || length > bytes.length) throw bad('qcow2 header exceeds cluster size');
  const header: Header = {
    version,
    clusterBits,
    size: read64(view, 24),
    encryption: view.getUint32(32),
    l1Entries: view.getUint32(36),
    l1Offset: read64(view, 40),
    reftableOffset: read64(view, 48),
    reftableClusters: view.getUint32(56),
    snapshots: view.getUint32(60),
    snapshotsOffset: read64(view, 64),
    incompatible: version === 2 ? 0 : view.getUint32(76),
    compatible: version === 2 ? 0 : view.getUint32(84),
    autoclear: version === 2 ? 0 : view.getUint32(92),
    refcountOrder: version === 2 ? 4 : view.getUint32(96),
    compression: 'zlib',
    backingFile: null,
    backingFormat: null,
    dataFile: null,
    encryptionHeader: null,
    bitmaps: null,
    others: [],
  };
  if (version === 3) checkFeatures(header, view, length);
  parseExtensions(header, bytes, length);
  parseBacking(header, bytes, view);
  checkTables(header, fileSize);
  return header;
}

function checkFeatures(header: Header, view: DataView, length: number): void {
  const high = view.getUint32(72);
  const unknown = header.incompatible & ~KNOWN_INCOMPATIBLE;
  if (high !== 0 || unknown !== 0) {
    throw bad(`Unsupported qcow2 feature(s): ${unknownFeatures(view, length, high, unknown)}`);
  }
  if (header.refcountOrder > 6) throw bad('Reference count entry width too large; may not exceed 64 bits');
  const type = length > V3_LENGTH ? view.getUint8(104) : 0;
  const wanted = (header.incompatible & INCOMPATIBLE.compression) !== 0;
  if (type > 1) throw bad(`qcow2: unknown compression type: ${type}`);
  if ((type !== 0) !== wanted) throw bad('qcow2: Compression type incompatible feature bit must match the compression type');
  header.compression = type === 0 ? 'zlib' : 'zstd';
  if ((header.incompatible & INCOMPATIBLE.extendedL2) !== 0 && header.clusterBits < 14) {
    throw bad(`Cluster size 2^${header.clusterBits} is too small for extended L2 entries`);
  }
}

/** The image's own names for the bits, where it has them. */
function unknownFeatures(view: DataView, length: number, high: number, low: number): string {
  const names = new Map<number, string>();
  for (const { type, at, size } of extensions(view, length, view.byteLength)) {
    if (type !== EXTENSION.features) continue;
    for (let i = at; i + 48 <= at + size; i += 48) {
      if (view.getUint8(i) !== 0) continue;
      const name = new Uint8Array(view.buffer, view.byteOffset + i + 2, 46);
      const end = name.indexOf(0);
      names.set(view.getUint8(i + 1), latin(name.subarray(0, end < 0 ? 46 : end)).replace(/[^ -~]/g, '?'));
    }
  }
  const found: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    const word = bit < 32 ? low : high;
    if ((word >>> (bit & 31)) & 1)
      found.push(names.get(bit) ?? `Unknown incompatible feature: ${(2n ** BigInt(bit)).toString(16)}`);
  }
  return found.join(', ');
}

function* extensions(view: DataView, from: number, end: number): Generator<{ type: number; at: number; size: number }> {
  for (let at = from; at + 8 <= end; ) {
    const type = view.getUint32(at);
    const size = view.getUint32(at + 4);
    if (type === 0) return;
    if (at + 8 + size > end) throw bad('Header extension too large');
    yield { type, at: at + 8, size };
    at += 8 + Math.ceil(size / 8) * 8;
  }
}

function parseExtensions(header: Header, bytes: Uint8Array, length: number): void {
  const view = viewOf(bytes);
  const nameAt = read64(view, 8);
  const end = Math.min(bytes.length, 2 ** header.clusterBits, nameAt >= length ? nameAt : Infinity);
  for (const { type, at, size } of extensions(view, length, end)) {
    const data = bytes.slice(at, at + size);
    const fields = viewOf(data);
    switch (type) {
      case EXTENSION.backingFormat:
        if (size > 15) throw bad(`ERROR: ext_backing_format: len=${size} too large (>=16)`);
        header.backingFormat = latin(data);
        break;
      case EXTENSION.features:
        break;
      case EXTENSION.dataFile:
        header.dataFile = latin(data);
        break;
      case EXTENSION.encryption:
        if (size < 16) throw bad(`CRYPTO header extension size ${size}, but expected size 16`);
        header.encryptionHeader = { offset: read64(fields, 0), length: read64(fields, 8) };
        break;
      case EXTENSION.bitmaps:
        if (size < 24) throw bad('bitmaps_ext: Invalid extension length');
        // Whoever changed the image without knowing of bitmaps has cleared the bit.
        if ((header.autoclear & AUTOCLEAR.bitmaps) === 0) break;
        header.bitmaps = {
          count: fields.getUint32(0),
          directorySize: read64(fields, 8),
          directoryOffset: read64(fields, 16),
        };
        break;
      default:
        header.others.push({ type, data });
    }
  }
}

function parseBacking(header: Header, bytes: Uint8Array, view: DataView): void {
  const offset = read64(view, 8);
  const length = view.getUint32(16);
  if (offset === 0) return;
  const limit = Math.min(MAX_BACKING_NAME, 2 ** header.clusterBits - offset, bytes.length - offset);
  if (!(offset < bytes.length)) throw bad('Invalid backing file offset');
  if (length > limit) throw bad('Backing file name too long');
  if (length > 0) header.backingFile = latin(bytes.subarray(offset, offset + length));
}

/** @throws Error where a table is not aligned, is larger than any may be, or is not all there */
export function checkTable(
  offset: number,
  entries: number,
  entryBytes: number,
  maxBytes: number,
  clusterBits: number,
  what: string,
): void {
  const length = entries * entryBytes;
  if (length > maxBytes) throw bad(`${what} too large`);
  if (offset % 2 ** clusterBits !== 0 || offset + length > MAX_SIZE) throw bad(`${what} offset invalid`);
}

function checkTables(header: Header, fileSize: number): void {
  const { clusterBits, l1Entries, l1Offset } = header;
  const clusterSize = 2 ** clusterBits;
  if (header.encryption > 2) throw bad(`Unsupported encryption method ${header.encryption}`);
  if (header.size > MAX_SIZE) throw bad('Image is too large');
  if (header.reftableClusters === 0) throw bad('Image does not contain a reference count table');
  const reftable = header.reftableClusters * (clusterSize / 8);
  checkTable(header.reftableOffset, reftable, 8, MAX_REFTABLE_BYTES, clusterBits, 'Reference count table');
  if (header.reftableOffset >= fileSize) throw bad('Reference count table offset invalid');
  checkTable(l1Offset, l1Entries, 8, MAX_L1_BYTES, clusterBits, 'Active L1 table');
  if (l1Entries < l1EntriesFor(header)) throw bad('L1 table is too small');
  if (l1Offset > fileSize) throw bad('Active L1 table offset invalid');
  if (header.snapshots > MAX_SNAPSHOTS) throw bad('Snapshot table too large');
  checkTable(header.snapshotsOffset, header.snapshots, 40, MAX_SNAPSHOTS * 40, clusterBits, 'Snapshot table');
  if (header.snapshots > 0 && header.snapshotsOffset + header.snapshots * 40 > fileSize) {
    throw bad('Snapshot table offset invalid');
  }
}

export const hasExtendedL2 = ({ incompatible }: Header): boolean => (incompatible & INCOMPATIBLE.extendedL2) !== 0;

/** Entries that the L1 table of an image of this size needs. */
export function l1EntriesFor(header: Header, size = header.size): number {
  const entrySize = hasExtendedL2(header) ? 16 : 8;
  return Math.ceil(size / ((2 ** header.clusterBits / entrySize) * 2 ** header.clusterBits));
}

function featureTable(): Uint8Array {
  const bytes = new Uint8Array(48 * FEATURES.length);
  FEATURES.forEach(([kind, bit, name], i) => {
    bytes.set([kind, bit], 48 * i);
    bytes.set(new TextEncoder().encode(name), 48 * i + 2);
  });
  return bytes;
}

/** @returns the header with all that follows it, one cluster at most @throws Error when it does not fit */
export function encodeHeader(header: Header): Uint8Array {
  const bytes = new Uint8Array(2 ** header.clusterBits);
  const view = viewOf(bytes);
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.version);
  view.setUint32(20, header.clusterBits);
  write64(view, 24, header.size);
  view.setUint32(32, header.encryption);
  view.setUint32(36, header.l1Entries);
  write64(view, 40, header.l1Offset);
  write64(view, 48, header.reftableOffset);
  view.setUint32(56, header.reftableClusters);
  view.setUint32(60, header.snapshots);
  write64(view, 64, header.snapshotsOffset);
  let at = V2_LENGTH;
  if (header.version === 3) {
    view.setUint32(76, header.incompatible);
    view.setUint32(84, header.compatible);
    view.setUint32(92, header.autoclear);
    view.setUint32(96, header.refcountOrder);
    view.setUint32(100, FULL_LENGTH);
    view.setUint8(104, header.compression === 'zstd' ? 1 : 0);
    at = FULL_LENGTH;
  }
  const put = (type: number, data: Uint8Array): void => {
    if (at + 16 + data.length > bytes.length) throw bad('the header does not fit into a cluster');
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    bytes.set(data, at + 8);
    at += 8 + Math.ceil(data.length / 8) * 8;
  };
  if (header.backingFormat !== null) put(EXTENSION.backingFormat, encode(header.backingFormat));
  if (header.dataFile !== null && (header.incompatible & INCOMPATIBLE.dataFile) !== 0) {
    put(EXTENSION.dataFile, encode(header.dataFile));
  }
  if (header.encryptionHeader !== null) {
    const place = new Uint8Array(16);
    write64(viewOf(place), 0, header.encryptionHeader.offset);
    write64(viewOf(place), 8, header.encryptionHeader.length);
    put(EXTENSION.encryption, place);
  }
  if (header.version === 3) put(EXTENSION.features, featureTable());
  if (header.bitmaps !== null) {
    const place = new Uint8Array(24);
    viewOf(place).setUint32(0, header.bitmaps.count);
    write64(viewOf(place), 8, header.bitmaps.directorySize);
    write64(viewOf(place), 16, header.bitmaps.directoryOffset);
    put(EXTENSION.bitmaps, place);
  }
  for (const { type, data } of header.others) put(type, data);
  at += 8;
  if (header.backingFile !== null) {
    const name = encode(header.backingFile);
    if (name.length > MAX_BACKING_NAME || at + name.length > bytes.length) throw bad('Backing file name too long');
    write64(view, 8, at);
    view.setUint32(16, name.length);
    bytes.set(name, at);
  }
  return bytes;
}
