/**
 * How translated code finds more of it: by the pc in the jump cache, else by where the pc's page
 * lies in the code index. What neither has is the host's to look up.
 */
import { I32, I64, NONE } from '../ir/ops.ts';
import {
  CTL_BASE_MASK,
  CTL_BUDGET,
  CTL_CODE_KEY,
  CTL_EXIT_REASON,
  CTL_JUMP_BASE,
  CTL_KICK,
  CTL_MAPPING,
  CTL_NATIVE,
  CTL_PC,
  EXIT_BUDGET,
  EXIT_LOOKUP,
} from '../ir/vcpu-block.ts';
import { pushCurrentTlbEntry } from './access.ts';
import {
  CELL_ARGUMENT,
  CELL_FUNCTION,
  CODE_INDEX,
  INDEX_BITS,
  INDEX_FACTOR,
  JUMP_FOLD_HIGH,
  JUMP_FOLD_LOW,
  JUMP_COUNT,
  JUMP_LIST,
  JUMP_LIST_ROOM,
  JUMP_LOW_BITS,
  JUMP_PAGE_BITS,
  LINK_CELL,
  LINK_MAPPING,
  TLB_ADDEND,
  TLB_EXEC,
  VCPU_BASE,
} from './layout.ts';
import { RESULT_CELL, RESULT_FIND } from './native/results.ts';
import {
  CALL,
  I32_AND,
  I32_EQ,
  I32_LE_U,
  I32_LOAD,
  I32_LT_S,
  I32_MUL,
  I32_NE,
  I32_OR,
  I32_SHL,
  I32_SHR_U,
  I32_STORE,
  I32_SUB,
  I32_WRAP,
  I32_XOR,
  I64_ADD,
  I64_AND,
  I64_EQZ,
  I64_EXTEND_U,
  I64_LE_U,
  I64_LOAD,
  I64_NE,
  I64_OR,
  I64_SHL,
  I64_SHR_U,
  I64_STORE,
  I64_XOR,
  RETURN,
  RETURN_CALL,
  RETURN_CALL_INDIRECT,
} from '../wasm/wasm.ts';
import type { Code, ModuleWriter } from '../wasm/wasm.ts';

function pushPc(c: Code): void {
  c.loadAt(I64_LOAD, VCPU_BASE + CTL_PC);
}

/** Leaves the address of a pc's jump-cache entry on the stack, see JUMP_CACHE. */
function pushJumpEntry(c: Code, pushPc: (c: Code) => void): void {
  pushPc(c);
  c.i64(12);
  c.op(I64_SHR_U);
  c.i64((1 << JUMP_PAGE_BITS) - 1);
  c.op(I64_AND);
  c.i64(JUMP_LOW_BITS + 4);
  c.op(I64_SHL);
  pushPc(c);
  for (const shift of [JUMP_FOLD_LOW, JUMP_FOLD_HIGH]) {
    pushPc(c);
    c.i64(shift);
    c.op(I64_SHR_U);
    c.op(I64_XOR);
  }
  c.i64((1 << JUMP_LOW_BITS) - 1);
  c.op(I64_AND);
  c.i64(4);
  c.op(I64_SHL);
  c.op(I64_OR);
  c.toAddress();
  c.address(0);
  c.loadAddress32(VCPU_BASE + CTL_JUMP_BASE);
  c.addAddress();
}

/**
 * Looks a pc up in the jump cache; leaves the entry cell's address on the stack.
 * @param scratch a local for an address  @param miss emitted for a miss, inside one `if`
 * @param pc leaves the pc, which is the one in the state block when nothing is given, on the stack
 */
export function emitJumpCacheProbe(c: Code, scratch: number, miss: () => void, pc: (c: Code) => void = pushPc): void {
  pushJumpEntry(c, pc);
  c.tee(scratch);
  c.memory(I64_LOAD, 0);
  pc(c);
  c.op(I64_NE);
  c.if(false);
  miss();
  c.end();
  c.get(scratch);
  c.loadAddress32(8);
}

/** Goes on through an entry cell. @param pushCell leaves its address on the stack */
export function emitThrough(c: Code, module: ModuleWriter, pushCell: () => void): void {
  pushCell();
  c.memory(I32_LOAD, CELL_ARGUMENT);
  pushCell();
  c.memory(I32_LOAD, CELL_FUNCTION);
  c.indirect(RETURN_CALL_INDIRECT, module.type([I32], []));
}

