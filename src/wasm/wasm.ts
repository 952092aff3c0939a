/**
 * Writes WebAssembly: one `Code` per function body, assembled into a module by
 * `ModuleWriter`. Only what the translator needs of the binary format
 * (WebAssembly core specification, chapter 5).
 */
import { I32, I64, NONE } from '../ir/ops.ts';
import { hasShortAddresses, PAGE_SIZE } from './memory.ts';

/** Value type bytes by IR type. */
const TYPE_BYTE = [0x7f, 0x7e, 0x7d, 0x7c, 0x7b] as const;

// Instructions that carry structure; plain operators come from the operation table.
export const BLOCK = 0x02;
export const LOOP = 0x03;
export const IF = 0x04;
export const ELSE = 0x05;
export const END = 0x0b;
export const BR = 0x0c;
export const BR_IF = 0x0d;
export const BR_TABLE = 0x0e;
export const RETURN = 0x0f;
export const CALL = 0x10;
export const CALL_INDIRECT = 0x11;
export const RETURN_CALL = 0x12;
export const RETURN_CALL_INDIRECT = 0x13;
export const DROP = 0x1a;
export const SELECT = 0x1b;
export const LOCAL_GET = 0x20;
export const LOCAL_SET = 0x21;
export const LOCAL_TEE = 0x22;
export const I32_LOAD = 0x28;
export const I64_LOAD = 0x29;
export const I32_LOAD8_U = 0x2d;
export const I32_LOAD16_U = 0x2f;
export const I64_LOAD32_U = 0x35;
export const I32_STORE = 0x36;
export const I64_STORE = 0x37;
export const I32_STORE8 = 0x3a;
export const I32_CONST = 0x41;
export const I64_CONST = 0x42;
export const I32_EQZ = 0x45;
export const I32_EQ = 0x46;
export const I32_NE = 0x47;
export const I32_LT_S = 0x48;
export const I32_LE_U = 0x4d;
export const I64_EQZ = 0x50;
export const I64_EQ = 0x51;
export const I64_NE = 0x52;
export const I64_LT_U = 0x54;
export const I64_GT_U = 0x56;
export const I64_LE_U = 0x58;
export const I32_ADD = 0x6a;
export const I32_SUB = 0x6b;
export const I32_MUL = 0x6c;
export const I32_AND = 0x71;
export const I32_OR = 0x72;
export const I32_XOR = 0x73;
export const I32_SHL = 0x74;
export const I32_SHR_U = 0x76;
export const I64_ADD = 0x7c;
export const I64_SUB = 0x7d;
export const I64_MUL = 0x7e;
export const I64_AND = 0x83;
export const I64_OR = 0x84;
export const I64_XOR = 0x85;
export const I64_SHL = 0x86;
export const I64_SHR_S = 0x87;
export const I64_SHR_U = 0x88;
export const I32_WRAP = 0xa7;
export const I64_EXTEND_U = 0xad;

/** Block type byte for a block without a result. */
export const VOID = 0x40;

export const LOAD_OP: readonly (readonly number[])[] = [[0x28], [0x29], [0x2a], [0x2b], [0xfd, 0]];
export const STORE_OP: readonly (readonly number[])[] = [[0x36], [0x37], [0x38], [0x39], [0xfd, 11]];

export function typeByte(type: number): number {
  return TYPE_BYTE[type]!;
}

/** A growing byte string with the encodings of the binary format. */
export class Bytes {
  data: Uint8Array<ArrayBuffer>;
  length = 0;

  constructor(capacity = 1024) {
    this.data = new Uint8Array(capacity);
  }

  private room(bytes: number): void {
    if (this.length + bytes <= this.data.length) return;
    const larger = new Uint8Array(Math.max(this.data.length * 2, this.length + bytes));
    larger.set(this.data.subarray(0, this.length));
    this.data = larger;
  }

  u8(value: number): void {
    if (this.length === this.data.length) this.room(1);
    this.data[this.length++] = value;
  }

  raw(bytes: readonly number[] | Uint8Array): void {
    this.room(bytes.length);
    this.data.set(bytes, this.length);
    this.length += bytes.length;
  }

  append(other: Bytes): void {
    this.raw(other.data.subarray(0, other.length));
  }

  /** Unsigned LEB128 of a number below 2^53. */
  uleb(value: number): void {
    while (value > 127) {
      this.u8((value & 127) | 128);
      value = value > 0x7fffffff ? Math.floor(value / 128) : value >>> 7;
    }
    this.u8(value);
  }

