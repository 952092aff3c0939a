/** What differs between two outcomes of a case. */
import type { DeviceState, StateValue } from '../../src/machine/interfaces.ts';
import { SEG_NULL } from '../../src/isa/x86/state.ts';
import { at, HIGH_BASE, HIGH_SIZE, isReal, LOW_SIZE, type Mode, type Step, TABLES, vectorAt } from './guest.ts';

export interface Outcome {
  /** `end`, `shutdown`, `no end`, or why it cannot go on. */
  readonly ended: string;
  readonly state: DeviceState;
  /** In place. */
  readonly memory: Uint8Array;
}

export interface Subject {
  run(step: Step): Outcome;
}

export interface Rules {
  /** Bits of RFLAGS that may be anything. */
  readonly undefinedFlags: number;
  /** Bits of a page fault's error code that must agree. */
  readonly faultCode: number;
  /** Accessed and dirty bits of page tables must agree. */
  readonly tables: boolean;
}

/** What the kernel does not keep, or tells in another way. */
const NOT_COMPARED = new Set([
  'pending',
  'exceptionWatchers',
  'clockVersion',
  'a20',
  'fcs',
  'fds',
  'pdptes',
  'msrs',
  'fop',
  'fip',
  'fdp',
]);
const SEGMENTS = new Set(['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr']);
/** Exceptions that push an error code. */
const WITH_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21]);

const PAGE_FAULT = 14;

type Segment = { base: bigint; limit: number; attributes: number; selector: number };

const text = (value: StateValue | undefined): string =>
  value instanceof Uint8Array
    ? Buffer.from(value).toString('hex')
    : typeof value === 'bigint' || typeof value === 'number'
      ? value.toString(16)
      : JSON.stringify(value, (_, part) => (typeof part === 'bigint' ? part.toString(16) : part));

/** @param mode in which the case has ended: 64-bit code sees little of a data segment, and nothing of a null one */
function segmentText(name: string, value: Segment): string {
  const { base, limit, attributes, selector } = value;
  if (attributes & SEG_NULL)
    return `null ${selector.toString(16)}${name === 'fs' || name === 'gs' ? ` ${base.toString(16)}` : ''}`;
  return `${selector.toString(16)} ${base.toString(16)} ${limit.toString(16)} ${attributes.toString(16)}`;
}

function fieldText(name: string, value: StateValue | undefined): string {
  return SEGMENTS.has(name) ? segmentText(name, value as unknown as Segment) : text(value);
}

/** Where the flags lie that an interrupt has pushed, an index of memory; -1 for nowhere. */
function pushedFlags({ fields }: DeviceState, mode: Mode): number {
  const vector = vectorAt(fields['rip'] as bigint);
  if (vector < 0) return -1;
  const long = ((fields['efer'] as bigint) & 0x400n) !== 0n;
  const real = isReal(mode) && ((fields['cr0'] as bigint) & 1n) === 0n;
  const [word, code] = long ? [8, 8] : real ? [2, 0] : [4, 4];
  const top = stackTop({ version: 1, fields });
  return top < 0 ? -1 : top + 2 * word + (WITH_CODE.has(vector) && code > 0 ? code : 0);
}

/** What the stack pointer points to, an index of memory; -1 for nowhere. */
function stackTop({ fields }: DeviceState): number {
  const long = ((fields['efer'] as bigint) & 0x400n) !== 0n;
  const sp = (fields['rsp'] as bigint) + (fields['ss'] as unknown as Segment).base * (long ? 0n : 1n);
  const address = Number(sp & 0xffffffffn);
  return address < LOW_SIZE || (address >= HIGH_BASE && address < HIGH_BASE + HIGH_SIZE) ? at(address) : -1;
}

/**
 * @returns a line for each difference
 */
export function differencesOf(step: Step, ours: Outcome, theirs: Outcome, rules: Rules): string[] {
  if (ours.ended !== theirs.ended) return [`ends: ${ours.ended} / ${theirs.ended}${whereOf(ours)}${whereOf(theirs)}`];
  if (ours.ended === 'shutdown') return [];
  const list = fieldDifferences(ours.state, theirs.state, rules.undefinedFlags);
  return [...list, ...memoryDifferences(step, ours, theirs, rules)];
}

/** @param undefinedFlags bits of RFLAGS that may be anything */
export function fieldDifferences(ours: DeviceState, theirs: DeviceState, undefinedFlags: number): string[] {
  const list: string[] = [];
  const mask = ~BigInt(undefinedFlags);
  const [a, b] = [ours.fields, theirs.fields];
  for (const name of Object.keys(a)) {
    if (NOT_COMPARED.has(name)) continue;
    const flags = name === 'rflags';
    const [x, y] = flags ? [(a[name] as bigint) & mask, (b[name] as bigint) & mask] : [a[name], b[name]];
    if (fieldText(name, x) !== fieldText(name, y)) list.push(`${name} ${fieldText(name, x)} / ${fieldText(name, y)}`);
  }
  return list;
}

const whereOf = ({ state }: Outcome): string => {
  const rip = state.fields['rip'] as bigint;
  const vector = vectorAt(rip);
  return vector < 0 ? ` at ${rip.toString(16)}` : ` vector ${vector}`;
};

function memoryDifferences(
  { mode }: Step,
  ours: Outcome,
  theirs: Outcome,
  { undefinedFlags, faultCode, tables }: Rules,
): string[] {
  const [a, b] = [
    Buffer.from(ours.memory.buffer, ours.memory.byteOffset, ours.memory.length),
    Buffer.from(theirs.memory.buffer, theirs.memory.byteOffset, theirs.memory.length),
  ];
  if (a.equals(b)) return [];
  const flags = pushedFlags(ours.state, mode);
  const code = vectorAt(ours.state.fields['rip'] as bigint) === PAGE_FAULT ? stackTop(ours.state) : -1;
  const list: string[] = [];
  for (let i = 0; i < a.length && list.length < 8; i++) {
    if (a[i] === b[i] || (!tables && i >= TABLES && i < LOW_SIZE)) continue;
    if (i === code && ((a[i]! ^ b[i]!) & faultCode) === 0) continue;
    const byte = i - flags;
    if (flags >= 0 && byte >= 0 && byte < 4 && (((a[i]! ^ b[i]!) << (8 * byte)) & ~undefinedFlags) === 0) continue;
    const address = i < LOW_SIZE ? i : i - LOW_SIZE + HIGH_BASE;
    list.push(`[${address.toString(16)}] ${a[i]!.toString(16)} / ${b[i]!.toString(16)}`);
  }
  return list;
}