function goThrough(c: Code, module: ModuleWriter, cell: number): void {
  emitThrough(c, module, () => c.get(cell));
}

function leaveUnless(c: Code): void {
  c.op(I64_NE);
  c.if(false);
  writeLeaveForLookup(c);
  c.end();
}

function writeLeaveForLookup(c: Code): void {
  c.storeAt(I32_STORE, VCPU_BASE + CTL_EXIT_REASON, () => c.i32(EXIT_LOOKUP));
  c.op(RETURN);
}

/** Function that leaves for the host to look the pc up. */
export function writeLookup(module: ModuleWriter): number {
  const c = module.code();
  c.begin([I32]);
  writeLeaveForLookup(c);
  return module.function([I32], NONE, c);
}

/** Name by which regions import what `writeFind` makes. */
export const FIND = 'find';

/** Leaves the linear address of the code at the pc on the stack. @param codeBase see Isa.codeBase */
function pushLinear(c: Code, codeBase: number | undefined): void {
  pushPc(c);
  if (codeBase === undefined) return;
  c.loadAt(I64_LOAD, VCPU_BASE + codeBase);
  c.loadAt(I64_LOAD, VCPU_BASE + CTL_BASE_MASK);
  c.op(I64_AND);
  c.op(I64_ADD);
}

/**
 * Function that goes on at a pc that the jump cache has not, and enters it there, unless the same pc
 * can be other code: with another base.
 */
export function writeFind(module: ModuleWriter, codeBase: number | undefined): number {
  const c = module.code();
  c.begin([I32]);
  const entry = c.local(c.addressType);
  const key = c.local(I64);
  const cell = c.local(c.addressType);
  const linear = c.local(I64);
  pushLinear(c, codeBase);
  c.set(linear);
  // The TLB's entry for the page, which must be executable.
  pushCurrentTlbEntry(c, () => c.get(linear));
  c.tee(entry);
  c.memory(I64_LOAD, TLB_EXEC);
  c.get(linear);
  c.i64(-4096);
  c.op(I64_AND);
  leaveUnless(c);
  c.get(entry);
  c.memory(I64_LOAD, TLB_ADDEND);
  c.get(linear);
  c.op(I64_ADD);
  c.loadAt(I64_LOAD, VCPU_BASE + CTL_CODE_KEY);
  c.op(I64_ADD);
  c.set(key);
  pushIndexEntry(c, key);
  c.tee(entry);
  c.memory(I64_LOAD, CODE_INDEX);
  c.get(key);
  c.op(I64_NE);
  c.if(false);
  c.get(entry);
  c.address(16);
  c.op(c.addressType === I32 ? I32_XOR : I64_XOR);
  c.tee(entry);
  c.memory(I64_LOAD, CODE_INDEX);
  c.get(key);
  leaveUnless(c);
  c.end();
  c.get(entry);
  c.loadAddress32(CODE_INDEX + 8);
  c.set(cell);
  c.loadAt(I64_LOAD, VCPU_BASE + CTL_BASE_MASK);
  c.op(I64_EQZ);
  c.if(false);
  pushJumpEntry(c, pushPc);
  c.tee(entry);
  pushPc(c);
  c.memory(I64_STORE, 0);
  c.get(entry);
  c.get(cell);
  if (c.addressType !== I32) c.op(I32_WRAP);
  c.memory(I32_STORE, 8);
  noteJumpEntry(c, entry);
  c.end();
  goThrough(c, module, cell);
  return module.function([I32], NONE, c);
}

/** Adds a jump-cache entry to the list of those that are in use, see JUMP_COUNT. @param entry local with its address */
function noteJumpEntry(c: Code, entry: number): void {
  const [base, count] = [c.local(c.addressType), c.local(c.addressType)] as const;
  c.address(0);
  c.loadAddress32(VCPU_BASE + CTL_JUMP_BASE);
  c.tee(base);
  c.loadAddress32(JUMP_COUNT);
  c.tee(count);
  c.address(JUMP_LIST_ROOM);
  c.op(c.addressType === I32 ? I32_LE_U : I64_LE_U);
  c.if();
  c.get(count);
  c.address(2);
  c.op(c.addressType === I32 ? I32_SHL : I64_SHL);
  c.get(base);
  c.addAddress();
  c.get(entry);
  if (c.addressType !== I32) c.op(I32_WRAP);
  c.memory(I32_STORE, JUMP_LIST);
  c.get(base);
  c.get(count);
  c.address(1);
  c.addAddress();
  if (c.addressType !== I32) c.op(I32_WRAP);
  c.memory(I32_STORE, JUMP_COUNT);
  c.end();
}

