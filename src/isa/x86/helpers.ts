/** The registry of helpers that x86 code calls: each file with helpers of its own adds them here. */
import type { Helper, IrSwitch } from '../../ir/helpers.ts';
import type { Inline } from '../../wasm/structured.ts';

const helpers: Helper[] = [];
const inlines = new Map<number, Inline>();

/** All helpers; complete once every file with instruction rows has been loaded. */
export const X86_HELPERS: readonly Helper[] = helpers;
/** Fast paths of some, by their numbers: see Isa.inlines. */
export const X86_INLINES: ReadonlyMap<number, Inline> = inlines;

export function defineHelper(helper: Omit<Helper, 'index'>, inline?: Inline): Helper {
  const defined = { ...helper, index: helpers.length };
  helpers.push(defined);
  if (inline) inlines.set(defined.index, inline);
  return defined;
}

/** A helper made of IR, which only computes a value of its operands. */
export function definePureHelper(helper: Pick<Helper, 'name' | 'params' | 'result'> & IrSwitch): Helper {
  const { name, params, result, ...ir } = helper;
  return defineHelper({ name, params, result, touchesGlobals: false, mayFault: false, body: { kind: 'ir', ir } });
}
