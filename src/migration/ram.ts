/**
 * Memory in sections of pages (4 KiB). The id of a section names the block of memory; its body:
 *
 *   0 codec u8: 0 none, 1 Zstandard   1 number of runs u32
 *   5 runs, 8 bytes each: first page u32, number of pages u32 with bit 31 set if they are all zeros
 *     the other runs' pages one after the other, at most `SECTION_PAGES` of them, all together as the codec has them
 *
 * A page that comes again, in a run that begins later, replaces what came before.
 */
import { zstdCompressFast, zstdDecompress } from '#host/compression';
import { SECTION, type Section, type SectionHead, sectionBytes } from './stream.ts';
import { ByteReader, ByteWriter } from './values.ts';

export const PAGE = 4096;
/** Pages with contents in one section at most. */
export const SECTION_PAGES = 256;
const CODEC = { none: 0, zstd: 1 } as const;
const ZEROS = 0x80000000;
/** Compressed data must save this much to be worth unpacking. */
const WORTHWHILE = 0.9;
const RUNS_AT_ONCE = 4096;
/** How often a block may be said to be zero throughout: looking whether it is takes time. */
const ZEROS_AT_MOST = 64;

/** A piece of memory that is part of the machine's state. */
export interface MemoryBlock {
  readonly id: string;
  /** Whole pages, at an address that is a multiple of 4. */
  readonly bytes: Uint8Array;
  /** Bytes have been replaced: what has been made from them is void. */
  changed(offset: number, length: number): void;
}

type Run = { zero: boolean; first: number; count: number };

const wordsOf = (bytes: Uint8Array): Int32Array => new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);

/** @param page index of a page @returns whether it holds nothing but zeros */
function isZeroPage(words: Int32Array, page: number): boolean {
  const start = page * (PAGE / 4);
  if (words[start] !== 0) return false;
  for (let i = start, end = start + PAGE / 4; i < end; i += 8) {
    const any =
      words[i]! | words[i + 1]! | words[i + 2]! | words[i + 3]! | words[i + 4]! | words[i + 5]! | words[i + 6]! | words[i + 7]!;
    if (any !== 0) return false;
  }
  return true;
}

/** Runs of pages: those that are zero, and those that are not, of these at most `SECTION_PAGES` together. */
function* runsOf(words: Int32Array, pages: number): Generator<Run> {
  for (let first = 0; first < pages; ) {
    const zero = isZeroPage(words, first);
    const end = zero ? pages : Math.min(pages, first + SECTION_PAGES);
    let next = first + 1;
    while (next < end && isZeroPage(words, next) === zero) next++;
    yield { zero, first, count: next - first };
    first = next;
  }
}

/** Runs that go into one section. */
function* groupsOf(words: Int32Array, pages: number): Generator<Run[]> {
  let group: Run[] = [];
  let room = SECTION_PAGES;
  for (const run of runsOf(words, pages)) {
    let { first, count } = run;
    while (!run.zero && count > room) {
      group.push({ zero: false, first, count: room });
      first += room;
      count -= room;
      yield group;
      group = [];
      room = SECTION_PAGES;
    }
    group.push({ zero: run.zero, first, count });
    if (!run.zero) room -= count;
    if (room > 0 && group.length < RUNS_AT_ONCE) continue;
    yield group;
    group = [];
    room = SECTION_PAGES;
  }
  if (group.length > 0) yield group;
}

/**
 * All pages of a block, each once.
 * @param compress whether to make the stream smaller, where the host can do it fast
 * @returns pieces of the stream, each of which holds until the next is asked for
 */
export async function* savePages({ id, bytes }: MemoryBlock, compress: boolean): AsyncGenerator<Uint8Array> {
  const head: SectionHead = { type: SECTION.pages, id, instance: 0, version: 1 };
  const gathered = new Uint8Array(SECTION_PAGES * PAGE);
  for (const group of groupsOf(wordsOf(bytes), bytes.length / PAGE)) {
    let used = 0;
    for (const { zero, first, count } of group) {
      if (zero) continue;
      gathered.set(bytes.subarray(first * PAGE, (first + count) * PAGE), used);
      used += count * PAGE;
    }
    const plain = gathered.subarray(0, used);
    const packed = compress && used > 0 ? await zstdCompressFast(plain) : null;
    const smaller = packed !== null && packed.length < used * WORTHWHILE;
    yield* sectionBytes(head, tableOf(group, smaller ? CODEC.zstd : CODEC.none), smaller ? packed : plain);
  }
}

