/** Operations on single floats. Floats are in their slots, but for some whose bits an integer operation has made. */
import * as k from './units.ts';
import { CONSTANT, MEMORY } from './writer.ts';
import type { BlockWriter } from './writer.ts';
import { AND, CC_O, CMP, MOVD, MOVD_FROM, PXOR, RCX } from './x64.ts';
import type { X64 } from './x64.ts';

const MOVSS = 0xf3_0110;
const MOVSD = 0xf2_0110;
const STORE = 1;
/** Parameters of conversions from and to integers: of 64 bits; the operand has 32 of them. */
const LONG = 0x80000000;
const UNSIGNED = 0x40000000;

export class Floats {
  private readonly w: BlockWriter;
  private readonly x: X64;

  constructor(writer: BlockWriter) {
    this.w = writer;
    this.x = writer.x;
  }

  write(kind: number, parameter: number, wide: boolean): void {
    const { w, x } = this;
    const [d, a, b] = [w.word(4), w.word(8), w.word(12)];
    switch (kind) {
      case k.FLOAT:
        this.load(0, a, wide);
        this.load(1, b, wide);
        x.sse(parameter, 0, 1);
        return this.store(d, wide);
      case k.FLOAT_ONE:
        this.load(0, a, wide);
        x.sse(parameter, 0, 0);
        return this.store(d, k.WIDENS.has(parameter) ? !wide : wide);
      case k.FLOAT_COMPARE: {
        const swapped = (parameter & 8) !== 0;
        this.load(0, swapped ? b : a, wide);
        this.load(1, swapped ? a : b, wide);
        x.sse(wide ? 0xf2_01c2 : 0xf3_01c2, 0, 1);
        x.byte(parameter & 7);
        x.sse(MOVD_FROM, 0, RCX);
        x.ri(AND, false, RCX, 1);
        return this.w.defineFrom(d, RCX, false);
      }
      case k.FLOAT_ROUND:
        this.load(0, a, wide);
        x.sse(wide ? 0x66_3a0b : 0x66_3a0a, 0, 0);
        x.byte(parameter | 8);
        return this.store(d, wide);
      case k.FLOAT_SIGN:
        w.moveTo(RCX, a, wide);
        x.rr(0x1ba, wide, parameter === 0 ? 6 : 7, RCX); // BTR, BTC
        x.byte(wide ? 63 : 31);
        return this.w.defineFrom(d, RCX, wide);
      case k.FROM_INTEGER: {
        const long = (parameter & LONG) !== 0;
        w.moveTo(RCX, a, long && (parameter & UNSIGNED) === 0);
        x.sse(PXOR, 0, 0);
        x.sse(parameter & ~(LONG | UNSIGNED), 0, RCX, long);
        return this.store(d, wide);
      }
      default:
        this.toInteger(d, a, parameter, wide);
    }
  }

  /** What the host cannot convert gives the least number there is: rare, so the interpreter's. */
  private toInteger(d: number, a: number, parameter: number, wide: boolean): void {
    const { w, x } = this;
    const long = (parameter & LONG) !== 0;
    this.load(0, a, wide);
    x.sse(parameter & ~LONG, RCX, 0, long);
    x.ri(CMP, long, RCX, 1);
    w.leaveAt(x.jcc(CC_O));
    this.w.defineFrom(d, RCX, long);
  }

  private load(xmm: number, slot: number, wide: boolean): void {
    const { w, x } = this;
    const place = w.where(slot);
    if (place === MEMORY) return x.sseM(wide ? MOVSD : MOVSS, xmm, slot);
    if (place === CONSTANT) x.constant(RCX, w.low, wide ? w.high : 0);
    x.sse(MOVD, xmm, place === CONSTANT ? RCX : place, wide);
  }

  private store(slot: number, wide: boolean): void {
    this.w.forget(slot);
    this.x.sseM((wide ? MOVSD : MOVSS) + STORE, 0, slot);
  }
}
