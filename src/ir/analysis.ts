/**
 * One backward pass over a block: which records are dead, which values are used
 * once (and may be computed at their use), and until where each value lives.
 */
import { CALL, EXIT, MEMORY, NONE, OPS, OP_KIND, OP_OPERANDS, PURE, SIDE_EXIT } from './ops.ts';
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

export class BlockAnalysis {
  /** Uses of each value by live records. */
  uses = new Int32Array(256);
  /** Where the value is last needed: the record at which its user is computed. */
  last = new Int32Array(256);
  /** Record at which the value is computed: its own, or its only user's when it is inlined there. */
  position = new Int32Array(256);
  dead = new Uint8Array(256);
  /** How many values are computed around the last use that was found. */
  private nesting = new Uint8Array(256);
  private readonly liveGlobals: Uint8Array;

  constructor(globals: number) {
    this.liveGlobals = new Uint8Array(globals);
  }

  private reset(count: number): void {
    if (count > this.uses.length) {
      const size = count * 2;
      this.uses = new Int32Array(size);
      this.last = new Int32Array(size);
      this.position = new Int32Array(size);
      this.dead = new Uint8Array(size);
      this.nesting = new Uint8Array(size);
    } else {
      this.uses.fill(0, 0, count);
      this.last.fill(-1, 0, count);
      this.dead.fill(0, 0, count);
    }
    this.liveGlobals.fill(1);
  }

  private use(value: number, at: number, nesting: number): void {
    this.nesting[value] = nesting;
    this.uses[value] = this.uses[value]! + 1;
    if (at > this.last[value]!) this.last[value] = at;
  }

  /**
   * @param words records as `Builder` made them  @param count of records
   * @param inline whether pure values with one use are computed at that use
   */
  run(words: Int32Array, count: number, helpers: readonly Helper[], inline: boolean): void {
    this.reset(count);
    const { uses, last, position, dead, nesting, liveGlobals } = this;
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
        if (!liveGlobals[global]) {
          dead[i] = 1;
          continue;
        }
        liveGlobals[global] = 0;
      } else if (isGet[op]) {
        liveGlobals[words[at + 1]!] = 1;
      } else if (kind === MEMORY || kind === EXIT || kind === SIDE_EXIT) {
        liveGlobals.fill(1);
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
        if (helper.touchesGlobals || helper.mayFault) liveGlobals.fill(1);
        for (let k = 2; k < 2 + CALL_OPERANDS; k++) {
          if (words[at + k]! >= 0) this.use(words[at + k]!, pos, depth);
        }
        continue;
      }
      const operands = OP_OPERANDS[op]!;
      if (operands > 0) this.use(words[at + 1]!, pos, depth);
      if (operands > 1) this.use(words[at + 2]!, pos, depth);
      if (operands > 2) this.use(words[at + 3]!, pos, depth);
    }
  }
}