/** A body's beginning. */
function tableOf(group: readonly Run[], codec: number): Uint8Array {
  const body = new ByteWriter();
  body.u8(codec);
  body.u32(group.length);
  for (const { zero, first, count } of group) {
    body.u32(first);
    body.u32(zero ? (count | ZEROS) >>> 0 : count);
  }
  return body.written;
}

/** Puts saved pages into their blocks, and knows which have come. */
export class PageLoader {
  private readonly blocks: readonly MemoryBlock[];
  private readonly come: readonly Uint8Array[];
  /** Pages that have been said to be zero. */
  private zeros = 0;
  private readonly mostZeros: number;

  constructor(blocks: readonly MemoryBlock[]) {
    this.blocks = blocks;
    this.come = blocks.map(({ bytes }) => new Uint8Array(bytes.length / PAGE));
    this.mostZeros = ZEROS_AT_MOST * this.come.reduce((sum, { length }) => sum + length, 0);
  }

  /** @throws Error naming the block */
  async load(section: Section): Promise<void> {
    const at = this.blocks.findIndex(({ id }) => id === section.id);
    const bad = (why: string): Error => new Error(`saved state: memory "${section.id}": ${why}`);
    if (at < 0) throw bad('this machine has none of that name');
    if (section.version !== 1) throw bad(`has version ${section.version}, of which only 1 can be read`);
    try {
      await this.loadRuns(this.blocks[at]!, this.come[at]!, new ByteReader(section.body));
    } catch (error) {
      throw bad((error as Error).message);
    }
  }

  /** @throws Error naming what has not come */
  finish(): void {
    this.blocks.forEach(({ id }, i) => {
      const page = this.come[i]!.indexOf(0);
      if (page >= 0) throw new Error(`saved state: memory "${id}": page ${page} is missing`);
    });
  }

  private async loadRuns(block: MemoryBlock, come: Uint8Array, from: ByteReader): Promise<void> {
    const codec = from.u8();
    if (codec !== CODEC.none && codec !== CODEC.zstd) throw new Error(`codec ${codec} is not known`);
    const count = from.u32();
    const table = new ByteReader(from.raw(count * 8));
    const runs: Run[] = [];
    let pages = 0;
    for (let i = 0; i < count; i++) {
      const run = readRun(table, come.length);
      if (run.zero) this.zeros += run.count;
      else pages += run.count;
      if (this.zeros > this.mostZeros) throw new Error('its pages are said to be zero over and over again');
      if (pages > SECTION_PAGES) throw new Error(`more than ${SECTION_PAGES} pages in one section`);
      runs.push(run);
    }
    const rest = from.raw(from.left);
    const data = codec === CODEC.zstd ? await zstdDecompress(rest, pages * PAGE) : rest;
    if (data.length !== pages * PAGE) throw new Error(`${data.length} bytes for ${pages} pages`);
    put(block, come, runs, data);
  }
}

function readRun(from: ByteReader, pages: number): Run {
  const first = from.u32();
  const word = from.u32();
  const count = word & ~ZEROS;
  if (count === 0 || first + count > pages) {
    throw new Error(`a run of ${count} pages from ${first} on is not among its ${pages}`);
  }
  return { zero: (word & ZEROS) !== 0, first, count };
}

function put(block: MemoryBlock, come: Uint8Array, runs: readonly Run[], data: Uint8Array): void {
  let at = 0;
  for (const { zero, first, count } of runs) {
    const into = block.bytes.subarray(first * PAGE, (first + count) * PAGE);
    if (zero) clear(into);
    else {
      into.set(data.subarray(at, at + into.length));
      at += into.length;
    }
    come.fill(1, first, first + count);
    block.changed(first * PAGE, into.length);
  }
}

/** Pages that are zero already are left alone: the host need not give them. */
function clear(bytes: Uint8Array): void {
  const words = wordsOf(bytes);
  for (let page = 0; page * PAGE < bytes.length; page++) {
    if (!isZeroPage(words, page)) bytes.fill(0, page * PAGE, (page + 1) * PAGE);
  }
}
