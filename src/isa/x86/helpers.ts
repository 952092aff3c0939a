/** The registry of helpers that x86 code calls: each file with helpers of its own adds them here. */
import type { Helper } from '../../ir/helpers.ts';

const helpers: Helper[] = [];

/** All helpers; complete once every file with instruction rows has been loaded. */
export const X86_HELPERS: readonly Helper[] = helpers;

export function defineHelper(helper: Omit<Helper, 'index'>): Helper {
  const defined = { ...helper, index: helpers.length };
  helpers.push(defined);
  return defined;
}
