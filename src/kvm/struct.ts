/** C structures as data: fields in order give offsets, sizes, readers, writers and TypeScript's types. */

export type Scalar = 'u8' | 'u16' | 'u32' | 's32' | 'u64' | 's64';
type Element = Scalar | AnyLayout;
/** A field is a number, a structure, or so many of them one after the other. */
export type FieldType = Element | readonly [element: Element, count: number];
export type Fields = { readonly [name: string]: FieldType };

interface Field<T extends FieldType = FieldType> {
  readonly type: T;
  /** Bytes from the beginning of the structure. */
  readonly offset: number;
}

export interface Layout<F extends Fields> {
  /** As in C, without `struct`; empty for a union within a structure. */
  readonly name: string;
  /** Bytes, with the padding at the end. */
  readonly size: number;
  readonly alignment: number;
  readonly fields: { readonly [K in keyof F]: Field<F[K]> };
}
// biome-ignore lint/suspicious/noExplicitAny: a layout of any fields would otherwise refer to itself.
export type AnyLayout = Layout<any>;

/** What reading gives: 64 bits are a bigint, bytes a Uint8Array, structures objects, the rest numbers. */
export type Value<T> = T extends 'u64' | 's64'
  ? bigint
  : T extends Scalar
    ? number
    : T extends Layout<infer F>
      ? { -readonly [K in keyof F]: Value<F[K]> }
      : T extends readonly ['u8', number]
        ? Uint8Array
        : T extends readonly [infer E, number]
          ? Value<E>[]
          : never;

/** What writing takes: whatever is left out stays as it is. */
export type Patch<T> =
  T extends Layout<infer F>
    ? { readonly [K in keyof F]?: Patch<F[K]> }
    : T extends readonly ['u8', number]
      ? Uint8Array
      : T extends readonly [infer E, number]
        ? readonly Patch<E>[]
        : Value<T>;

const SCALAR_SIZE: Record<Scalar, number> = { u8: 1, u16: 2, u32: 4, s32: 4, u64: 8, s64: 8 };

const elementOf = (type: FieldType): Element => (Array.isArray(type) ? type[0] : type) as Element;
const countOf = (type: FieldType): number => (Array.isArray(type) ? type[1] : 1);
const sizeOf = (element: Element): number => (typeof element === 'string' ? SCALAR_SIZE[element] : element.size);
const alignmentOf = (element: Element): number => (typeof element === 'string' ? SCALAR_SIZE[element] : element.alignment);
const alignUp = (value: number, alignment: number): number => Math.ceil(value / alignment) * alignment;

/** A structure laid out as the System V ABI says: each field at the next multiple of its alignment. */
export function struct<const F extends Fields>(name: string, types: F): Layout<F> {
  let end = 0;
  return layOut(name, types, (size, alignment) => {
    const offset = alignUp(end, alignment);
    end = offset + size;
    return offset;
  });
}

/** A union: every field at its beginning. */
export function union<const F extends Fields>(types: F): Layout<F> {
  return layOut('', types, () => 0);
}

function layOut<F extends Fields>(name: string, types: F, place: (size: number, alignment: number) => number): Layout<F> {
  const fields: Record<string, Field> = {};
  let alignment = 1;
  let end = 0;
  for (const [field, type] of Object.entries(types)) {
    const element = elementOf(type);
    const size = sizeOf(element) * countOf(type);
    const offset = place(size, alignmentOf(element));
    fields[field] = { type, offset };
    alignment = Math.max(alignment, alignmentOf(element));
    end = Math.max(end, offset + size);
  }
  return { name, size: alignUp(end, alignment), alignment, fields: fields as Layout<F>['fields'] };
}

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** @param at bytes from the view's beginning to the structure's */
export function read<F extends Fields>(layout: Layout<F>, view: DataView, at = 0): Value<Layout<F>> {
  const entries = Object.entries<Field>(layout.fields);
  return Object.fromEntries(entries.map(([name, { type, offset }]) => [name, readField(type, view, at + offset)])) as Value<
    Layout<F>
  >;
}

function readField(type: FieldType, view: DataView, at: number): unknown {
  const element = elementOf(type);
  if (!Array.isArray(type)) return readElement(element, view, at);
  const count = countOf(type);
  // A copy, whose numbers do not change when the memory does.
  if (element === 'u8') return new Uint8Array(view.buffer, view.byteOffset + at, count).slice();
  return Array.from({ length: count }, (_, index) => readElement(element, view, at + index * sizeOf(element)));
}

function readElement(element: Element, view: DataView, at: number): unknown {
  switch (element) {
    case 'u8':
      return view.getUint8(at);
    case 'u16':
      return view.getUint16(at, true);
    case 'u32':
      return view.getUint32(at, true);
    case 's32':
      return view.getInt32(at, true);
    case 'u64':
      return view.getBigUint64(at, true);
    case 's64':
      return view.getBigInt64(at, true);
    default:
      return read(element, view, at);
  }
}

/** @throws RangeError where an array has more elements than the field */
export function write<F extends Fields>(layout: Layout<F>, view: DataView, patch: Patch<Layout<F>>, at = 0): void {
  for (const [name, value] of Object.entries(patch)) {
    if (value === undefined) continue;
    const { type, offset } = layout.fields[name]!;
    writeField(type, view, value, at + offset);
  }
}

function writeField(type: FieldType, view: DataView, value: unknown, at: number): void {
  const element = elementOf(type);
  if (!Array.isArray(type)) {
    writeElement(element, view, value, at);
    return;
  }
  const list = value as ArrayLike<unknown>;
  if (list.length > countOf(type)) throw new RangeError(`${list.length} elements for a field of ${countOf(type)}`);
  for (let index = 0; index < list.length; index++) writeElement(element, view, list[index], at + index * sizeOf(element));
}

function writeElement(element: Element, view: DataView, value: unknown, at: number): void {
  switch (element) {
    case 'u8':
      return view.setUint8(at, value as number);
    case 'u16':
      return view.setUint16(at, value as number, true);
    case 'u32':
      return view.setUint32(at, value as number, true);
    case 's32':
      return view.setInt32(at, value as number, true);
    case 'u64':
      return view.setBigUint64(at, value as bigint, true);
    case 's64':
      return view.setBigInt64(at, value as bigint, true);
    default:
      return write(element, view, value as Patch<AnyLayout>, at);
  }
}

/**
 * Bytes of a structure, zero but for what is given.
 * @param extra bytes of a list behind the structure
 */
export function encode<F extends Fields>(layout: Layout<F>, patch: Patch<Layout<F>>, extra = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(layout.size + extra));
  write(layout, viewOf(bytes), patch);
  return bytes;
}

/** A structure that counts what follows it, and the list. */
export function encodeList<H extends Fields, E extends Fields>(
  header: Layout<H>,
  count: Patch<Layout<H>>,
  element: Layout<E>,
  list: readonly Patch<Layout<E>>[],
): Uint8Array<ArrayBuffer> {
  const bytes = encode(header, count, element.size * list.length);
  const view = viewOf(bytes);
  list.forEach((patch, index) => write(element, view, patch, header.size + index * element.size));
  return bytes;
}

/** The list behind a structure. */
export function decodeList<E extends Fields>(
  header: AnyLayout,
  element: Layout<E>,
  bytes: Uint8Array,
  count: number,
): Value<Layout<E>>[] {
  const view = viewOf(bytes);
  return Array.from({ length: count }, (_, index) => read(element, view, header.size + index * element.size));
}