  /** Signed LEB128 of a 32-bit number. */
  sleb(value: number): void {
    for (;;) {
      const byte = value & 127;
      value >>= 7;
      if ((value === 0 && !(byte & 64)) || (value === -1 && byte & 64)) {
        this.u8(byte);
        return;
      }
      this.u8(byte | 128);
    }
  }

  /** Signed LEB128 of a 64-bit number in two words. */
  sleb64(low: number, high: number): void {
    for (;;) {
      const byte = low & 127;
      low = (low >>> 7) | (high << 25);
      high >>= 7;
      if ((low === 0 && high === 0 && !(byte & 64)) || (low === -1 && high === -1 && byte & 64)) {
        this.u8(byte);
        return;
      }
      this.u8(byte | 128);
    }
  }

  text(value: string): void {
    const bytes = new TextEncoder().encode(value);
    this.uleb(bytes.length);
    this.raw(bytes);
  }
}

/** Type of addresses in a memory of this size. */
export const addressTypeFor = (bytes: number): number => (hasShortAddresses(bytes) ? I32 : I64);

/** One function body: instructions, its locals and its branch hints. */
export class Code extends Bytes {
  /** Type of addresses: I32 or I64, as the module's memory has it. */
  readonly addressType: number;
  /** Types of all locals, the parameters first. */
  readonly locals: number[] = [];
  private parameters = 0;
  /** [instruction offset in the body's code, 1 = likely | 0 = unlikely] pairs. */
  readonly hints: number[] = [];
  private readonly narrow: boolean;

  constructor(addressType: number) {
    super();
    this.addressType = addressType;
    this.narrow = addressType === I32;
  }

  begin(parameters: readonly number[]): void {
    this.length = 0;
    this.hints.length = 0;
    this.locals.length = 0;
    this.locals.push(...parameters);
    this.parameters = parameters.length;
  }

  local(type: number): number {
    return this.locals.push(type) - 1;
  }

  op(opcode: number): void {
    this.u8(opcode);
  }

  i32(value: number): void {
    this.u8(I32_CONST);
    this.sleb(value | 0);
  }

  i64(low: number, high: number = low >> 31): void {
    this.u8(I64_CONST);
    this.sleb64(low | 0, high | 0);
  }

  /** A constant address below 4 GiB. */
  address(value: number): void {
    if (this.narrow) this.i32(value);
    else this.i64(value | 0, 0);
  }

  /** The i64 on the stack becomes an address: whatever a 32-bit one has no room for is zero. */
  toAddress(): void {
    if (this.narrow) this.op(I32_WRAP);
  }

  /** The i32 on the stack, which is not negative, becomes an address. */
  indexToAddress(): void {
    if (!this.narrow) this.op(I64_EXTEND_U);
  }

  /** Adds an address and an address or a distance of the same type. */
  addAddress(): void {
    this.op(this.narrow ? I32_ADD : I64_ADD);
  }

  /** Loads an address that is kept in 32 bits. */
  loadAddress32(offset: number): void {
    this.memory(this.narrow ? I32_LOAD : I64_LOAD32_U, offset);
  }

  /** Loads what, added to a virtual address, makes an address; it is kept in 64 bits. */
  loadAddend(offset: number): void {
    this.memory(this.narrow ? I32_LOAD : I64_LOAD, offset);
  }

  get(local: number): void {
    this.u8(LOCAL_GET);
    this.uleb(local);
  }

  set(local: number): void {
    this.u8(LOCAL_SET);
    this.uleb(local);
  }

  tee(local: number): void {
    this.u8(LOCAL_TEE);
    this.uleb(local);
  }

  /** A load or store; the address is below its other operand on the stack. */
  memory(opcode: number | readonly number[], offset: number): void {
    if (typeof opcode === 'number') this.u8(opcode);
    else this.raw(opcode);
    this.u8(0); // no alignment promised
    this.uleb(offset);
  }

  /** Loads from a constant address. */
  loadAt(opcode: number | readonly number[], address: number): void {
    this.address(0);
    this.memory(opcode, address);
  }

  /** Stores what `value` leaves on the stack at a constant address. */
  storeAt(opcode: number | readonly number[], address: number, value: () => void): void {
    this.address(0);
    value();
    this.memory(opcode, address);
  }

  br(opcode: number, depth: number): void {
    this.u8(opcode);
    this.uleb(depth);
  }

  /** `if` or `br_if` follows: says whether its condition usually holds. */
  hint(likely: boolean): void {
    this.hints.push(this.length, likely ? 1 : 0);
  }

  block(opcode: number): void {
    this.u8(opcode);
    this.u8(VOID);
  }

  if(likely?: boolean): void {
    if (likely !== undefined) this.hint(likely);
    this.u8(IF);
    this.u8(VOID);
  }

