/**
 * The runtime module: interpreter, dispatcher, slow paths and IR helpers. Made
 * once for a machine; compiled regions import its functions.
 */
import { I32, I64, NONE, V128 } from '../ir/ops.ts';
import { Builder, CTX_UNKNOWN } from '../ir/builder.ts';
import type { Global } from '../ir/builder.ts';
import type { Helper, IrSwitch } from '../ir/helpers.ts';
import {
  CTL_FAULT,
  CTL_HOST_ADDR,
  CTL_MAPPING,
  CTL_SLOW_ADDR,
  CTL_SLOW_SIZE,
  CTL_SLOW_VALUE,
  CTL_STACK_ADDEND,
  CTL_STACK_LIMIT,
  CTL_STACK_PAGE,
} from '../ir/vcpu-block.ts';
import type { Isa } from '../isa/isa.ts';
import { FIND_STACK, PAGE_LIMIT, SLOW_IMPORTS, missName, pushCurrentTlbEntry, pushLargeEntry, pushTlb } from './access.ts';
import type { AccessInfo } from './access.ts';
import { BlockEmitter } from './emit.ts';
import {
  DISPATCH,
  FIND,
  FOLLOW,
  GUARD,
  LINK,
  THROUGH,
  writeDispatch,
  writeFind,
  writeFollow,
  writeLink,
  writeLookup,
  writeNative,
  writeThrough,
} from './dispatch.ts';
import { InterpreterWriter } from './interpreter.ts';
import {
  FN_DISPATCH,
  FN_INTERPRETER,
  FN_LOOKUP,
  FN_NATIVE,
  GUARD_HOST,
  GUARD_MAPPING,
  GUARD_OFFSET,
  LARGE,
  LARGE_BITS,
  TLB_ADDEND,
  TLB_EXEC,
  TLB_READ,
  TLB_WRITE,
  VCPU_BASE,
  VICTIM,
  VICTIM_ENTRIES,
} from './layout.ts';
import {
  BLOCK,
  BR_IF,
  BR_TABLE,
  CALL,
  Code,
  ELSE,
  I32_AND,
  I32_EQZ,
  I32_LOAD,
  I32_NE,
  I32_LOAD8_U,
  I32_STORE,
  I32_STORE8,
  I64_ADD,
  I64_AND,
  I64_EQ,
  I64_GT_U,
  I64_LOAD,
  I64_LT_U,
  I64_NE,
  I64_STORE,
  I64_SUB,
  IF,
  LOAD_OP,
  LOOP,
  ModuleWriter,
  RETURN,
  RETURN_CALL,
  SELECT,
  STORE_OP,
  typeByte,
} from '../wasm/wasm.ts';

export interface RuntimeImports {
  /** Does the access described in the state block; the fault field tells how it went. */
  slow(): void;
  /** @returns 1 when the code page at CTL_SLOW_ADDR is the one at CTL_HOST_ADDR in this memory */
  guard(): number;
  /** Runs the native code whose address is in CTL_NATIVE. @returns see native/results.ts */
  native(): number;
  /** What a helper of kind 'vcpu' calls. */
  helper(name: string): () => number;
}

export interface Runtime {
  /** Goes on at the pc in the state block until something makes it leave. */
  enter(): void;
  /** Runs interpreter code at an address. */
  interpret(address: number): void;
  /** What compiled regions import: slow paths and helpers by import name. */
  readonly imports: Record<string, WebAssembly.ImportValue>;
}

function storeField(c: Code, field: number, value: () => void, opcode: number | readonly number[] = I32_STORE): void {
  c.storeAt(opcode, VCPU_BASE + field, value);
}

/**
 * One memory operation by a larger page or by the TLB. It calls nothing but in its last step, what `slowPath` makes, so that V8
 * needs neither a frame nor a look at the stack's limit.
 */
