import { FetchFault } from '../isa/isa.ts';
import type { CodeReader } from '../isa/isa.ts';

const PAGE = 4096;

/** What a reader throws when its next page cannot be had. */
export const FETCH_FAULT = new FetchFault('code page not executable');

/** Reads code through the execute mapping, page by page, ahead from a block's first byte. */
export class PageReader implements CodeReader {
  offset = 0;
  pageEnd = 0;
  private nextHostPage = -1;
  /** The page that could not be fetched is no memory at all. */
  nowhere = false;
  private address = 0;
  private limit = 0;
  private low = 0;
  private high = 0;
  private readonly bytes: Uint8Array;
  private readonly codeHost: (low: number, high: number) => number;

  /** @param codeHost address in the memory of the code byte at a linear address; -1, or less where no memory is */
  constructor(bytes: Uint8Array, codeHost: (low: number, high: number) => number) {
    this.bytes = bytes;
    this.codeHost = codeHost;
  }

  /** @param host address of the first byte  @param low linear address of it */
  begin(host: number, low: number, high: number, offset: number): void {
    this.offset = offset;
    this.nextHostPage = -1;
    this.nowhere = false;
    this.address = host;
    this.limit = (Math.floor(host / PAGE) + 1) * PAGE;
    this.pageEnd = offset + this.limit - host;
    this.low = low;
    this.high = high;
  }

  /** Page that what was read runs into, or -1. */
  get secondPage(): number {
    return this.offset > this.pageEnd ? this.nextHostPage : -1;
  }

  u8(): number {
    if (this.address >= this.limit) this.nextPage();
    this.offset++;
    return this.bytes[this.address++]!;
  }

  peek(distance: number): number {
    return this.bytes[this.address + distance]!;
  }

  private nextPage(): void {
    const sum = ((this.low & ~0xfff) >>> 0) + PAGE;
    this.low = sum | 0;
    if (sum > 0xffffffff) this.high = (this.high + 1) | 0;
    const host = this.codeHost(this.low, this.high);
    if (host < 0) {
      this.nowhere = host !== -1;
      throw FETCH_FAULT;
    }
    this.nextHostPage = Math.floor(host / PAGE);
    this.address = host;
    this.limit = host + PAGE;
  }
}