/** Leaves the offset of a key's entry in the code index on the stack, see CODE_INDEX. */
function pushIndexEntry(c: Code, key: number): void {
  c.get(key);
  c.op(I32_WRAP);
  c.get(key);
  c.i64(32);
  c.op(I64_SHR_U);
  c.op(I32_WRAP);
  c.op(I32_XOR);
  c.i32(INDEX_FACTOR);
  c.op(I32_MUL);
  c.i32(32 - INDEX_BITS);
  c.op(I32_SHR_U);
  c.i32(4);
  c.op(I32_SHL);
  c.op(I64_EXTEND_U);
  c.toAddress();
}

/** Looks the pc up in the jump cache, or leaves by `find`. @returns a local with the entry cell's address */
function emitProbeOrFind(c: Code, find: number): number {
  const cell = c.local(c.addressType);
  emitJumpCacheProbe(c, cell, () => {
    c.i32(0);
    c.call(RETURN_CALL, find);
  });
  c.set(cell);
  return cell;
}

/** Name by which regions import what `writeDispatch` makes. */
export const DISPATCH = 'enter';

/** Function that goes on at the pc. @param find what `writeFind` made */
export function writeDispatch(module: ModuleWriter, find: number): number {
  const c = module.code();
  c.begin([I32]);
  goThrough(c, module, emitProbeOrFind(c, find));
  return module.function([I32], NONE, c);
}

/** Name by which regions import what `writeLink` makes. */
export const LINK = 'link';

/** Function that goes on at the pc, and notes in the link whose address it is given where that is. @param find what `writeFind` made */
export function writeLink(module: ModuleWriter, find: number): number {
  const c = module.code();
  const params = [c.addressType];
  c.begin(params);
  // What the jump cache has not it has next time.
  const cell = emitProbeOrFind(c, find);
  c.get(0);
  c.get(cell);
  if (c.addressType !== I32) c.op(I32_WRAP);
  c.memory(I32_STORE, LINK_CELL);
  c.get(0);
  c.loadAt(I32_LOAD, VCPU_BASE + CTL_MAPPING);
  c.memory(I32_STORE, LINK_MAPPING);
  goThrough(c, module, cell);
  return module.function(params, NONE, c);
}

/** Name by which regions import what `writeThrough` makes. */
export const THROUGH = 'through';

/** Function that goes on through the entry cell whose address it is given. */
export function writeThrough(module: ModuleWriter): number {
  const c = module.code();
  const params = [c.addressType];
  c.begin(params);
  goThrough(c, module, 0);
  return module.function(params, NONE, c);
}

/**
 * Goes on where a link leads, as long as the mapping is the one that it was made under.
 * @param pushBase leaves an address on the stack, from which the link is `offset` bytes away
 * @param anew emitted for another mapping, with the link's address on the stack
 */
export function emitFollow(c: Code, module: ModuleWriter, pushBase: () => void, offset: number, anew: () => void): void {
  c.loadAt(I32_LOAD, VCPU_BASE + CTL_MAPPING);
  pushBase();
  c.memory(I32_LOAD, offset + LINK_MAPPING);
  c.op(I32_NE);
  c.if(false);
  pushBase();
  if (offset !== 0) {
    c.address(offset);
    c.addAddress();
  }
  anew();
  c.end();
  const cell = c.local(c.addressType);
  pushBase();
  c.loadAddress32(offset + LINK_CELL);
  c.set(cell);
  goThrough(c, module, cell);
}

/** Name by which regions import what `writeFollow` makes. */
export const FOLLOW = 'follow';

/** Function that goes on where the link whose address it is given leads. @param link what `writeLink` made */
export function writeFollow(module: ModuleWriter, link: number): number {
  const c = module.code();
  const params = [c.addressType];
  c.begin(params);
  emitFollow(
    c,
    module,
    () => c.get(0),
    0,
    () => c.call(RETURN_CALL, link),
  );
  return module.function(params, NONE, c);
}

/** Between blocks: leaves when the budget is used up, or the host wants attention. */
function leaveIfOver(c: Code): void {
  c.loadAt(I32_LOAD, VCPU_BASE + CTL_BUDGET);
  c.loadAt(I32_LOAD, VCPU_BASE + CTL_KICK);
  c.op(I32_OR);
  c.i32(0);
  c.op(I32_LT_S);
  c.if(false);
  c.storeAt(I32_STORE, VCPU_BASE + CTL_EXIT_REASON, () => c.i32(EXIT_BUDGET));
  c.op(RETURN);
  c.end();
}