function accessFunction(module: ModuleWriter, path: (typeof SLOW_IMPORTS)[number], slow: number): number {
  const { info, params, result } = path;
  const c = module.code();
  c.begin(params);
  const [page, found] = [c.local(I64), c.local(I64)] as const;
  const entry = c.local(c.addressType);
  setLastPage(c, info, page, LARGE_BITS);
  pushLargeEntry(c, () => c.get(0));
  c.tee(entry);
  c.memory(I64_LOAD, LARGE + info.tag);
  c.get(page);
  c.op(I64_EQ);
  c.if(true);
  accessBy(c, info, entry, LARGE);
  c.end();
  setLastPage(c, info, page, PAGE_BITS);
  pushEntry(c, 0);
  c.tee(entry);
  c.memory(I64_LOAD, info.tag);
  c.tee(found);
  c.get(page);
  c.op(I64_EQ);
  c.if(true);
  accessBy(c, info, entry, 0);
  c.end();
  // The tag is used twice for V8 to load it once, see emitAccess.
  storeField(c, CTL_SLOW_VALUE, () => c.get(found), I64_STORE);
  params.forEach((_, i) => c.get(i));
  c.call(RETURN_CALL, slow);
  return module.function(params, result, c);
}

/** Sets `page` to that of the access's last byte. @param bits of an address within a page */
function setLastPage(c: Code, info: AccessInfo, page: number, bits: number): void {
  c.get(0);
  c.i64(info.bytes - 1);
  c.op(I64_ADD);
  c.i64(-(2 ** bits));
  c.op(I64_AND);
  c.set(page);
}

/**
 * The slow path of one memory operation: looks through the TLB's victims, then hands address,
 * description and value to the host through the state block.
 */
function slowPath(module: ModuleWriter, path: (typeof SLOW_IMPORTS)[number], host: number, cross: number): number {
  const { info, params, result } = path;
  const c = module.code();
  c.begin(params);
  const page = c.local(I64);
  const entry = c.local(c.addressType);
  setLastPage(c, info, page, PAGE_BITS);
  searchVictims(c, info, page, entry);
  if (info.bytes > 1) tryCross(c, info, page, cross);
  storeField(c, CTL_SLOW_ADDR, () => c.get(0), I64_STORE);
  storeField(c, CTL_SLOW_SIZE, () => c.i32(info.kind));
  if (info.store) storeField(c, CTL_SLOW_VALUE, () => c.get(1), STORE_OP[info.type]!);
  storeField(c, CTL_FAULT, () => c.i32(0));
  c.call(CALL, host);
  if (!info.store) c.loadAt(LOAD_OP[info.type]!, VCPU_BASE + CTL_SLOW_VALUE);
  c.loadAt(I32_LOAD, VCPU_BASE + CTL_FAULT);
  return module.function(params, result, c);
}

/** Does an access that crosses pages and returns when the TLB has both; `page` is that of the last byte. */
function tryCross(c: Code, info: AccessInfo, page: number, cross: number): void {
  const slot = VCPU_BASE + CTL_SLOW_VALUE;
  c.get(0);
  c.get(page);
  c.op(I64_LT_U);
  c.if(false);
  if (info.store) storeField(c, CTL_SLOW_VALUE, () => c.get(1), STORE_OP[info.type]!);
  c.get(0);
  c.get(page);
  c.i64(info.bytes);
  c.address(info.tag);
  c.i32(info.store ? 1 : 0);
  c.call(CALL, cross);
  c.if(true);
  if (!info.store) {
    c.address(0);
    c.memory(info.wasm, slot);
  }
  c.i32(0);
  c.op(RETURN);
  c.end();
  c.end();
}

/**
 * cross(address, second page, bytes, tag, store): moves the bytes between guest memory and CTL_SLOW_VALUE
 * one by one. @returns 1, or 0 when the TLB has not both pages for this kind of access
 */