  end(): void {
    this.u8(END);
  }

  call(opcode: number, index: number): void {
    this.u8(opcode);
    this.uleb(index);
  }

  indirect(opcode: number, type: number): void {
    this.u8(opcode);
    this.uleb(type);
    this.u8(0);
  }

  /** Bytes of the declarations of locals, run-length encoded. */
  declarations(): Bytes {
    const out = new Bytes(32);
    const groups: [number, number][] = [];
    for (let i = this.parameters; i < this.locals.length; i++) {
      const last = groups[groups.length - 1];
      if (last && last[1] === this.locals[i]) last[0]++;
      else groups.push([1, this.locals[i]!]);
    }
    out.uleb(groups.length);
    for (const [count, type] of groups) {
      out.uleb(count);
      out.u8(TYPE_BYTE[type]!);
    }
    return out;
  }
}

interface FunctionEntry {
  type: number;
  body: Bytes;
  hints: Bytes | null;
  hintCount: number;
}

/** Type of a function's result, NONE, or the types of its several results. */
export type Results = number | readonly number[];

function listOf(result: Results): readonly number[] {
  if (typeof result !== 'number') return result;
  return result === NONE ? [] : [result];
}

/** What a module imports besides memory and table. */
export interface FunctionImport {
  readonly name: string;
  readonly params: readonly number[];
  readonly results: readonly number[];
}

/** Assembles a module that shares one memory and one function table with all others. */
export class ModuleWriter {
  private readonly types = new Map<string, number>();
  private readonly typeBytes = new Bytes(256);
  private readonly imports: FunctionImport[] = [];
  private readonly importNumbers = new Map<string, number>();
  /** Imports that there were before the first function: what indices of functions count from until the end. */
  private firstFunction = -1;
  private readonly functions: FunctionEntry[] = [];
  private readonly exports: [string, number][] = [];
  private readonly names: [string, number][] = [];
  /** [table index, function index] pairs. */
  private readonly elements: [number, number][] = [];
  private readonly memoryPages: number;
  private readonly maximumPages: number;
  private readonly shared: boolean;
  private early = false;

  /** @param memoryPages initial size promised by the import, in 64 KiB pages */
  constructor(memoryPages: number, maximumPages: number, shared: boolean) {
    this.memoryPages = memoryPages;
    this.maximumPages = maximumPages;
    this.shared = shared;
  }

  /** @returns a body for a function of this module */
  code(): Code {
    return new Code(addressTypeFor(this.memoryPages * PAGE_SIZE));
  }

  /** Asks for the functions to be compiled with the module, in the thread that makes it. */
  compileEarly(): void {
    this.early = true;
  }

  type(params: readonly number[], results: readonly number[]): number {
    const key = `${params.join()}>${results.join()}`;
    const known = this.types.get(key);
    if (known !== undefined) return known;
    this.typeBytes.u8(0x60);
    for (const list of [params, results]) {
      this.typeBytes.uleb(list.length);
      for (const type of list) this.typeBytes.u8(TYPE_BYTE[type]!);
    }
    this.types.set(key, this.types.size);
    return this.types.size - 1;
  }

  /**
   * Imports are declared before the first function, or, where no function of the module calls another, when one needs them.
   * @returns its function index
   */
  import(name: string, params: readonly number[], result: Results): number {
    const known = this.importNumbers.get(name);
    if (known !== undefined) return known;
    const index = this.imports.push({ name, params, results: listOf(result) }) - 1;
    this.importNumbers.set(name, index);
    return index;
  }

  /** @returns the function's index */
  function(params: readonly number[], result: Results, code: Code): number {
    const type = this.type(params, listOf(result));
    const declarations = code.declarations();
    const body = new Bytes(declarations.length + code.length + 8);
    const size = declarations.length + code.length + 1;
    body.uleb(size);
    body.append(declarations);
    body.append(code);
    body.u8(END);
    let hints: Bytes | null = null;
    if (code.hints.length > 0) {
      hints = new Bytes(code.hints.length * 3);
      for (let i = 0; i < code.hints.length; i += 2) {
        hints.uleb(code.hints[i]! + declarations.length);
        hints.u8(1);
        hints.u8(code.hints[i + 1]!);
      }
    }
    const index = this.nextFunction();
    this.functions.push({ type, body, hints, hintCount: code.hints.length / 2 });
    return index;
  }

  /** Index that the next function will get, for bodies that call each other. */
  nextFunction(): number {
    if (this.firstFunction < 0) this.firstFunction = this.imports.length;
    return this.firstFunction + this.functions.length;
  }

