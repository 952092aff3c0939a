/**
 * The log of a VHDX image ([MS-VHDX] 2.3): a ring of entries, each of which says what sectors of the file are to be.
 *
 * Entry (multiples of 4 KiB): 0 "loge"  4 CRC  8 length  12 tail  16 sequence number (64)  24 descriptors
 *   32 GUID (the header's)  48 file size that was stable (64)  56 size that is needed (64); descriptors of 32 bytes:
 *   "zero": 8 length (64)  16 offset (64)  24 sequence number (64)
 *   "desc": 4 last four bytes of the sector  8 first eight  16 offset (64)  24 sequence number (64)
 * followed by a sector for each "desc": 0 "data"  4 sequence number's high half  8 data  4092 low half
 */
import { crc32c } from '../host/crc32c.ts';
import { type BlockNode, readBytes, writeZeroBytes } from './node.ts';
import type { Task } from './task.ts';

export const LOG_SECTOR = 4096;
const MAX_LOG = 2 ** 28;

export type Log = { readonly offset: number; readonly length: number; readonly guid: Uint8Array };

type Entry = { at: number; length: number; tail: number; sequence: bigint; size: number; bytes: Uint8Array };

const tag = (bytes: Uint8Array, at: number): string => String.fromCharCode(...bytes.subarray(at, at + 4));

/** @returns the entry at a place of the log, null where there is none that is whole */
function parseEntry(log: Uint8Array, guid: Uint8Array, at: number): Entry | null {
  if (tag(log, at) !== 'loge') return null;
  const head = new DataView(log.buffer, log.byteOffset + at, LOG_SECTOR);
  const length = head.getUint32(8, true);
  if (length < LOG_SECTOR || length % LOG_SECTOR !== 0 || length > log.length) return null;
  const bytes = new Uint8Array(length);
  const first = Math.min(length, log.length - at);
  bytes.set(log.subarray(at, at + first));
  bytes.set(log.subarray(0, length - first), first);
  const view = new DataView(bytes.buffer);
  if (guid.some((value, i) => bytes[32 + i] !== value)) return null;
  const stored = view.getUint32(4, true);
  view.setUint32(4, 0, true);
  if (crc32c(bytes) !== stored) return null;
  const tail = view.getUint32(12, true);
  if (tail % LOG_SECTOR !== 0 || tail >= log.length) return null;
  return { at, length, tail, sequence: view.getBigUint64(16, true), size: Number(view.getBigUint64(56, true)), bytes };
}

/** The entries that belong together, up to the newest: each follows the one before, from the newest one's tail on. */
function activeEntries(log: Uint8Array, guid: Uint8Array): Entry[] {
  let best: Entry[] = [];
  for (let start = 0; start < log.length; start += LOG_SECTOR) {
    const row: Entry[] = [];
    for (let at = start, seen = 0; seen < log.length; ) {
      const entry = parseEntry(log, guid, at);
      const before = row.at(-1);
      if (entry === null || (before !== undefined && entry.sequence !== before.sequence + 1n)) break;
      row.push(entry);
      seen += entry.length;
      at = (at + entry.length) % log.length;
    }
    const last = row.at(-1);
    const from = last === undefined ? -1 : row.findIndex(({ at }) => at === last.tail);
    if (from < 0) continue;
    const newest = best.at(-1)?.sequence ?? 0n;
    if (last!.sequence > newest) best = row.slice(from);
  }
  return best;
}

/**
 * Puts what the log has where it belongs.
 * @param readOnly nothing is written
 * @returns whether there was anything
 */
export async function replayLog(file: BlockNode, { offset, length, guid }: Log, readOnly: boolean): Promise<boolean> {
  if (length === 0) return false;
  if (length > MAX_LOG || length % LOG_SECTOR !== 0) throw new Error('VHDX: the length of the log is out of range');
  const entries = activeEntries(await readBytes(file, offset, length), guid);
  if (entries.length === 0 || readOnly) return entries.length > 0;
  for (const entry of entries) await replayEntry(file, entry);
  await file.flush();
  return true;
}

async function replayEntry(file: BlockNode, { bytes, sequence, size }: Entry): Promise<void> {
  const view = new DataView(bytes.buffer);
  const count = view.getUint32(24, true);
  const bad = (): Error => new Error('VHDX: the log has an entry that contradicts itself');
  if (64 + count * 32 > bytes.length) throw bad();
  let data = Math.ceil((64 + count * 32) / LOG_SECTOR) * LOG_SECTOR;
  if (size > file.size && size < 2 ** 52) await file.resize(size, 'off');
  for (let i = 0; i < count; i++) {
    const at = 64 + 32 * i;
    const offset = Number(view.getBigUint64(at + 16, true));
    if (view.getBigUint64(at + 24, true) !== sequence || offset % LOG_SECTOR !== 0 || offset > file.size) throw bad();
    if (tag(bytes, at) === 'zero') {
      const length = Number(view.getBigUint64(at + 8, true));
      if (!(offset + length <= file.size)) throw bad();
      await writeZeroBytes(file, offset, length);
      continue;
    }
    if (tag(bytes, at) !== 'desc' || data + LOG_SECTOR > bytes.length || tag(bytes, data) !== 'data') throw bad();
    const sector = bytes.slice(data, data + LOG_SECTOR);
    // Head and tail of the sector were in the way of its marks.
    sector.set(bytes.subarray(at + 8, at + 16));
    sector.set(bytes.subarray(at + 4, at + 8), LOG_SECTOR - 4);
    await file.write(offset, sector);
    data += LOG_SECTOR;
  }
}

/**
 * Writes one sector to the log and waits until it is stable.
 * @param place where in the log, and the entry's number
 * @returns where the next entry goes
 */
export function* writeLogEntry(
  file: BlockNode,
  log: Log,
  place: { readonly at: number; readonly sequence: bigint },
  offset: number,
  sector: Uint8Array,
): Task<number> {
  const bytes = new Uint8Array(2 * LOG_SECTOR);
  const view = new DataView(bytes.buffer);
  const put = (text: string, at: number): void => bytes.set(new TextEncoder().encode(text), at);
  put('loge', 0);
  view.setUint32(8, bytes.length, true);
  // One sector at a time is in the log: an entry is its own tail.
  view.setUint32(12, place.at, true);
  view.setBigUint64(16, place.sequence, true);
  view.setUint32(24, 1, true);
  bytes.set(log.guid, 32);
  view.setBigUint64(48, BigInt(file.size), true);
  view.setBigUint64(56, BigInt(file.size), true);
  put('desc', 64);
  bytes.set(sector.subarray(LOG_SECTOR - 4), 68);
  bytes.set(sector.subarray(0, 8), 72);
  view.setBigUint64(80, BigInt(offset), true);
  view.setBigUint64(88, place.sequence, true);
  bytes.set(sector, LOG_SECTOR);
  put('data', LOG_SECTOR);
  view.setUint32(LOG_SECTOR + 4, Number(place.sequence >> 32n), true);
  view.setUint32(2 * LOG_SECTOR - 4, Number(place.sequence & 0xffffffffn), true);
  view.setUint32(4, crc32c(bytes), true);
  const writing = file.write(log.offset + place.at, bytes);
  if (writing !== undefined) yield writing;
  const flushing = file.flush();
  if (flushing !== undefined) yield flushing;
  const next = place.at + bytes.length;
  return next + bytes.length > log.length ? 0 : next;
}
