/** What of integer instructions' results is defined. */
import type { Row } from '../../src/isa/x86/tables.ts';
import type { Case } from './native.ts';

const OF = 0x800;
const SF = 0x80;
const ZF = 0x40;
const AF = 0x10;
const PF = 0x04;
const CF = 0x01;
export const DF = 0x400;
const ALL = OF | SF | ZF | AF | PF | CF;

/** Flags that the manual leaves undefined (SDM vol. 2, each instruction's page). */
function undefinedFlags(name: string, code: Uint8Array): number {
  if (/^(AND|OR|XOR|TEST|ANDN)$/.test(name)) return AF | (name === 'ANDN' ? PF : 0);
  if (/^(MUL|IMUL)$/.test(name)) return SF | ZF | AF | PF;
  if (/^(DIV|IDIV)$/.test(name)) return ALL;
  if (/^(SHL|SHR|SAR)$/.test(name)) return AF | OF | (code.length > 0 ? CF : 0);
  if (/^(SHLD|SHRD)$/.test(name)) return AF | OF;
  if (/^(ROL|ROR|RCL|RCR)$/.test(name)) return OF;
  if (/^BT[SRC]?$/.test(name)) return OF | SF | AF | PF;
  if (/^BS[FR]$/.test(name)) return OF | SF | AF | PF | CF;
  if (/^(TZCNT|LZCNT)$/.test(name)) return OF | SF | AF | PF;
  if (/^BLS|BZHI/.test(name)) return AF | PF;
  if (/^(DAA|DAS)$/.test(name)) return OF;
  if (/^(AAA|AAS)$/.test(name)) return OF | SF | ZF | PF;
  if (/^(AAM|AAD)$/.test(name)) return OF | AF | CF;
  if (name === 'BEXTR') return SF | AF | PF;
  return 0;
}

/** Bits of a shift's count, where CF and OF depend on it; -1 when the row is no shift. */
function shiftCount(row: Row, one: Case): number {
  if (!/^(SHL|SHR|SAR|SHLD|SHRD|ROL|ROR|RCL|RCR)$/.test(row.name)) return -1;
  const last = row.operands.at(-1)!;
  if (last.place === '1') return 1;
  return last.place === 'c' ? Number(one.gpr[1]! & 0xffn) : one.code.at(-1)!;
}

/** Arithmetic flags that the manual defines. */
export function maskOf(row: Row, one: Case): number {
  let mask = undefinedFlags(row.name, one.code);
  const wide = !one.mode32 && one.code.some((byte) => (byte & 0xf8) === 0x48);
  const count = shiftCount(row, one);
  if (count < 0) return ALL & ~mask;
  const masked = count & (wide ? 63 : 31);
  if (masked === 0) return ALL;
  if (masked === 1) mask &= ~(OF | CF);
  else if (!/^SH[LR]D$/.test(row.name) && masked < 8) mask &= ~CF;
  return ALL & ~mask;
}

/** The manual leaves 16-bit double shifts by more than 16 undefined. */
export function undefinedResult(row: Row, one: Case): boolean {
  if (!/^SH[LR]D$/.test(row.name)) return false;
  return one.code[0] === 0x66 && (shiftCount(row, one) & 31) > 16;
}