/**
 * Function that runs code of the host's processor whose address it is given, and goes on where that says (native/block.ts, RESULT_*).
 * @param run import that runs it  @param interpreter, find functions
 */
export function writeNative(module: ModuleWriter, run: number, interpreter: number, find: number): number {
  const c = module.code();
  c.begin([I32]);
  const result = c.local(I32);
  // Not every block there looks: control may go round by way of the interpreter.
  leaveIfOver(c);
  c.storeAt(I32_STORE, VCPU_BASE + CTL_NATIVE, () => c.get(0));
  c.call(CALL, run);
  c.tee(result);
  c.i32(RESULT_FIND | RESULT_CELL);
  c.op(I32_AND);
  c.if(false);
  leaveIfOver(c);
  c.end();
  c.get(result);
  c.i32(RESULT_CELL);
  c.op(I32_AND);
  c.if();
  const cell = c.local(c.addressType);
  c.get(result);
  c.i32(RESULT_CELL);
  c.op(I32_SUB);
  if (c.addressType !== I32) c.op(I64_EXTEND_U);
  c.set(cell);
  goThrough(c, module, cell);
  c.end();
  c.get(result);
  c.i32(RESULT_FIND);
  c.op(I32_EQ);
  c.if(false);
  c.i32(0);
  c.call(RETURN_CALL, find);
  c.end();
  c.get(result);
  c.call(RETURN_CALL, interpreter);
  return module.function([I32], NONE, c);
}

/** Name by which regions import the runtime module's function that looks at a guard (layout.ts, GUARD_*). */
export const GUARD = 'guard';

/** Added to the key of code that runs into a second page: translated code does not find it by its place. */
export const INDEX_CROSSING = 0x80000000 | 0;

/** The host's side of the code index. */
export class CodeIndex {
  private readonly words: Int32Array;

  constructor(buffer: ArrayBufferLike) {
    this.words = new Int32Array(buffer);
  }

  /** Word index of the entry where a key belongs. */
  private place(low: number, high: number): number {
    return (CODE_INDEX >> 2) + (Math.imul(low ^ high, INDEX_FACTOR) >>> (32 - INDEX_BITS)) * 4;
  }

  /** @param host address of the code in the memory  @param key upper half of CTL_CODE_KEY */
  add(host: number, key: number, cell: number, ip: number): void {
    const { words } = this;
    const low = host | 0;
    const high = (key + Math.floor(host / 0x100000000)) | 0;
    const at = this.place(low, high);
    // What stood there moves to the neighbour, unless it is the same.
    if (words[at] !== low || words[at + 1] !== high) {
      const other = at ^ 4;
      words[other] = words[at]!;
      words[other + 1] = words[at + 1]!;
      words[other + 2] = words[at + 2]!;
      words[other + 3] = words[at + 3]!;
    }
    words[at] = low;
    words[at + 1] = high;
    words[at + 2] = cell;
    words[at + 3] = ip;
  }

  remove(host: number, key: number): void {
    const { words } = this;
    const low = host | 0;
    const high = (key + Math.floor(host / 0x100000000)) | 0;
    const first = this.place(low, high);
    for (const at of [first, first ^ 4]) if (words[at] === low && words[at + 1] === high) words.fill(0, at, at + 4);
  }

  /** @returns the entry cell, 0 when there is none */
  find(host: number, key: number): number {
    const at = this.entry(host, key);
    return at === 0 ? 0 : this.words[at + 2]!;
  }

  /** @returns address of the interpreter code that the block there had last, 0 when there is none */
  findCode(host: number, key: number): number {
    const at = this.entry(host, key);
    return at === 0 ? 0 : this.words[at + 3]!;
  }

  /** @returns word index of the entry, or 0 */
  private entry(host: number, key: number): number {
    const { words } = this;
    const low = host | 0;
    const high = (key + Math.floor(host / 0x100000000)) | 0;
    const first = this.place(low, high);
    for (const at of [first, first ^ 4]) if (words[at] === low && words[at + 1] === high) return at;
    return 0;
  }

  clear(): void {
    this.words.fill(0, CODE_INDEX >> 2, (CODE_INDEX >> 2) + (4 << INDEX_BITS));
  }
}
