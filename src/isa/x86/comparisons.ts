/** Comparisons of integers by the numbers of their operations: methods by name would be looked up by text each time. */
import { Op } from '../../ir/ops.ts';

export interface Comparison {
  readonly op32: number;
  readonly op64: number;
  readonly signed: boolean;
}

const comparison = (name: 'eq' | 'ne' | 'ltu' | 'leu' | 'gtu' | 'geu' | 'lts' | 'les' | 'gts' | 'ges'): Comparison => ({
  op32: Op[`${name}32`],
  op64: Op[`${name}64`],
  signed: name.endsWith('s'),
});
export const EQ = comparison('eq');
export const NE = comparison('ne');
export const LTU = comparison('ltu');
export const LEU = comparison('leu');
export const GTU = comparison('gtu');
export const GEU = comparison('geu');
export const LTS = comparison('lts');
export const LES = comparison('les');
export const GTS = comparison('gts');
export const GES = comparison('ges');