  /** What a function's index is in the end, when all imports are known. */
  private finalIndex(index: number): number {
    return index - this.firstFunction + this.imports.length;
  }

  export(name: string, functionIndex: number): void {
    this.exports.push([name, functionIndex]);
    this.name(functionIndex, name);
  }

  /** What profilers and stack traces call a function. */
  name(functionIndex: number, name: string): void {
    this.names.push([name, functionIndex]);
  }

  /** Puts a function into the shared table when the module is instantiated. */
  element(tableIndex: number, functionIndex: number): void {
    this.elements.push([tableIndex, functionIndex]);
  }

  private section(out: Bytes, id: number, fill: (section: Bytes) => void): void {
    const section = new Bytes(4096);
    fill(section);
    out.u8(id);
    out.uleb(section.length);
    out.append(section);
  }

  private writeImports(section: Bytes): void {
    const types = this.imports.map((entry) => this.type(entry.params, entry.results));
    section.uleb(this.imports.length + 2);
    this.imports.forEach((entry, i) => {
      section.text('v');
      section.text(entry.name);
      section.u8(0);
      section.uleb(types[i]!);
    });
    section.text('v');
    section.text('memory');
    section.u8(2);
    // Flags of the limits: 1 a maximum, 2 shared, 4 addresses of 64 bits.
    section.u8((this.shared ? 3 : 0) | (addressTypeFor(this.memoryPages * PAGE_SIZE) === I64 ? 4 : 0));
    section.uleb(this.memoryPages);
    if (this.shared) section.uleb(this.maximumPages);
    section.text('v');
    section.text('table');
    section.u8(1);
    section.u8(0x70);
    section.u8(0);
    section.uleb(0);
  }

  finish(): Uint8Array<ArrayBuffer> {
    const importSection = new Bytes(512);
    this.writeImports(importSection);
    const out = new Bytes(16384);
    out.raw([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
    this.section(out, 1, (s) => {
      s.uleb(this.types.size);
      s.append(this.typeBytes);
    });
    out.u8(2);
    out.uleb(importSection.length);
    out.append(importSection);
    this.section(out, 3, (s) => {
      s.uleb(this.functions.length);
      for (const entry of this.functions) s.uleb(entry.type);
    });
    this.section(out, 7, (s) => {
      s.uleb(this.exports.length);
      for (const [name, index] of this.exports) {
        s.text(name);
        s.u8(0);
        s.uleb(this.finalIndex(index));
      }
    });
    if (this.elements.length > 0) this.section(out, 9, (s) => this.writeElements(s));
    if (this.early) this.writePriorities(out);
    this.writeHints(out);
    this.section(out, 10, (s) => {
      s.uleb(this.functions.length);
      for (const entry of this.functions) s.append(entry.body);
    });
    this.writeNames(out);
    return out.data.slice(0, out.length);
  }

  /** The custom section "name" with subsection 1, function names. */
  private writeNames(out: Bytes): void {
    if (this.names.length === 0) return;
    const map = new Bytes(32 * this.names.length);
    map.uleb(this.names.length);
    for (const [name, index] of this.names.sort((a, b) => a[1] - b[1])) {
      map.uleb(this.finalIndex(index));
      map.text(name);
    }
    this.section(out, 0, (s) => {
      s.text('name');
      s.u8(1);
      s.uleb(map.length);
      s.append(map);
    });
  }

  private writeElements(s: Bytes): void {
    s.uleb(this.elements.length);
    for (const [tableIndex, functionIndex] of this.elements) {
      s.u8(0);
      s.u8(I32_CONST);
      s.sleb(tableIndex);
      s.u8(END);
      s.uleb(1);
      s.uleb(this.finalIndex(functionIndex));
    }
  }

  /** Compilation-hints proposal: a priority for each function, without which it waits for its first call. */
  private writePriorities(out: Bytes): void {
    this.section(out, 0, (s) => {
      s.text('metadata.code.compilation_priority');
      s.uleb(this.functions.length);
      this.functions.forEach((_, i) => {
        s.uleb(this.imports.length + i);
        s.uleb(0);
        s.uleb(1);
        s.uleb(0);
      });
    });
  }

  /** Branch-hinting proposal: custom section just before the code. */
  private writeHints(out: Bytes): void {
    const hinted = this.functions.filter((entry) => entry.hints !== null);
    if (hinted.length === 0) return;
    this.section(out, 0, (s) => {
      s.text('metadata.code.branch_hint');
      s.uleb(hinted.length);
      this.functions.forEach((entry, i) => {
        if (!entry.hints) return;
        s.uleb(this.imports.length + i);
        s.uleb(entry.hintCount);
        s.append(entry.hints);
      });
    });
  }
}
