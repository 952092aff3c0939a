/**
 * The host's CPU as a judge: where it cannot be one, since it lacks what is emulated, or does it as its maker does and others
 * do not. Who emulates what an Intel processor does is right on an AMD one, too, in what follows, and the other way round.
 */
import { readFileSync } from 'node:fs';
import type { Row } from '../../src/isa/x86/tables.ts';
import { SIGSEGV, SIGTRAP } from './native.ts';
import type { Case } from './native.ts';

const CPUINFO = readFileSync('/proc/cpuinfo', 'utf8');

export const HOST_VENDOR = /^vendor_id\s*: (\S+)/m.exec(CPUINFO)?.[1] ?? 'GenuineIntel';

const FEATURES = new Set(/^flags\s*: (.*)$/m.exec(CPUINFO)?.[1]?.split(' ') ?? []);
const IS_AMD = HOST_VENDOR === 'AuthenticAMD';

/** Instructions that not all processors with AVX2 have, by the names of their features. */
const OPTIONAL: Record<string, string> = { MOVDIRI: 'movdiri', MOVDIR64B: 'movdir64b', SERIALIZE: 'serialize' };

/** What AMD's processors do otherwise (seen on family 25), as a whole. */
const OTHERWISE: readonly (readonly [reason: string, names: RegExp, mode32?: boolean])[] = [
  ['another exception outside of the kernel', /^SYSEXIT$/],
  ['a trap that under a hypervisor points to itself', /^INT1$/],
  ['none of a register', /^PREFETCHW$/],
  ['which of several NaNs is passed on', /^V?DPP[SD]$/],
  ['nothing with the W bit in 32-bit code', /^V(PINSRD|PEXTRD)$/, true],
  ['all 32 bits are written', /^PUSH [CDEFGS]S$/, true],
];

/** @returns why the host cannot judge an instruction, or null */
export function hostCannotJudge({ name }: Row, mode32: boolean): string | null {
  const feature = OPTIONAL[name];
  if (feature !== undefined && !FEATURES.has(feature)) return 'the host has no such instruction';
  if (!IS_AMD) return null;
  const found = OTHERWISE.find(([, names, only32]) => names.test(name) && (only32 !== true || mode32));
  return found === undefined ? null : `AMD's way: ${found[0]}`;
}

/**
 * AMD's ask for no alignment, or look at their operands in another order: where they fault differs, and what
 * that does to the instructions after them nobody can say.
 */
export const hostFaultsOtherwise = ({ name }: Row): boolean => IS_AMD && /^(SHA|CMPS[BWDQ]$)/.test(name);

/** Is what differs after a case how AMD's processors do it? */
export function isVendorsAffair(row: Row, before: Case, native: Case, ours: Case): boolean {
  if (!IS_AMD) return false;
  // What runs over the end of 32-bit code's addresses is beyond the segment's limit there.
  if (before.mode32 && native.vector === 13 && ours.vector === 14) return true;
  if (hostFaultsOtherwise(row)) return ours.signal === SIGSEGV && (native.signal === SIGSEGV || row.name.startsWith('SHA'));
  // Of the least normal angle: the result is below it.
  if (/^(FSIN|FSINCOS|FPTAN)$/.test(row.name)) return underflows(native) && !underflows(ours);
  // A result that cannot be stored has raised nothing, and one that is too small is not said to be inexact as well.
  return row.name === 'VCVTPS2PH' && native.signal !== SIGTRAP;
}

/** By the x87 status word. */
const underflows = ({ fx }: Case): boolean => (fx[2]! & 0x10) !== 0;
