/** A few words of AML, enough to describe a PC: ACPI specification 6.4, chapter 20. */

export type Aml = number[];

/** PkgLength counts itself (20.2.4). */
function withLength(content: Aml): Aml {
  for (let own = 1; own <= 4; own++) {
    const total = content.length + own;
    if (own === 1 && total < 0x40) return [total, ...content];
    if (own > 1 && total < 2 ** (4 + 8 * (own - 1))) {
      const lead = ((own - 1) << 6) | (total & 15);
      const rest = [total >> 4, total >> 12, total >> 20].slice(0, own - 1).map((b) => b & 0xff);
      return [lead, ...rest, ...content];
    }
  }
  throw new Error('AML package is too long');
}

/** A path of four-letter segments, e.g. `\_SB.PCI0`, or `^S08.PCNT` from the scope above (20.2.2). */
export function nameString(path: string): Aml {
  const root = path.startsWith('\\') ? [0x5c] : path.startsWith('^') ? [0x5e] : [];
  const segments = path
    .replace(/^[\\^]/, '')
    .split('.')
    .filter((part) => part !== '');
  const bytes = segments.flatMap((part) => [...part.padEnd(4, '_')].map((c) => c.charCodeAt(0)));
  if (segments.length === 0) return [...root, 0];
  if (segments.length === 1) return [...root, ...bytes];
  if (segments.length === 2) return [...root, 0x2e, ...bytes];
  return [...root, 0x2f, segments.length, ...bytes];
}

export function integer(value: number): Aml {
  if (value === 0) return [0x00];
  if (value === 1) return [0x01];
  if (value <= 0xff) return [0x0a, value];
  if (value <= 0xffff) return [0x0b, value & 0xff, value >> 8];
  return [0x0c, ...le32(value)];
}

export function text(value: string): Aml {
  return [0x0d, ...[...value].map((c) => c.charCodeAt(0)), 0];
}

/** Compressed identifier such as PNP0A03 (19.3.4). */
export function eisaId(id: string): Aml {
  const letter = (i: number) => id.charCodeAt(i) - 0x40;
  const vendor = (letter(0) << 10) | (letter(1) << 5) | letter(2);
  const product = parseInt(id.slice(3), 16);
  return [0x0c, vendor >> 8, vendor & 0xff, product >> 8, product & 0xff];
}

export function name(path: string, value: Aml): Aml {
  return [0x08, ...nameString(path), ...value];
}

export function scope(path: string, ...content: Aml[]): Aml {
  return [0x10, ...withLength([...nameString(path), ...content.flat()])];
}

export function device(path: string, ...content: Aml[]): Aml {
  return [0x5b, 0x82, ...withLength([...nameString(path), ...content.flat()])];
}

/** @param parameters number of arguments, which `argument` names */
export function method(path: string, parameters: number, ...content: Aml[]): Aml {
  return [0x14, ...withLength([...nameString(path), parameters, ...content.flat()])];
}

/** Value of a method's argument, 0 to 6. */
export const argument = (index: number): Aml => [0x68 + index];
/** A variable of a method, 0 to 7. */
export const local = (index: number): Aml => [0x60 + index];
/** What a name stands for, or a call of a method with its arguments. */
export const call = (path: string, ...given: Aml[]): Aml => [...nameString(path), ...given.flat()];

export function store(value: Aml, into: string | Aml): Aml {
  return [0x70, ...value, ...(typeof into === 'string' ? nameString(into) : into)];
}

const NOWHERE: Aml = [0];

export const and = (a: Aml, b: Aml, into: Aml = NOWHERE): Aml => [0x7b, ...a, ...b, ...into];
export const or = (a: Aml, b: Aml, into: Aml = NOWHERE): Aml => [0x7d, ...a, ...b, ...into];
export const shiftLeft = (value: Aml, by: Aml, into: Aml = NOWHERE): Aml => [0x79, ...value, ...by, ...into];
export const equal = (a: Aml, b: Aml): Aml => [0x93, ...a, ...b];
export const not = (value: Aml): Aml => [0x92, ...value];
export const when = (condition: Aml, ...then: Aml[]): Aml => [0xa0, ...withLength([...condition, ...then.flat()])];
/** Follows `when`. */
export const otherwise = (...then: Aml[]): Aml => [0xa1, ...withLength(then.flat())];
export const giveBack = (value: Aml): Aml => [0xa4, ...value];
/** An element of a package or a buffer (19.6.63). */
export const element = (of: Aml, at: number): Aml => [0x88, ...of, ...integer(at), ...NOWHERE];
/** Tells the system of an event at a device (19.6.90). */
export const notify = (device: string, event: Aml): Aml => [0x86, ...nameString(device), ...event];

export const mutex = (name: string): Aml => [0x5b, 0x01, ...nameString(name), 0];
/** Waits for as long as it takes. */
export const acquire = (name: string): Aml => [0x5b, 0x23, ...nameString(name), 0xff, 0xff];
export const release = (name: string): Aml => [0x5b, 0x27, ...nameString(name)];

