/** The vCPU's registers as text, for traces. */
import { CR0, CR2, CR3, CR4, CS, DS, EFER, ES, FS, GPR_NAMES, GS, LDTR, SS, TR } from '../state.ts';
import { hex64 } from './core.ts';
import type { Core } from './core.ts';

const SEGMENTS = [
  ['ES', ES],
  ['CS', CS],
  ['SS', SS],
  ['DS', DS],
  ['FS', FS],
  ['GS', GS],
  ['LDT', LDTR],
  ['TR', TR],
] as const;
const CONTROLS = [
  ['CR0', CR0],
  ['CR2', CR2],
  ['CR3', CR3],
  ['CR4', CR4],
  ['EFER', EFER],
] as const;

const hex = (value: number): string => (value >>> 0).toString(16).padStart(8, '0');

/** @returns some lines, without a line break at their end */
export function describeRegisters(core: Core): string {
  const general = GPR_NAMES.map((name, n) => `${name}=${hex64(core.regHigh(n), core.regLow(n))}`);
  const rows = [0, 4, 8, 12].map((from) => general.slice(from, from + 4).join(' '));
  const segments = SEGMENTS.map(
    ([name, n]) =>
      `${name}=${core.segSelector(n).toString(16).padStart(4, '0')} ${hex64(core.segBaseHigh(n), core.segBaseLow(n))} ` +
      `${hex(core.segLimit(n))} ${hex(core.segAttr(n))}`,
  );
  const controls = CONTROLS.map(([name, at]) => `${name}=${hex64(core.get(at + 4), core.get(at))}`);
  return [
    ...rows,
    `rip=${hex64(core.pcHigh, core.pcLow)} eflags=${hex(core.readFlags())} CPL=${core.cpl}`,
    ...segments,
    controls.join(' '),
  ].join('\n');
}