function writeCross(module: ModuleWriter): number {
  const c = module.code();
  const params = [I64, I64, I64, c.addressType, I32];
  c.begin(params);
  const [at, end, host, slot] = [c.local(I64), c.local(I64), c.local(c.addressType), c.local(c.addressType)] as const;
  const addends = [c.local(c.addressType), c.local(c.addressType)] as const;
  for (const [i, address] of [0, 1].entries()) {
    pushEntry(c, address);
    c.tee(host);
    c.get(3);
    c.addAddress();
    c.memory(I64_LOAD, 0);
    c.get(address);
    c.i64(-PAGE_SIZE);
    c.op(I64_AND);
    c.op(I64_NE);
    giveUpIf(c);
    c.get(host);
    c.loadAddend(TLB_ADDEND);
    c.set(addends[i]!);
  }
  c.get(0);
  c.tee(at);
  c.get(2);
  c.op(I64_ADD);
  c.set(end);
  c.address(VCPU_BASE + CTL_SLOW_VALUE);
  c.set(slot);
  c.block(LOOP);
  c.get(addends[0]);
  c.get(addends[1]);
  c.get(at);
  c.get(1);
  c.op(I64_LT_U);
  c.op(SELECT);
  c.get(at);
  c.toAddress();
  c.addAddress();
  c.set(host);
  c.get(4);
  c.if();
  moveByte(c, slot, host);
  c.op(ELSE);
  moveByte(c, host, slot);
  c.end();
  c.get(slot);
  c.address(1);
  c.addAddress();
  c.set(slot);
  c.get(at);
  c.i64(1);
  c.op(I64_ADD);
  c.set(at);
  c.get(at);
  c.get(end);
  c.op(I64_NE);
  c.br(BR_IF, 0);
  c.end();
  c.i32(1);
  return module.function(params, I32, c);
}

function moveByte(c: Code, from: number, to: number): void {
  c.get(to);
  c.get(from);
  c.memory(I32_LOAD8_U, 0);
  c.memory(I32_STORE8, 0);
}

/** The access itself by the TLB entry whose address is a local's and an offset. */
function accessBy(c: Code, info: AccessInfo, entry: number, offset: number): void {
  c.get(0);
  c.toAddress();
  c.get(entry);
  c.loadAddend(offset + TLB_ADDEND);
  c.addAddress();
  if (info.store) c.get(1);
  c.memory(info.wasm, 0);
  c.i32(0);
  c.op(RETURN);
}

/** The same for the entries that were pushed out of the TLB: the one found goes back, in exchange. */
function searchVictims(c: Code, info: AccessInfo, page: number, entry: number): void {
  const end = c.local(c.addressType);
  pushTlb(c);
  c.address(VICTIM);
  c.addAddress();
  c.tee(entry);
  c.address(VICTIM_ENTRIES * 32);
  c.addAddress();
  c.set(end);
  c.block(LOOP);
  c.get(entry);
  c.memory(I64_LOAD, info.tag);
  c.get(page);
  c.op(I64_EQ);
  // The first byte must lie in the page, too: an access that crosses pages is the host's.
  c.get(0);
  c.i64(-PAGE_SIZE);
  c.op(I64_AND);
  c.get(page);
  c.op(I64_EQ);
  c.op(I32_AND);
  c.if(false);
  exchange(c, entry);
  accessBy(c, info, entry, 0);
  c.end();
  c.get(entry);
  c.address(32);
  c.addAddress();
  c.tee(entry);
  c.get(end);
  c.op(c.addressType === I32 ? I32_NE : I64_NE);
  c.br(BR_IF, 0);
  c.end();
}

/** Swaps a victim with the TLB's entry for the address; `victim` names the latter then. */
function exchange(c: Code, victim: number): void {
  const entry = c.local(c.addressType);
  const halves = [c.local(V128), c.local(V128)];
  pushEntry(c, 0);
  c.set(entry);
  halves.forEach((half, i) => {
    c.get(entry);
    c.memory(LOAD_OP[V128]!, i * 16);
    c.set(half);
    c.get(entry);
    c.get(victim);
    c.memory(LOAD_OP[V128]!, i * 16);
    c.memory(STORE_OP[V128]!, i * 16);
    c.get(victim);
    c.get(half);
    c.memory(STORE_OP[V128]!, i * 16);
  });
  c.get(entry);
  c.set(victim);
}

/**
 * guard(record, base): is the page mapped where the region's code is from? Asks the host when the TLB
 * does not say; notes the mapping under which it is. @returns 1, or 0
 */
