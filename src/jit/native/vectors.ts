/** Operations on vectors, which are always in their slots. */
import * as k from './units.ts';
import type { BlockWriter } from './writer.ts';
import { AND, CC_E, CC_NE, MOVD, MOVDQU, MOVDQU_STORE, PXOR, RCX } from './x64.ts';
import type { X64 } from './x64.ts';

const PCMPEQB = 0x66_0174;
/** Comparison for equality, but for the last byte of its opcode. */
const PCMPEQ = 0x66_0100;
const PAND = 0x66_01db;
const PANDN = 0x66_01df;
const POR = 0x66_01eb;
const PSHUFB = 0x66_3800;
const PTEST = 0x66_3817;
const PSRLDQ = 0x66_0173;
const PSHUFD = 0x66_0170;
const PSHUFLW = 0xf2_0170;
const PUNPCKLQDQ = 0x66_016c;
const PACKSSWB = 0x66_0163;
const PMOVMSKB = 0x66_01d7;
const PADDUSB = 0x66_01dc;
/** Added to a byte below 16 it leaves its low bits; others get bit 7. */
const OUT_OF_RANGE = 0x70707070;

export class Vectors {
  private readonly w: BlockWriter;
  private readonly x: X64;

  constructor(writer: BlockWriter) {
    this.w = writer;
    this.x = writer.x;
  }

  write(kind: number, parameter: number): void {
    if (kind <= k.VECTOR_OTHER) return this.twoOperands(kind, parameter);
    if (kind >= k.ANY_TRUE && kind <= k.BIT_MASK_WORDS) return this.toInteger(kind, parameter);
    if (kind === k.VECTOR_STATE_STORE) return this.stateStore();
    this.toVector(kind, parameter);
    this.store();
  }

  private load(xmm: number, at: number): void {
    this.x.sseM(MOVDQU, xmm, this.w.word(at));
  }

  private store(): void {
    this.x.sseM(MOVDQU_STORE, 0, this.w.word(4));
  }

  private invert(): void {
    this.x.sse(PCMPEQB, 1, 1);
    this.x.sse(PXOR, 0, 1);
  }

  private twoOperands(kind: number, parameter: number): void {
    const { x } = this;
    const swapped = kind === k.VECTOR_SWAPPED || kind === k.VECTOR_SWAPPED_NOT;
    this.load(0, swapped ? 12 : 8);
    this.load(1, swapped ? 8 : 12);
    x.sse(parameter & 0xffffff, 0, 1);
    if (kind >= k.VECTOR_SAME) x.sse(PCMPEQ | (parameter >>> 24), 0, 1);
    if (kind === k.VECTOR_NOT || kind === k.VECTOR_SWAPPED_NOT || kind === k.VECTOR_OTHER) this.invert();
    this.store();
  }

  /** Leaves the result in xmm0. */
  private toVector(kind: number, parameter: number): void {
    const { w, x } = this;
    switch (kind) {
      case k.VECTOR_ONE:
        this.load(0, 8);
        return x.sse(parameter, 0, 0);
      case k.VECTOR_HIGH:
        this.load(0, 8);
        x.sse(PSRLDQ, 3, 0);
        x.byte(8);
        return x.sse(parameter, 0, 0);
      case k.VECTOR_SHIFT:
        w.moveTo(RCX, w.word(12), false);
        x.ri(AND, false, RCX, parameter >>> 24);
        x.sse(MOVD, 1, RCX);
        this.load(0, 8);
        return x.sse(parameter, 0, 1);
      case k.VECTOR_NEGATE:
        x.sse(PXOR, 0, 0);
        this.load(1, 8);
        return x.sse(parameter, 0, 1);
      case k.VECTOR_INVERT:
        this.load(0, 8);
        return this.invert();
      case k.VECTOR_SELECT_BITS:
        this.load(0, 16);
        this.load(1, 8);
        x.sse(PAND, 1, 0);
        this.load(2, 12);
        x.sse(PANDN, 0, 2);
        return x.sse(POR, 0, 1);
      case k.VECTOR_SELECT: {
        this.load(0, 12);
        w.testZero(w.word(8), false);
        const over = x.jcc(CC_NE);
        this.load(0, 16);
        return x.land(over);
      }
      case k.VECTOR_COMPARE: {
        const swapped = parameter >>> 31 !== 0;
        this.load(0, swapped ? 12 : 8);
        this.load(1, swapped ? 8 : 12);
        x.sse(parameter & 0xffffff, 0, 1);
        return x.byte((parameter >>> 24) & 7);
      }
      case k.VECTOR_ROUND:
        this.load(0, 8);
        x.sse(parameter & 0xffffff, 0, 0);
        return x.byte(parameter >>> 24);
      case k.SPLAT:
        return this.splat(parameter);
      case k.SET_LANE:
        return this.setLane(parameter);
      case k.SHUFFLE:
        return this.shuffle();
      case k.LOOK_UP:
        this.load(0, 8);
        this.load(1, 12);
        return x.sse(PSHUFB, 0, 1);
      case k.SWIZZLE:
        this.load(0, 8);
        this.load(1, 12);
        this.withLiteral(PADDUSB, 1, [OUT_OF_RANGE, OUT_OF_RANGE, OUT_OF_RANGE, OUT_OF_RANGE]);
        return x.sse(PSHUFB, 0, 1);
      case k.MOVE_V:
        return this.load(0, 8);
      default:
        w.moveTo(RCX, w.word(8), false);
        x.sseX(MOVDQU, 0, RCX, w.word(12));
    }
  }

