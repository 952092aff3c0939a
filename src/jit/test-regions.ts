/** Control-flow graphs as a source of region blocks. */
import { Builder, CTX_UNKNOWN, STRIDE } from '../ir/builder.ts';
import { I32 } from '../ir/ops.ts';
import type { RegionBlock, RegionSource } from './region.ts';
import { constantTargets } from './region.ts';

export interface GraphOptions {
  /** Blocks that read the context they are entered with. */
  readonly readers?: readonly number[];
  /** Context that a block leaves behind. */
  readonly contexts?: Record<number, number>;
  readonly cold?: readonly number[];
  readonly insns?: number;
}

/** @param edges by offset: no target = leaves, one = goes on, two = branches, more = jumps */
export function graphSource(edges: Record<number, readonly number[]>, options: GraphOptions = {}): RegionSource {
  const b = new Builder([{ name: 'x', index: 0, type: I32, offset: 256 }]);
  const translate = (offset: number, ctx: number): RegionBlock | null => {
    const targets = edges[offset];
    if (!targets) return null;
    b.reset(ctx);
    for (let i = 0; i < (options.insns ?? 2); i++) b.insn(offset + i);
    if (ctx === CTX_UNKNOWN && options.readers?.includes(offset)) b.entryContext();
    b.ctx = options.contexts?.[offset] ?? b.ctx;
    if (targets.length === 0) b.leave(16, 0, offset);
    else if (targets.length === 1) b.goto(targets[0]!);
    else if (targets.length === 2) b.condGoto(b.i32(1), targets[0]!, targets[1]!);
    else b.jump(b.i64(0));
    const words = b.words.slice(0, b.count * STRIDE);
    const known = targets.length > 2 ? [...targets] : constantTargets(words, b.count);
    return { words, count: b.count, insns: b.insns, usesContext: b.usesContext, targets: known, computed: targets.length > 2 };
  };
  return { translate, worthwhile: (offset) => !options.cold?.includes(offset) };
}