function writeGuard(module: ModuleWriter, host: number): number {
  const c = module.code();
  const params = [c.addressType, I64];
  c.begin(params);
  const [page, entry] = [c.local(I64), c.local(c.addressType)] as const;
  const pushHost = (): void => {
    c.get(0);
    c.memory(I64_LOAD, GUARD_HOST);
  };
  c.get(1);
  c.get(0);
  c.memory(I64_LOAD, GUARD_OFFSET);
  c.op(I64_ADD);
  c.set(page);
  pushEntry(c, page);
  c.tee(entry);
  c.memory(I64_LOAD, TLB_EXEC);
  c.get(page);
  c.op(I64_EQ);
  c.if();
  c.get(entry);
  c.memory(I64_LOAD, TLB_ADDEND);
  c.get(page);
  c.op(I64_ADD);
  pushHost();
  c.op(I64_NE);
  giveUpIf(c);
  c.op(ELSE);
  storeField(c, CTL_SLOW_ADDR, () => c.get(page), I64_STORE);
  storeField(c, CTL_HOST_ADDR, pushHost, I64_STORE);
  c.call(CALL, host);
  c.op(I32_EQZ);
  giveUpIf(c);
  c.end();
  c.get(0);
  c.loadAt(I32_LOAD, VCPU_BASE + CTL_MAPPING);
  c.memory(I32_STORE, GUARD_MAPPING);
  c.i32(1);
  return module.function(params, I32, c);
}

/** findstack(address): its page is the stack's from now on, if the TLB permits writing there. */
function writeFindStack(module: ModuleWriter): number {
  const c = module.code();
  c.begin([I64]);
  const entry = c.local(c.addressType);
  findEntry(c, 0, TLB_WRITE, entry);
  c.if();
  storeField(
    c,
    CTL_STACK_PAGE,
    () => {
      c.get(0);
      c.i64(-PAGE_SIZE);
      c.op(I64_AND);
    },
    I64_STORE,
  );
  storeField(
    c,
    CTL_STACK_ADDEND,
    () => {
      c.get(entry);
      c.memory(I64_LOAD, TLB_ADDEND);
    },
    I64_STORE,
  );
  storeField(c, CTL_STACK_LIMIT, () => c.i64(PAGE_LIMIT), I64_STORE);
  c.end();
  return module.function([I64], NONE, c);
}

const PAGE_BITS = 12;
const PAGE_SIZE = 2 ** PAGE_BITS;

/** Leaves the TLB entry of the page that `address` (a local) lies in on the stack. */
function pushEntry(c: Code, address: number): void {
  pushCurrentTlbEntry(c, () => c.get(address));
}

/** Returns 0 from the function when the condition on the stack holds. */
function giveUpIf(c: Code): void {
  c.if(false);
  c.i32(0);
  c.op(RETURN);
  c.end();
}

/** Sets `entry` to the TLB's for an address (a local), or to that of the larger page. Leaves on the stack whether there is one. */
function findEntry(c: Code, address: number, tag: number, entry: number): void {
  const isThere = (bits: number): void => {
    c.tee(entry);
    c.memory(I64_LOAD, tag);
    c.get(address);
    c.i64(-(2 ** bits));
    c.op(I64_AND);
    c.op(I64_EQ);
  };
  pushEntry(c, address);
  isThere(PAGE_BITS);
  c.op(IF);
  c.op(typeByte(I32));
  c.i32(1);
  c.op(ELSE);
  pushLargeEntry(c, () => c.get(address));
  c.address(LARGE);
  c.addAddress();
  isThere(LARGE_BITS);
  c.end();
}

/** Sets `host` to the address in this memory of `bytes` from `address` on, or gives up. */
function reachRange(c: Code, address: number, bytes: number, tag: number, host: number): void {
  c.get(address);
  c.i64(PAGE_SIZE - 1);
  c.op(I64_AND);
  c.get(bytes);
  c.op(I64_ADD);
  c.i64(PAGE_SIZE);
  c.op(I64_GT_U);
  giveUpIf(c);
  findEntry(c, address, tag, host);
  c.op(I32_EQZ);
  giveUpIf(c);
  c.get(host);
  c.loadAddend(TLB_ADDEND);
  c.get(address);
  c.toAddress();
  c.addAddress();
  c.set(host);
}

