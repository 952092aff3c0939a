/**
 * Repeated string instructions and string port I/O, page by page on host memory. After each
 * piece the registers are those of an interrupted instruction, so a fault finds them right.
 */
import { ACCESS_READ, ACCESS_WRITE } from '../../isa.ts';
import { CTL_CTX } from '../../../ir/vcpu-block.ts';
import { KIND_SUB, ccOp } from '../flags.ts';
import { BF_AC_CHECK, CC_DST, CC_SRC, DF, ES, OP0, OP1, TF } from '../state.ts';
import { AC_FAULT } from './core.ts';
import type { Core } from './core.ts';
import type { Debug } from './debug.ts';
import { AS_CURRENT, putBytes } from './mmu.ts';
import type { Mmu } from './mmu.ts';
import type { Parts } from './parts.ts';
import type { Ports } from './ports.ts';
import type { Segments } from './segments.ts';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RSI = 6;
const RDI = 7;
const HIGH = 0x1_0000_0000;
const PAGE = 4096;
/** Work of one call: interrupts wait no longer than this takes. */
const MAX_BYTES = 65536;
const MAX_PORT_ELEMENTS = 1024;

const MOVS = 0;
const STOS = 1;
const LODS = 2;
const SCAS = 4;

export class Strings {
  private readonly core: Core;
  private readonly mmu: Mmu;
  private readonly ports: Ports;
  private readonly debug: Debug;
  private readonly segs: Segments;
  private readonly u8: Uint8Array;
  private readonly i32: Int32Array;
  private readonly f64: Float64Array;
  private readonly view: DataView;

  // The instruction at hand.
  private size = 1;
  private down = false;
  /** Address size in bytes. */
  private width = 8;
  private wide = false;
  private count = 0;
  private srcLow = 0;
  private srcHigh = 0;
  private dstLow = 0;
  private dstHigh = 0;
  /** Segment of the source. */
  private segment = 0;
  /** Did a comparison end the repetition? */
  private ended = false;

  constructor({ core, mmu, segs, debug }: Parts, ports: Ports) {
    this.core = core;
    this.debug = debug;
    this.segs = segs;
    this.mmu = mmu;
    this.ports = ports;
    this.u8 = core.u8;
    this.i32 = core.i32;
    this.f64 = new Float64Array(core.i32.buffer);
    this.view = core.view;
  }

  private begin(size: number, addressCode: number, segment: number): void {
    const { core } = this;
    this.size = size;
    this.segment = segment;
    this.width = 1 << addressCode;
    this.wide = core.code64;
    this.down = (core.eflags & DF) !== 0;
    this.ended = false;
  }

  /** Elements left, as far as this call is concerned. */
  private readCount(): number {
    const { core } = this;
    const low = core.regLow(RCX);
    if (this.width === 2) return low & 0xffff;
    if (this.width === 8 && core.regHigh(RCX) !== 0) return HIGH;
    return low >>> 0;
  }

  /**
   * Finds the linear address of [base + rSI] or [base + rDI].
   * @returns how many elements from there on the segment holds, at least one, or faults
   */
  private locate(register: number, baseAt: number, source: boolean, write: boolean): number {
    const { core } = this;
    let low = core.regLow(register);
    let high = 0;
    if (this.width === 2) low &= 0xffff;
    else if (this.width === 8) high = core.regHigh(register);
    const room = this.wide ? HIGH : this.segs.room(source ? this.segment : ES, low, this.size, this.down, write);
    const sum = (low >>> 0) + (core.get(baseAt) >>> 0);
    low = sum | 0;
    if (core.flags & BF_AC_CHECK && low & (this.size - 1)) core.fault(AC_FAULT, 0);
    high = this.wide ? (high + core.get(baseAt + 4) + (sum >= HIGH ? 1 : 0)) | 0 : 0;
    if (source) {
      this.srcLow = low;
      this.srcHigh = high;
    } else {
      this.dstLow = low;
      this.dstHigh = high;
    }
    return room;
  }

  /** Elements from a linear address on that lie within its page; 0 when the first crosses it. */
  private inPage(low: number): number {
    const offset = low & (PAGE - 1);
    if (!this.down) return Math.floor((PAGE - offset) / this.size);
    if (offset + this.size > PAGE) return 0;
    return Math.floor(offset / this.size) + 1;
  }