/** Address spaces of regions (19.6.100). */
const SYSTEM_MEMORY = 0;
const SYSTEM_IO = 1;

/** Ports with words of 32 bits by name; what is not written of one is zero (20.2.5.2). */
export function portFields(region: string, base: number, names: readonly string[]): Aml {
  return wordFields(SYSTEM_IO, region, base, names);
}

/** The same of memory. */
export function memoryFields(region: string, base: number, names: readonly string[]): Aml {
  return wordFields(SYSTEM_MEMORY, region, base, names);
}

function wordFields(space: number, region: string, base: number, names: readonly string[]): Aml {
  // Accesses of 32 bits, no lock, the rest written as zeros.
  const flags = 0x43;
  const words = names.flatMap((word) => [...nameString(word), 32]);
  const place = [...nameString(region), space, ...integer(base), ...integer(4 * names.length)];
  return [0x5b, 0x80, ...place, 0x5b, 0x81, ...withLength([...nameString(region), flags, ...words])];
}

/** Names 32 bits of a buffer (19.6.20). @param at bytes from its start */
export const dwordField = (buffer: Aml, at: number, field: string): Aml => [
  0x8a,
  ...buffer,
  ...integer(at),
  ...nameString(field),
];

/** The 16 bytes of an identifier, as its text's first three groups have them the other way round (19.6.142). */
export function uuid(value: string): Aml {
  const bytes = value.match(/[0-9a-f]{2}/gi)!.map((pair) => Number.parseInt(pair, 16));
  return buffer([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map((at) => bytes[at]!));
}

/** Gives back one object by its name if another is not zero, else a second one. */
export function returnEither(condition: string, one: string, other: string): Aml {
  return [0xa0, ...withLength([...nameString(condition), 0xa4, ...nameString(one)]), 0xa4, ...nameString(other)];
}

export function packageOf(...elements: Aml[]): Aml {
  return [0x12, ...withLength([elements.length, ...elements.flat()])];
}

export function buffer(bytes: Aml): Aml {
  return [0x11, ...withLength([...integer(bytes.length), ...bytes])];
}

/** A resource template, closed by its end tag. */
export function resources(...items: Aml[]): Aml {
  // End tag with a checksum of zero, which means "do not check" (6.4.2.9).
  return buffer([...items.flat(), 0x79, 0x00]);
}

/** I/O port descriptor with a fixed base (6.4.2.5). */
export function ioPorts(base: number, count: number): Aml {
  return [0x47, 0x01, base & 0xff, base >> 8, base & 0xff, base >> 8, 0x01, count];
}

/** IRQ descriptor without flags: edge-triggered, active high, exclusive (6.4.2.1). */
export function irq(number: number): Aml {
  const mask = 1 << number;
  return [0x22, mask & 0xff, mask >> 8];
}

/** Extended interrupt descriptor: an input of an I/O APIC, level-triggered, active high, exclusive (6.4.3.6). */
export function levelInterrupt(input: number): Aml {
  return [0x89, 6, 0, 0x01, 1, ...le32(input)];
}

/** Address space descriptors for a bridge's windows (6.4.3.5). */
export function busNumbers(first: number, last: number): Aml {
  return wordSpace(2, 0x0c, 0, first, last);
}

export function ioWindow(first: number, last: number): Aml {
  return wordSpace(1, 0x0c, 0x03, first, last);
}

/** @param cacheable marks display memory */
export function memoryWindow(first: number, last: number, cacheable: boolean): Aml {
  return [
    0x87,
    23,
    0,
    0,
    0x0c,
    cacheable ? 0x03 : 0x01,
    ...le32(0),
    ...le32(first),
    ...le32(last),
    ...le32(0),
    ...le32(last - first + 1),
  ];
}

/** A 64-bit window; bounds are plain numbers below 2^53. */
export function memoryWindow64(first: number, last: number): Aml {
  return [0x8a, 43, 0, 0, 0x0c, 0x03, ...le64(0), ...le64(first), ...le64(last), ...le64(0), ...le64(last - first + 1)];
}

/** 32-bit fixed memory (6.4.3.4). */
export function fixedMemory(base: number, size: number): Aml {
  return [0x86, 9, 0, 0x00, ...le32(base), ...le32(size)];
}

function wordSpace(type: number, flags: number, typeFlags: number, first: number, last: number): Aml {
  return [0x88, 13, 0, type, flags, typeFlags, ...le16(0), ...le16(first), ...le16(last), ...le16(0), ...le16(last - first + 1)];
}

function le16(value: number): Aml {
  return [value & 0xff, (value >> 8) & 0xff];
}

function le32(value: number): Aml {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, (value >>> 24) & 0xff];
}

function le64(value: number): Aml {
  return [...le32(value % 2 ** 32), ...le32(Math.floor(value / 2 ** 32))];
}