function checkLength(c: Code, bytes: number): void {
  c.get(bytes);
  c.i64(PAGE_SIZE);
  c.op(I64_GT_U);
  giveUpIf(c);
}

/** bulkcopy(to, from, bytes) */
function writeBulkCopy(module: ModuleWriter): number {
  const c = module.code();
  c.begin([I64, I64, I64]);
  const to = c.local(c.addressType);
  const from = c.local(c.addressType);
  checkLength(c, 2);
  // A destination just ahead of the source repeats what it has copied: not a plain move.
  c.get(0);
  c.get(1);
  c.op(I64_SUB);
  c.get(2);
  c.op(I64_LT_U);
  giveUpIf(c);
  reachRange(c, 0, 2, TLB_WRITE, to);
  reachRange(c, 1, 2, TLB_READ, from);
  c.get(to);
  c.get(from);
  c.get(2);
  c.toAddress();
  c.raw([0xfc, 10, 0, 0]); // memory.copy
  c.i32(1);
  return module.function([I64, I64, I64], I32, c);
}

/** bulkfill(to, bytes, byte) */
function writeBulkFill(module: ModuleWriter): number {
  const c = module.code();
  c.begin([I64, I64, I32]);
  const to = c.local(c.addressType);
  checkLength(c, 1);
  reachRange(c, 0, 1, TLB_WRITE, to);
  c.get(to);
  c.get(2);
  c.get(1);
  c.toAddress();
  c.raw([0xfc, 11, 0]); // memory.fill
  c.i32(1);
  return module.function([I64, I64, I32], I32, c);
}

/** Surroundings of straight IR: parameters stand for globals, nothing can fault. */
function pureSurroundings(): Parameters<BlockEmitter['emitBody']>[2] {
  const never = (): never => {
    throw new Error('IR helpers are pure: no memory, exits or calls');
  };
  return {
    globalLocal: (global) => global + 1,
    wrote: never,
    basePc: never,
    instruction: never,
    faultIf: never,
    sideExit: never,
    slow: never,
    helper: never,
    spill: never,
    reload: never,
    inLoop: false,
    inline: false,
    tlb: 0,
    stackPointer: -1,
    remembersPage: never,
    page: never,
    groups: undefined,
    groupAddend: never,
  };
}

/** One function `(selector, ...params) => result` with an arm for each selector value. */
function writeIrHelper(module: ModuleWriter, helper: Helper, ir: IrSwitch): number {
  const params: Global[] = helper.params.slice(1).map((type, index) => ({ name: `p${index}`, index, type, offset: 0 }));
  const c = module.code();
  c.begin(helper.params);
  const emitter = new BlockEmitter(c, params.length, []);
  emitter.beginFunction();
  const around = pureSurroundings();
  const b = new Builder(params);
  for (let i = 0; i < ir.arms; i++) c.block(BLOCK);
  c.get(0);
  c.op(BR_TABLE);
  c.uleb(ir.arms - 1);
  for (let i = 0; i < ir.arms; i++) c.uleb(i);
  for (let i = 0; i < ir.arms; i++) {
    c.end();
    b.reset(CTX_UNKNOWN);
    const value = ir.arm(
      b,
      i,
      params.map((param) => b.get(param)),
    );
    // An exit that uses the result ends the block, as the emitter expects.
    if (helper.result === I32) b.condGoto(value, 0, 0);
    else b.jump(value);
    emitter.emitBody(b.words, b.count, around);
    emitter.pushValue(value);
    c.op(RETURN);
  }
  c.op(0x00);
  return module.function(helper.params, helper.result, c);
}