  /** Elements until the index register wraps. */
  private beforeWrap(register: number): number {
    if (this.width === 8) return MAX_BYTES;
    const limit = this.width === 2 ? 0x10000 : HIGH;
    const offset = this.width === 2 ? this.core.regLow(register) & 0xffff : this.core.regLow(register) >>> 0;
    if (this.down) return Math.floor(offset / this.size) + 1;
    return Math.max(1, Math.floor((limit - offset) / this.size));
  }

  private advance(register: number, elements: number): void {
    this.add(register, (this.down ? -elements : elements) * this.size);
  }

  private add(register: number, delta: number): void {
    const { core } = this;
    const sum = (core.regLow(register) >>> 0) + delta;
    const carry = sum >= HIGH ? 1 : sum < 0 ? -1 : 0;
    core.writeReg(register, this.width, sum | 0, (core.regHigh(register) + carry) | 0);
  }

  // --- REP MOVS, STOS, LODS, CMPS, SCAS. ---

  /** @returns true when the instruction is complete */
  repeat(kind: number, repne: boolean, size: number, addressCode: number, segment: number): boolean {
    this.begin(size, addressCode, segment);
    const { core } = this;
    const usesSource = kind === MOVS || kind === LODS || kind === 3;
    const usesTarget = kind !== LODS;
    let budget = core.eflags & TF ? 1 : Math.floor(MAX_BYTES / size);
    while (budget > 0) {
      const left = this.readCount();
      if (left === 0) return true;
      let n = Math.min(left, budget);
      if (usesSource) {
        const room = this.locate(RSI, OP0, true, false);
        n = Math.min(n, room, this.inPage(this.srcLow), this.beforeWrap(RSI));
      }
      if (usesTarget) {
        const room = this.locate(RDI, OP1, false, kind === MOVS || kind === STOS);
        n = Math.min(n, room, this.inPage(this.dstLow), this.beforeWrap(RDI));
      }
      this.count = n;
      const done = this.piece(kind, repne);
      if (usesSource) this.advance(RSI, done);
      if (usesTarget) this.advance(RDI, done);
      this.add(RCX, -done);
      if (this.ended) return true;
      // A breakpoint traps between two elements.
      if (this.debug.isDue) break;
      budget -= done;
    }
    return this.readCount() === 0;
  }

  /** Works on `count` elements, or on one that crosses a page when it is 0. @returns elements done */
  private piece(kind: number, repne: boolean): number {
    switch (kind) {
      case MOVS:
        return this.moveString();
      case STOS:
        return this.storeString();
      case LODS:
        return this.loadString();
      default:
        return this.compareString(kind === SCAS, repne);
    }
  }

  private sourceHost(): number {
    return this.hostOf(this.srcLow, this.srcHigh, ACCESS_READ);
  }

  private targetHost(access: number): number {
    return this.hostOf(this.dstLow, this.dstHigh, access);
  }

  private hostOf(low: number, high: number, access: number): number {
    if (this.debug.watching) return -1;
    const host = this.mmu.hostOf(low, high, AS_CURRENT, access);
    if (host >= 0) this.core.services.reach(low, high, access);
    return host;
  }

  private moveString(): number {
    const n = this.count;
    if (n > 0) {
      const from = this.sourceHost();
      const to = this.targetHost(ACCESS_WRITE);
      if (from >= 0 && to >= 0) {
        this.copy(from, to, n);
        return n;
      }
    }
    this.readElement(this.srcLow, this.srcHigh);
    const { core } = this;
    this.writeElement(core.low, core.high);
    return 1;
  }

  private copy(from: number, to: number, n: number): void {
    const { size, u8 } = this;
    const bytes = n * size;
    if (this.down) {
      const first = from - bytes + size;
      const target = to - bytes + size;
      if (to < from && from - to < bytes) this.copyOneByOne(from, to, n, -size);
      else u8.copyWithin(target, first, first + bytes);
      return;
    }
    const distance = to - from;
    if (distance <= 0 || distance >= bytes) {
      u8.copyWithin(to, from, from + bytes);
      return;
    }
    if (distance < size) return this.copyOneByOne(from, to, n, size);
    // The destination repeats its first `distance` bytes, in ever larger pieces.
    for (let done = 0; done < bytes; ) {
      const length = Math.min(distance + done, bytes - done);
      u8.copyWithin(to + done, from, from + length);
      done += length;
    }
  }

