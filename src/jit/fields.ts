/**
 * Fields of the state block that a block of compiled code has in locals, too, from one operation in place of a call to the next
 * (`Inline`). The state block always has them as they are, so that whoever is called, or comes after a way out, finds them there.
 *
 * A field that there is once for each of several operands (`of`) is known by the value that names it. Different names are different
 * places: the ISA sees to it that they are while it uses both.
 */
import { I32, I64 } from '../ir/ops.ts';
import { Local, NAMELESS } from '../wasm/structured.ts';
import type { Body, Expr, Field, Fields } from '../wasm/structured.ts';
import type { Code } from '../wasm/wasm.ts';

/** Names are below it. */
const NAMES = 1 << 24;

interface Entry {
  readonly field: Field;
  readonly name: number;
  readonly load: Expr;
  local: Local;
}

interface Constant {
  readonly field: Field;
  readonly name: number;
  readonly value: number;
}

const nameOf = (of: Expr | null): number => (of === null ? 0 : of instanceof Local ? of.name : NAMELESS);
const keyOf = (field: Field, name: number): number => field.id * NAMES + name;

/** May a store to bytes from `offset` on, by an index of this name, change the field? @param name 0 = there is no index */
function overlaps(field: Field, ofName: number, name: number, offset: number, bytes: number): boolean {
  const within = name === 0 ? field.span : field.bytes;
  return (name === 0 || ofName === 0 || name === ofName) && offset < field.offset + within && offset + bytes > field.offset;
}

export class FieldLocals implements Fields {
  private readonly code: Code;
  private readonly entries = new Map<number, Entry>();
  private readonly constants = new Map<number, Constant>();
  /** Fields of which anybody has asked what they are known to be, by offset. */
  private readonly asked = new Map<number, Field>();
  private readonly free: Record<number, number[]> = { [I32]: [], [I64]: [] };

  constructor(code: Code) {
    this.code = code;
  }

  /** A new function: there are no locals yet. */
  beginFunction(): void {
    this.entries.clear();
    this.constants.clear();
    for (const list of Object.values(this.free)) list.length = 0;
  }

  /** Forgets all: something may have changed any of them. */
  clear(): void {
    if (this.entries.size > 0) for (const entry of this.entries.values()) this.release(entry);
    this.entries.clear();
    this.constants.clear();
  }

  private release({ local }: Entry): void {
    this.free[local.type]!.push(local.index);
  }

  /** A new operation begins: what the one before has left for its own instruction has been used. */
  dropBrief(): void {
    for (const [key, entry] of this.entries) {
      if (!entry.field.brief) continue;
      this.release(entry);
      this.entries.delete(key);
    }
  }

  /** The call has been made: loads what it may have changed of what is in locals after the operation. */
  reload(f: Body, operands: readonly Expr[]): void {
    const names = [0, ...operands.map(nameOf)];
    for (const { field, name, load, local } of this.entries.values()) {
      if (!field.fixed && names.includes(name)) f.set(local, load);
    }
  }

  find(field: Field, of: Expr | null): Local | undefined {
    return this.entries.get(keyOf(field, nameOf(of)))?.local;
  }

  keep(field: Field, of: Expr | null, load: Expr): Local | undefined {
    const name = nameOf(of);
    if (name === NAMELESS) return undefined;
    const known = this.find(field, of);
    if (known) return known;
    const local = new Local(field.type, this.free[field.type]!.pop() ?? this.code.local(field.type));
    this.entries.set(keyOf(field, name), { field, name, load, local });
    return local;
  }

  exchange(field: Field, a: Expr, b: Expr): void {
    const [first, second] = [a, b].map((of) => this.entries.get(keyOf(field, nameOf(of))));
    if (!first || !second) return;
    const { local } = first;
    first.local = second.local;
    second.local = local;
  }

  constantOf(field: Field, of: Expr): number | undefined {
    this.asked.set(field.offset, field);
    return this.constants.get(keyOf(field, nameOf(of)))?.value;
  }

  setConstant(field: Field, of: Expr, value: number): void {
    const name = nameOf(of);
    if (name !== NAMELESS) this.constants.set(keyOf(field, name), { field, name, value });
  }

  /** The local that has what is at an offset, without an index. */
  at(offset: number): Local | undefined {
    for (const { field, name, local } of this.entries.values()) {
      if (name === 0 && field.offset === offset && !field.fixed) return local;
    }
    return undefined;
  }

  /** Something is stored. @param name of its index, 0 = none  @param value null when it is not known */
  stored(name: number, offset: number, bytes: number, value: number | null): void {
    for (const [key, entry] of this.entries) {
      if (!overlaps(entry.field, entry.name, name, offset, bytes)) continue;
      this.release(entry);
      this.entries.delete(key);
    }
    for (const [key, { field, name: of }] of this.constants) {
      if (overlaps(field, of, name, offset, bytes)) this.constants.delete(key);
    }
    const field = this.asked.get(offset);
    if (field && value !== null && name !== 0 && field.bytes === bytes)
      this.constants.set(keyOf(field, name), { field, name, value });
  }
}
