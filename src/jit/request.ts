/**
 * What the vCPU's thread asks a compiler for, and gets back: flat words, so that it can go to
 * another thread.
 */

/** A hot block that is to become a region. */
export interface RegionRequest {
  /** Linear address of the block's first byte, low and high half. */
  readonly low: number;
  readonly high: number;
  /** Its number. */
  readonly block: number;
  /** The mode it runs in, and the upper half of CTL_CODE_KEY for that. */
  readonly flags: number;
  readonly key: number;
  /** Where it lies in the memory: page number, offset in it, the page it runs into or -1. */
  readonly page: number;
  readonly offset: number;
  readonly secondPage: number;
  /** Address of the TLB by which it runs, and how often that had been emptied (layout.ts, EPOCH). */
  readonly tlb: number;
  readonly epoch: number;
  /** Table slot that the function goes to. */
  readonly slot: number;
  /** Cell that runs the block in the interpreter, when a guard does not hold. */
  readonly fallbackCell: number;
  /**
   * Room for MAX_GUARDS guards of the region's (layout.ts, GUARD_*), behind them for MAX_LINKS links (LINK_*), and
   * behind those a word that counts down how often it is entered.
   */
  readonly guards: number;
  /** 1: the region takes the place of one that is entered very often, and takes in blocks that have regions, too. */
  readonly wide: number;
}

const FIELDS = [
  'low',
  'high',
  'block',
  'flags',
  'key',
  'page',
  'offset',
  'secondPage',
  'tlb',
  'epoch',
  'slot',
  'fallbackCell',
  'guards',
  'wide',
] as const satisfies readonly (keyof RegionRequest)[];

export function writeRequests(requests: readonly RegionRequest[]): Int32Array {
  return Int32Array.from(requests.flatMap((request) => FIELDS.map((field) => request[field])));
}

export function readRequests(words: Int32Array): RegionRequest[] {
  const requests: RegionRequest[] = [];
  for (let at = 0; at < words.length; at += FIELDS.length) {
    const values = FIELDS.map((field, i) => [field, words[at + i]!] as const);
    requests.push(Object.fromEntries(values) as unknown as RegionRequest);
  }
  return requests;
}

/** What came of a request. */
export interface MadeRegion {
  /** Bytes that the region was made from, by page: [page, first, last + 1] triples; none = it could not be made. */
  readonly ranges: number[];
  /** Why it could not be made, if that is a mistake of the compiler's. */
  readonly error?: string;
  /** Number of its first instruction that may fault. */
  readonly faultBase: number;
  /** [pc offset, context, instructions of its block from it on] of each such instruction. */
  readonly faults: Int32Array;
}

/** The answer to a batch of requests, in their order. */
export interface CompiledBatch {
  /** Puts the functions into their table slots when it is instantiated; null when there are none. */
  readonly module: WebAssembly.Module | null;
  readonly regions: readonly MadeRegion[];
}