  private copyOneByOne(from: number, to: number, n: number, step: number): void {
    for (let i = 0; i < n; i++) {
      this.u8.copyWithin(to, from, from + this.size);
      from += step;
      to += step;
    }
  }

  private storeString(): number {
    const n = this.count;
    const low = this.core.regLow(RAX);
    const high = this.core.regHigh(RAX);
    if (n > 0) {
      const to = this.targetHost(ACCESS_WRITE);
      if (to >= 0) {
        this.fill(this.down ? to - (n - 1) * this.size : to, n, low, high);
        return n;
      }
      const { size, dstLow, dstHigh } = this;
      if (size < 8 && this.mmu.fillRegisters(dstLow, dstHigh, size, low, n, this.down ? -size : size)) return n;
    }
    this.writeElement(low, high);
    return 1;
  }

  private fill(to: number, n: number, low: number, high: number): void {
    const { size, u8 } = this;
    const byte = low & 0xff;
    const word = (byte * 0x01010101) | 0;
    // Wide elements fill fastest; clearing pages is what kernels do most.
    if (low === 0 && high === 0 && ((to | (n * size)) & 7) === 0) {
      this.f64.fill(0, to / 8, (to + n * size) / 8);
      return;
    }
    const uniform = size === 1 || (size === 2 ? (low & 0xffff) === (word & 0xffff) : low === word);
    if (uniform && (size < 8 || high === word)) {
      u8.fill(byte, to, to + n * size);
      return;
    }
    if (size >= 4 && (to & 3) === 0 && (size === 4 || low === high)) {
      this.i32.fill(low, to / 4, (to + n * size) / 4);
      return;
    }
    if (size === 2) this.view.setInt16(to, low, true);
    else this.view.setInt32(to, low, true);
    if (size === 8) this.view.setInt32(to + 4, high, true);
    const bytes = n * size;
    for (let done = size; done < bytes; done *= 2) {
      u8.copyWithin(to + done, to, to + Math.min(done, bytes - done));
    }
  }

  private loadString(): number {
    const { core } = this;
    let n = this.count;
    // A device sees every read; of memory only the last counts.
    if (n > 1 && this.sourceHost() >= 0) {
      const last = (this.srcLow >>> 0) + (this.down ? -(n - 1) : n - 1) * this.size;
      this.readElement(last | 0, this.srcHigh);
    } else {
      n = 1;
      this.readElement(this.srcLow, this.srcHigh);
    }
    core.writeReg(RAX, this.size, core.low, core.high);
    return n;
  }

  private compareString(scan: boolean, repne: boolean): number {
    const { core, size } = this;
    const n = Math.max(1, this.count);
    const step = this.down ? -size : size;
    // Where both are missing, processors fault at the second operand.
    let to = this.count === 0 ? -1 : this.targetHost(ACCESS_READ);
    let from = this.count === 0 ? -1 : scan ? 0 : this.sourceHost();
    let xLow = core.regLow(RAX);
    let xHigh = core.regHigh(RAX);
    if (from < 0 || to < 0) return this.compareOne(scan, repne);
    let yLow = 0;
    let yHigh = 0;
    let i = 0;
    const mask = size === 1 ? 0xff : size === 2 ? 0xffff : -1;
    for (;;) {
      if (!scan) {
        xLow = this.peek(from);
        if (size === 8) xHigh = this.view.getInt32(from + 4, true);
      }
      yLow = this.peek(to);
      if (size === 8) yHigh = this.view.getInt32(to + 4, true);
      i++;
      const equal = ((xLow ^ yLow) & mask) === 0 && (size < 8 || xHigh === yHigh);
      if (equal === repne) this.ended = true;
      if (this.ended || i === n) break;
      from += step;
      to += step;
    }
    this.setCompared(xLow, xHigh, yLow, yHigh);
    return i;
  }

