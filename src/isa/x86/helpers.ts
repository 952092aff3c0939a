/** The registry of helpers that x86 code calls: each file with helpers of its own adds them here. */
import type { Helper, IrSwitch } from '../../ir/helpers.ts';

const helpers: Helper[] = [];

/** All helpers; complete once every file with instruction rows has been loaded. */
export const X86_HELPERS: readonly Helper[] = helpers;

export function defineHelper(helper: Omit<Helper, 'index'>): Helper {
  const defined = { ...helper, index: helpers.length };
  helpers.push(defined);
  return defined;
}

/** A helper made of IR, which only computes a value of its operands. */
export function definePureHelper(helper: Pick<Helper, 'name' | 'params' | 'result'> & IrSwitch): Helper {
  const { name, params, result, ...ir } = helper;
  return defineHelper({ name, params, result, touchesGlobals: false, mayFault: false, body: { kind: 'ir', ir } });
}