  private stateStore(): void {
    const { w, x } = this;
    w.moveTo(RCX, w.word(8), false);
    this.load(0, 4);
    x.sseX(MOVDQU_STORE, 0, RCX, w.word(12));
  }

  private withLiteral(code: number, xmm: number, words: readonly number[]): void {
    this.x.sseA(code, xmm, 0);
    this.w.literal(words);
  }

  private splat(bytes: number): void {
    const { w, x } = this;
    w.moveTo(RCX, w.word(8), bytes === 8);
    x.sse(MOVD, 0, RCX, bytes === 8);
    if (bytes === 8) return x.sse(PUNPCKLQDQ, 0, 0);
    if (bytes === 1) {
      x.sse(PXOR, 1, 1);
      return x.sse(PSHUFB, 0, 1);
    }
    if (bytes === 2) {
      x.sse(PSHUFLW, 0, 0);
      x.byte(0);
    }
    x.sse(PSHUFD, 0, 0);
    x.byte(0);
  }

  private setLane(parameter: number): void {
    const { w, x } = this;
    const wide = parameter >>> 31 !== 0;
    const bytes = (parameter >>> 24) & 15;
    const offset = w.words[w.ip >> 2]! >>> 16;
    w.moveTo(RCX, w.word(12), wide);
    this.load(0, 8);
    x.sse(parameter & 0xffffff, 0, RCX, wide);
    x.byte(offset / bytes);
  }

  private shuffle(): void {
    const { w, x } = this;
    const masks = [0, 16].map((first) =>
      [16, 20, 24, 28].map((at) => {
        let mask = 0;
        for (let i = 0; i < 4; i++) {
          const lane = ((w.word(at) >>> (8 * i)) & 31) - first;
          mask |= (lane >= 0 && lane < 16 ? lane : 0x80) << (8 * i);
        }
        return mask;
      }),
    );
    for (let i = 0; i < 2; i++) {
      this.load(i, i === 0 ? 8 : 12);
      this.withLiteral(PSHUFB, i, masks[i]!);
    }
    x.sse(POR, 0, 1);
  }

  private toInteger(kind: number, parameter: number): void {
    const { w, x } = this;
    this.load(0, 8);
    if (kind === k.ANY_TRUE || kind === k.ALL_TRUE) {
      if (kind === k.ALL_TRUE) {
        x.sse(PXOR, 1, 1);
        x.sse(parameter, 0, 1);
      }
      x.sse(PTEST, 0, 0);
      return w.defineBy(kind === k.ANY_TRUE ? CC_NE : CC_E);
    }
    if (kind === k.BIT_MASK_WORDS) x.sse(PACKSSWB, 0, 0);
    x.sse(kind === k.BIT_MASK_WORDS ? PMOVMSKB : parameter, RCX, 0);
    if (kind === k.BIT_MASK_WORDS) x.ri(AND, false, RCX, 0xff);
    w.defineFrom(w.word(4), RCX, false);
  }
}