  private compareOne(scan: boolean, repne: boolean): number {
    const { core, size } = this;
    let xLow = core.regLow(RAX);
    let xHigh = core.regHigh(RAX);
    this.readElement(this.dstLow, this.dstHigh);
    const yLow = core.low;
    const yHigh = core.high;
    if (!scan) {
      this.readElement(this.srcLow, this.srcHigh);
      xLow = core.low;
      xHigh = core.high;
    }
    const mask = size === 1 ? 0xff : size === 2 ? 0xffff : -1;
    const equal = ((xLow ^ yLow) & mask) === 0 && (size < 8 || xHigh === yHigh);
    if (equal === repne) this.ended = true;
    this.setCompared(xLow, xHigh, yLow, yHigh);
    return 1;
  }

  private peek(host: number): number {
    const { size } = this;
    return size === 1 ? this.u8[host]! : size === 2 ? this.view.getUint16(host, true) : this.view.getInt32(host, true);
  }

  /** Flags of first - second. */
  private setCompared(xLow: number, xHigh: number, yLow: number, yHigh: number): void {
    const { core } = this;
    core.set(CTL_CTX, ccOp(KIND_SUB, this.size));
    core.set2(CC_DST, xLow, xHigh);
    core.set2(CC_SRC, yLow, yHigh);
  }

  private readElement(low: number, high: number): void {
    if (this.size === 8) this.mmu.read64(low, high, AS_CURRENT);
    else {
      this.core.low = this.mmu.read(low, high, this.size, AS_CURRENT);
      this.core.high = 0;
    }
  }

  private writeElement(low: number, high: number): void {
    const { mmu } = this;
    if (this.size === 8) mmu.write64(this.dstLow, this.dstHigh, low, high, AS_CURRENT);
    else mmu.write(this.dstLow, this.dstHigh, this.size, low, AS_CURRENT);
  }

  // --- INS and OUTS. ---

  /**
   * A piece of INS or OUTS.
   * @param input INS  @param segment source of OUTS
   * @returns true when the instruction is complete
   */
  port(input: boolean, repeat: boolean, size: number, addressCode: number, segment: number): boolean {
    this.begin(size, addressCode, segment);
    const { core, ports } = this;
    const port = core.regLow(RDX) & 0xffff;
    if (repeat && this.readCount() === 0) return true;
    ports.check(port, size);
    let budget = core.eflags & TF ? 1 : MAX_PORT_ELEMENTS;
    while (budget > 0) {
      let done = 1;
      if (input) done = this.portToMemory(port, repeat ? Math.min(budget, this.readCount()) : 1);
      else this.memoryToPort(port);
      if (!repeat) return true;
      this.add(RCX, -done);
      if (this.readCount() === 0) return true;
      if (this.debug.isDue) break;
      budget -= done;
    }
    return false;
  }

  /** @returns elements done, at most `most` */
  private portToMemory(port: number, most: number): number {
    const { size, mmu } = this;
    const room = this.locate(RDI, OP1, false, true);
    const n = most === 1 ? 1 : Math.min(most, room, this.inPage(this.dstLow), this.beforeWrap(RDI));
    const host = n > 1 ? this.targetHost(ACCESS_WRITE) : -1;
    if (host >= 0) {
      const done = this.portToHost(port, host, n);
      this.advance(RDI, done);
      return done;
    }
    // The device must not be read when the value cannot be stored.
    mmu.probeWrite(this.dstLow, this.dstHigh, size, AS_CURRENT);
    mmu.write(this.dstLow, this.dstHigh, size, this.ports.in(port, size), AS_CURRENT);
    this.advance(RDI, 1);
    return 1;
  }

  /** @param at of the first element, in a page of memory that has all of them  @returns elements done */
  private portToHost(port: number, at: number, n: number): number {
    const { size, view, ports, debug } = this;
    const step = this.down ? -size : size;
    for (let i = 0; i < n; i++, at += step) {
      putBytes(view, at, size, ports.in(port, size));
      if (debug.isDue) return i + 1;
    }
    return n;
  }

  private memoryToPort(port: number): void {
    this.locate(RSI, OP1, true, false);
    this.ports.out(port, this.size, this.mmu.read(this.srcLow, this.srcHigh, this.size, AS_CURRENT));
    this.advance(RSI, 1);
  }
}