/** @param module an empty one  @returns the runtime module's bytes, the same for all machines whose addresses have the same size */
function runtimeModule(module: ModuleWriter, helpers: readonly Helper[], codeBase?: number): Uint8Array<ArrayBuffer> {
  const hostSlow = module.import('slow', [], NONE);
  const hostGuard = module.import('askGuard', [], I32);
  const hostNative = module.import('native', [], I32);
  for (const helper of helpers) {
    if (helper.body.kind !== 'ir') module.import(`h${helper.index}`, helper.params, helper.result);
  }
  const slowIndex = new Map<string, number>();
  const cross = writeCross(module);
  for (const entry of SLOW_IMPORTS) {
    const miss = slowPath(module, entry, hostSlow, cross);
    const index = accessFunction(module, entry, miss);
    for (const [name, one] of [
      [entry.name, index],
      [missName(entry.name), miss],
    ] as const) {
      slowIndex.set(name, one);
      module.export(name, one);
    }
  }
  for (const [name, index] of [
    ['bulkcopy', writeBulkCopy(module)],
    ['bulkfill', writeBulkFill(module)],
    [FIND_STACK, writeFindStack(module)],
  ] as const) {
    slowIndex.set(name, index);
    module.export(name, index);
  }
  module.export(GUARD, writeGuard(module, hostGuard));
  const helperIndex = new Map<Helper, number>();
  for (const helper of helpers) {
    if (helper.body.kind === 'ir') {
      const index = writeIrHelper(module, helper, helper.body.ir);
      helperIndex.set(helper, index);
      module.export(`h${helper.index}`, index);
    } else helperIndex.set(helper, module.import(`h${helper.index}`, helper.params, helper.result));
  }
  const find = writeFind(module, codeBase);
  module.export(FIND, find);
  const link = writeLink(module, find);
  module.export(LINK, link);
  module.export(FOLLOW, writeFollow(module, link));
  module.export(THROUGH, writeThrough(module));
  const writer = new InterpreterWriter(
    module,
    helpers,
    (name) => slowIndex.get(name)!,
    (helper) => helperIndex.get(helper)!,
    find,
  );
  const interpreter = writer.write();
  const dispatch = writeDispatch(module, find);
  module.element(FN_INTERPRETER, interpreter);
  module.element(FN_LOOKUP, writeLookup(module));
  module.element(FN_DISPATCH, dispatch);
  module.element(FN_NATIVE, writeNative(module, hostNative, interpreter, find));
  module.export('interpret', interpreter);
  module.export(DISPATCH, dispatch);
  return module.finish();
}

/**
 * @param bytes what `runtimeModule` makes
 * @param isaExports functions of the ISA's own runtime module, for helpers of kind 'wasm'
 */
export function startRuntime(
  bytes: Uint8Array<ArrayBuffer>,
  helpers: readonly Helper[],
  memory: WebAssembly.Memory,
  table: WebAssembly.Table,
  host: RuntimeImports,
  isaExports: Record<string, WebAssembly.ImportValue>,
): Runtime {
  const imports: Record<string, WebAssembly.ImportValue> = {
    memory,
    table,
    slow: host.slow,
    askGuard: host.guard,
    native: host.native,
  };
  for (const { body, index } of helpers) {
    if (body.kind === 'ir') continue;
    if (body.kind === 'host') imports[`h${index}`] = body.call;
    else imports[`h${index}`] = body.kind === 'vcpu' ? host.helper(body.name) : isaExports[body.export]!;
  }
  const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { v: imports });
  const exports = instance.exports as Record<string, (argument?: number) => void>;
  return {
    enter: exports.enter as () => void,
    interpret: exports.interpret as (address: number) => void,
    imports: { ...imports, ...exports },
  };
}

/** Both runtime modules. */
export interface RuntimeBytes {
  readonly engine: Uint8Array<ArrayBuffer>;
  readonly isa: Uint8Array<ArrayBuffer> | null;
}

/**
 * Makes the runtime modules, which takes longer than to start them.
 * @param pages of the memory, 64 KiB each
 * @param maximum of pages that the memory may have
 */
export function makeRuntime(isa: Isa, pages: number, shared: boolean, maximum = pages): RuntimeBytes {
  const module = (): ModuleWriter => new ModuleWriter(pages, maximum, shared);
  return {
    engine: runtimeModule(module(), isa.helpers, isa.codeBase),
    isa: isa.runtimeModule?.(module(), VCPU_BASE) ?? null,
  };
}

/** The modules that serve every shared memory whose addresses have 32 bits. */
export const makeCommonRuntime = (isa: Isa): RuntimeBytes => makeRuntime(isa, 1, true, 65536);
