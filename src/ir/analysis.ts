/**
 * One backward pass over a block: which records are dead, which values are used
 * once (and may be computed at their use), and until where each value lives.
 */
import { CALL, EXIT, IS_COMPARISON, MEMORY, NONE, OPS, OP_KIND, OP_OPERANDS, Op, PURE, SIDE_EXIT } from './ops.ts';
import { STRIDE } from './builder.ts';
import type { Helper } from './helpers.ts';

const isSet = new Uint8Array(OPS.length);
const isGet = new Uint8Array(OPS.length);
/** Operations that only read, so that they may go when nobody uses the value. */
const isRead = new Uint8Array(OPS.length);
for (const op of OPS) {
  if (op.name.startsWith('setg')) isSet[op.index] = 1;
  if (op.name.startsWith('getg')) isGet[op.index] = 1;
  if (op.kind === PURE || op.name.startsWith('getg') || op.name.startsWith('lds')) isRead[op.index] = 1;
  if (op.name === 'getctx' || op.name === 'pcbase') isRead[op.index] = 1;
}
export const IS_SET: Readonly<Uint8Array> = isSet;
export const IS_GET: Readonly<Uint8Array> = isGet;

/** Values that are computed within each other's uses, at most: the emitter recurses. */
const MAX_NESTING = 100;

/** Operand values of calls stand in words 2 to 5. */
export const CALL_OPERANDS = 4;

/** Helpers made of IR only compute a value: x86 flags that nobody reads, mostly. */
function isPureCall(helper: Helper): boolean {
  return helper.body.kind === 'ir' && !helper.touchesGlobals && !helper.mayFault && helper.result !== NONE;
}

/** Is the value another name for its operand, in whose place it is? What `wrap` names keeps its upper half, so extending that is none. */
export function isAlias(words: Int32Array, op: number, operand: number): boolean {
  if (op === Op.wrap) return true;
  if (op !== Op.extu) return false;
  const source = words[operand * STRIDE];
  return source !== Op.wrap && source !== Op.getg32;
}

export class BlockAnalysis {
  /** Uses of each value by live records. */
  uses = new Int32Array(256);
  /** Where the value is last needed: the record at which its user is computed. */
  last = new Int32Array(256);
  /** Record at which the value is computed: its own, or its only user's when it is inlined there. */
  position = new Int32Array(256);
  dead = new Uint8Array(256);
  /**
   * Unless values are inlined: its user computes the value. So it is with the addition of a constant to an address, which
   * becomes the access's displacement, and with the comparison that the block's branch depends on.
   */
  folded = new Uint8Array(256);
  /** How many values are computed around the last use that was found. */
  private nesting = new Uint8Array(256);
  /** For each global: the number in force when it was seen to be overwritten later without a need for what it holds. */
  private readonly overwritten: Int32Array;
  /** Another number makes all globals needed. */
  private inForce = 0;

  constructor(globals: number) {
    this.overwritten = new Int32Array(globals);
  }

  private reset(count: number): void {
    if (count > this.uses.length) {
      const size = count * 2;
      this.uses = new Int32Array(size);
      this.last = new Int32Array(size);
      this.position = new Int32Array(size);
      this.dead = new Uint8Array(size);
      this.nesting = new Uint8Array(size);
      this.folded = new Uint8Array(size);
    }
    const { uses, last, dead, folded } = this;
    for (let i = 0; i < count; i++) {
      uses[i] = 0;
      last[i] = -1;
      dead[i] = 0;
      folded[i] = 0;
    }
    this.inForce++;
  }

  private use(value: number, at: number, nesting: number): void {
    this.nesting[value] = nesting;
    this.uses[value] = this.uses[value]! + 1;
    if (at > this.last[value]!) this.last[value] = at;
  }

  /** May the only user of a value compute it? See `folded`. */
  private mayFold(words: Int32Array, value: number, op: number): boolean {
    const user = this.last[value]! * STRIDE;
    // It may be an operand of another folded value, which has that place.
    if (words[user + 1] !== value) return false;
    if (op !== Op.add64) return IS_COMPARISON[op] === 1 && words[user] === Op.condgoto;
    const constant = words[value * STRIDE + 2]! * STRIDE;
    return (
      OP_KIND[words[user]!] === MEMORY && words[constant] === Op.const64 && words[constant + 2] === words[constant + 1]! >> 31
    );
  }

  /**
   * @param words records as `Builder` made them  @param count of records
   * @param inline whether pure values with one use are computed at that use; else some are folded into it
   */
  run(words: Int32Array, count: number, helpers: readonly Helper[], inline: boolean): void {
    this.reset(count);
    const { uses, last, position, dead, nesting, overwritten, folded } = this;
    for (let i = count - 1; i >= 0; i--) {
      const at = i * STRIDE;
      const op = words[at]!;
      const kind = OP_KIND[op]!;
      if (isRead[op] && uses[i] === 0) {
        dead[i] = 1;
        continue;
      }
      if (isSet[op]) {
        const global = words[at + 2]!;
        if (overwritten[global] === this.inForce) {
          dead[i] = 1;
          continue;
        }
        overwritten[global] = this.inForce;
      } else if (isGet[op]) {
        overwritten[words[at + 1]!] = 0;
      } else if (kind === MEMORY || kind === EXIT || kind === SIDE_EXIT) {
        this.inForce++;
      }
      if (kind === CALL && uses[i] === 0 && isPureCall(helpers[words[at + 1]!]!)) {
        dead[i] = 1;
        continue;
      }
      const nested = inline && kind === PURE && uses[i] === 1 && nesting[i]! < MAX_NESTING;
      const pos = nested ? last[i]! : i;
      const depth = nested ? nesting[i]! + 1 : 0;
      position[i] = pos;
      if (kind === CALL) {
        const helper = helpers[words[at + 1]!]!;
        if (helper.touchesGlobals || helper.mayFault) this.inForce++;
        for (let k = 2; k < 2 + CALL_OPERANDS; k++) {
          if (words[at + k]! >= 0) this.use(words[at + k]!, pos, depth);
        }
        continue;
      }
      if (!inline) {
        if (uses[i] === 1 && this.mayFold(words, i, op)) {
          folded[i] = 1;
          const user = last[i]!;
          this.use(words[at + 1]!, user, 0);
          // The displacement needs no place of its own.
          if (op !== Op.add64 && OP_OPERANDS[op]! > 1) this.use(words[at + 2]!, user, 0);
          continue;
        }
        if (isAlias(words, op, words[at + 1]!)) {
          this.use(words[at + 1]!, Math.max(i, last[i]!), 0);
          continue;
        }
      }
      const operands = OP_OPERANDS[op]!;
      if (operands > 0) this.use(words[at + 1]!, pos, depth);
      if (operands > 1) this.use(words[at + 2]!, pos, depth);
      if (operands > 2) this.use(words[at + 3]!, pos, depth);
    }
  }
}
