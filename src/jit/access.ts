/**
 * Wasm text of a guest memory access: TLB look-up, the access itself, and the call
 * of the slow path. Used by the interpreter and the region compiler alike.
 */
import { BULK, I32, I64, OPS } from '../ir/ops.ts';
import { CTL_SLOW_VALUE, CTL_STACK_ADDEND, CTL_STACK_LIMIT, CTL_STACK_PAGE, CTL_TLB_BASE } from '../ir/vcpu-block.ts';
import {
  CALL,
  ELSE,
  END,
  I64_ADD,
  I64_AND,
  I64_EQ,
  I64_LOAD,
  I32_AND,
  I32_NE,
  I64_LT_U,
  I64_NE,
  I64_SHR_U,
  I64_STORE,
  I64_SUB,
  IF,
  typeByte,
  VOID,
} from '../wasm/wasm.ts';
import type { Code } from '../wasm/wasm.ts';
import { LARGE_BITS, LARGE_ENTRIES, TLB_ADDEND, TLB_ENTRIES, TLB_ENTRY_SHIFT, TLB_READ, TLB_WRITE, VCPU_BASE } from './layout.ts';

/** How an access is described to the slow path: bytes | access << 8 | sign << 12. */
export const KIND_WRITE = 1 << 8;
/** A load that needs write permission, too. */
export const KIND_MODIFY = 2 << 8;
export const KIND_SIGNED = 1 << 12;

export interface AccessInfo {
  /** Name of the operation, and of its slow path in the runtime module. */
  readonly name: string;
  /** Result type of a load, value type of a store. */
  readonly type: number;
  readonly store: boolean;
  readonly bytes: number;
  readonly kind: number;
  readonly tag: number;
  readonly wasm: readonly number[];
}

/** Bytes that an operation moves, by what ends its name: v, or bits behind an f where they are a float's. */
export const bytesNamed = (text: string): number => (text === 'v' ? 16 : Number(text.replace('f', '')) / 8);

/** Description of each memory operation, derived from its name in the operation table. */
export const ACCESS: readonly (AccessInfo | null)[] = OPS.map((op) => {
  const match = /^(ld|st)(v|f?\d+)([usw]?)$/.exec(op.name);
  if (!match) return null;
  const store = match[1] === 'st';
  const bytes = bytesNamed(match[2]!);
  const modify = match[3] === 'w';
  return {
    name: op.name,
    type: store ? op.operands[1]! : op.result,
    store,
    bytes,
    kind: bytes | (store ? KIND_WRITE : modify ? KIND_MODIFY : 0) | (match[3] === 's' ? KIND_SIGNED : 0),
    tag: store || modify ? TLB_WRITE : TLB_READ,
    wasm: op.wasm!,
  };
});

/**
 * Slow-path functions of the runtime module, one for each memory operation: name and signature.
 * Their last result is not 0 when the access has faulted.
 */
export const SLOW_IMPORTS: readonly { name: string; params: readonly number[]; result: readonly number[]; info: AccessInfo }[] =
  ACCESS.filter((info) => info !== null).map((info) => ({
    name: info.name,
    params: info.store ? [I64, info.type] : [I64],
    result: info.store ? [I32] : [info.type, I32],
    info,
  }));

/** Name of the function that an access calls which has not found its page in the TLB itself. */
export const missName = (name: string): string => `miss ${name}`;

/** Bulk operations are functions of the runtime module, too. */
export const BULK_IMPORTS = OPS.filter((op) => op.kind === BULK).map(({ name, operands, result }) => ({
  name,
  params: operands,
  result,
}));

/** What an access needs to know of the function it is written into. */
export interface AccessContext {
  readonly code: Code;
  /** Locals: i64s for the virtual address and the tag found; addresses: scratch for a TLB entry and its addend, and the TLB. */
  readonly address: number;
  readonly found: number;
  readonly entry: number;
  readonly addend: number;
  readonly tlb: number;
  /** Function index of the slow path of that name. */
  slow(name: string): number;
  /** Emits what happens when the access has faulted, as the i32 on the stack says, inside `depth` conditionals. */
  faultIf(depth: number): void;
  /**
   * Look the TLB up in place. Outside loops that is not worth its size: cold code runs out of
   * caches long before it runs out of time, so the runtime module's function does it there.
   */
  readonly inline: boolean;
  /** Locals that remember the page this access went to last, when it is likely to stay there. */
  readonly page?: PageLocals | undefined;
  /** It is one of several that look the TLB up once (access-groups.ts). */
  readonly group?: GroupAccess | undefined;
  /** The access is to the stack, whose page is known to the state block (CTL_STACK_PAGE). */
  readonly stack: boolean;
}

/** What an access has to do with others that look the TLB up together. */
export interface GroupAccess {
  /** It looks, for all of them. */
  readonly leads: boolean;
  /** Of a leader: bytes from the first of the group to its own, and from the first to the end of the last. */
  readonly below: number;
  readonly span: number;
  /** Local for what makes an address in this memory of one in the group's page, or NO_PAGE. */
  readonly addend: number;
}

/** Where a group does not lie in one page that the TLB has. Addends are whole pages. */
const NO_PAGE = 1;

/**
 * Locals: a page's virtual address (i64), what makes an address in this memory of one in it (an address), and
 * the offset in it from which on an access may run out of it (i64). All zero at first: that is no page.
 */
export interface PageLocals {
  readonly tag: number;
  readonly addend: number;
  readonly limit: number;
}

/** Bytes of the widest access. */
const WIDEST = 16;

/** Of a page that is remembered: the widest access that begins before this offset stays in the page. */
export const PAGE_LIMIT = 4096 - (WIDEST - 1);

/** Leaves the address of the TLB entry for a virtual address on the stack. `address` and `tlb` leave theirs there. */
export function pushTlbEntry(c: Code, address: () => void, tlb: () => void): void {
  address();
  c.i64(12 - TLB_ENTRY_SHIFT);
  c.op(I64_SHR_U);
  c.i64((TLB_ENTRIES - 1) << TLB_ENTRY_SHIFT);
  c.op(I64_AND);
  c.toAddress();
  tlb();
  c.addAddress();
}

/** Leaves the address of the TLB in force on the stack. */
export function pushTlb(c: Code): void {
  c.address(0);
  c.loadAddress32(VCPU_BASE + CTL_TLB_BASE);
}

/** The same for the TLB in force, by the state block. */
export function pushCurrentTlbEntry(c: Code, address: () => void): void {
  pushTlbEntry(c, address, () => pushTlb(c));
}

/**
 * Leaves on the stack what `LARGE` must be added to for the address of the entry of the larger page that a virtual address
 * would be in, see layout.ts. `address` leaves the virtual address there.
 */
export function pushLargeEntry(c: Code, address: () => void): void {
  address();
  c.i64(LARGE_BITS - TLB_ENTRY_SHIFT);
  c.op(I64_SHR_U);
  c.i64((LARGE_ENTRIES - 1) << TLB_ENTRY_SHIFT);
  c.op(I64_AND);
  c.toAddress();
  pushTlb(c);
  c.addAddress();
}

function pushSum(c: Code, address: number, bytes: number): void {
  c.get(address);
  if (bytes === 0) return;
  c.i64(bytes);
  c.op(I64_ADD);
}

/**
 * Leaves "the page's tag for this access equals the address's page" on the stack, and sets the local `addend`.
 * @param below bytes before the address that must lie in the page, too  @param span bytes from there on
 */
function emitProbe(c: Code, ctx: AccessContext, tag: number, addend: number, below: number, span: number): void {
  pushTlbEntry(
    c,
    () => pushSum(c, ctx.address, -below),
    () => c.get(ctx.tlb),
  );
  c.tee(ctx.entry);
  c.memory(I64_LOAD, tag);
  c.tee(ctx.found);
  c.get(ctx.entry);
  c.loadAddend(TLB_ADDEND);
  c.set(addend);
  // What runs into the next page must not match this page's tag.
  pushSum(c, ctx.address, span - below - 1);
  c.i64(-4096);
  c.op(I64_AND);
  c.op(I64_EQ);
}

/** An access, or several that go the same way. */
interface Way {
  readonly bytes: number;
  readonly tag: number;
  /** Wasm type of the block that the access is. */
  readonly result: number;
}

const wayOf = ({ store, bytes, tag, type }: AccessInfo): Way => ({ bytes, tag, result: store ? VOID : typeByte(type) });

/** Emits the access by a function of the runtime module. @param named name of that, by the operation's */
type Slow = (faultIf: () => void, named: (name: string) => string) => void;

const byCall = (name: string): string => name;

/**
 * The access by the remembered page, else by the TLB, which is then remembered, else the slow path.
 * `direct` emits the access itself, the host address being on the stack.
 */
function emitAccess(ctx: AccessContext, info: Way, direct: () => void, slow: Slow): void {
  const c = ctx.code;
  const { page, inline } = ctx;
  const begin = (): void => {
    c.hint(true);
    c.op(IF);
    c.op(info.result);
  };
  if (ctx.group) return emitGroupAccess(ctx, ctx.group, info, begin, direct, slow);
  if (ctx.stack) return emitStackAccess(ctx, begin, direct, slow);
  if (page) {
    c.get(ctx.address);
    c.get(page.tag);
    c.op(I64_SUB);
    c.get(page.limit);
    c.op(I64_LT_U);
    begin();
    c.get(page.addend);
    c.get(ctx.address);
    c.toAddress();
    c.addAddress();
    direct();
    c.op(ELSE);
  }
  if (inline) emitInlineAccess(ctx, info, begin, direct);
  if (inline) useFound(ctx);
  slow(() => ctx.faultIf((page ? 1 : 0) + (inline ? 1 : 0)), inline ? missName : byCall);
  if (inline) c.op(END);
  if (page) c.op(END);
}

/** The access by the page that the group's leader has found, which this may be. */
function emitGroupAccess(
  ctx: AccessContext,
  { leads, addend, below, span }: GroupAccess,
  info: Way,
  begin: () => void,
  direct: () => void,
  slow: Slow,
): void {
  const c = ctx.code;
  if (leads && ctx.stack) emitStackProbe(ctx, addend, below, span);
  else if (leads) emitProbe(c, ctx, info.tag, addend, below, span);
  else {
    c.get(addend);
    c.address(NO_PAGE);
    c.op(c.addressType === I32 ? I32_NE : I64_NE);
  }
  begin();
  c.get(addend);
  c.get(ctx.address);
  c.toAddress();
  c.addAddress();
  direct();
  c.op(ELSE);
  if (leads) {
    c.address(NO_PAGE);
    c.set(addend);
    if (ctx.stack) findStack(ctx);
    else useFound(ctx);
  }
  slow(() => ctx.faultIf(1), byCall);
  c.op(END);
}

/** Leaves "this range lies in the page that the stack was last seen in" on the stack, and sets `addend`. */
function emitStackProbe({ code: c, address }: AccessContext, addend: number, below: number, span: number): void {
  c.address(0);
  c.loadAddend(VCPU_BASE + CTL_STACK_ADDEND);
  c.set(addend);
  const starts = (offset: number): void => {
    pushSum(c, address, offset);
    c.loadAt(I64_LOAD, VCPU_BASE + CTL_STACK_PAGE);
    c.op(I64_SUB);
    c.loadAt(I64_LOAD, VCPU_BASE + CTL_STACK_LIMIT);
    c.op(I64_LT_U);
  };
  starts(-below);
  // The widest access that begins before the limit stays in the page.
  if (span <= WIDEST) return;
  starts(span - below - WIDEST);
  c.op(I32_AND);
}

/** For the tag to be used twice: V8 would load it twice otherwise, once by itself, because that might trap, and once as the comparison's operand. */
function useFound({ code, found }: AccessContext): void {
  code.storeAt(I64_STORE, VCPU_BASE + CTL_SLOW_VALUE, () => code.get(found));
}

/** The access by the page that the stack was last seen in, else the slow path, which finds the page for the next. */
function emitStackAccess(ctx: AccessContext, begin: () => void, direct: () => void, slow: Slow): void {
  const c = ctx.code;
  c.get(ctx.address);
  c.loadAt(I64_LOAD, VCPU_BASE + CTL_STACK_PAGE);
  c.op(I64_SUB);
  c.loadAt(I64_LOAD, VCPU_BASE + CTL_STACK_LIMIT);
  c.op(I64_LT_U);
  begin();
  c.address(0);
  c.loadAddend(VCPU_BASE + CTL_STACK_ADDEND);
  c.get(ctx.address);
  c.toAddress();
  c.addAddress();
  direct();
  c.op(ELSE);
  findStack(ctx);
  slow(() => ctx.faultIf(1), byCall);
  c.op(END);
}

function findStack({ code, address, slow }: AccessContext): void {
  code.get(address);
  code.call(CALL, slow(FIND_STACK));
}

/** Function of the runtime module that enters the page of an address as the stack's, when the TLB has it for writing. */
export const FIND_STACK = 'findstack';

/** The access by the TLB; what follows is the other arm of its conditional. */
function emitInlineAccess(ctx: AccessContext, info: Way, begin: () => void, direct: () => void): void {
  const c = ctx.code;
  const { page } = ctx;
  emitProbe(c, ctx, info.tag, ctx.addend, 0, info.bytes);
  begin();
  c.get(ctx.addend);
  if (page) {
    c.tee(page.addend);
    c.get(ctx.address);
    c.i64(-4096);
    c.op(I64_AND);
    c.set(page.tag);
    c.i64(PAGE_LIMIT);
    c.set(page.limit);
  }
  c.get(ctx.address);
  c.toAddress();
  c.addAddress();
  direct();
  c.op(ELSE);
}

/** Is there more to the access than a call? */
export function isInPlace(ctx: AccessContext): boolean {
  return ctx.inline || ctx.stack || ctx.page !== undefined || ctx.group !== undefined;
}

/** Load from the address on the stack; leaves the value there. */
export function emitLoad(ctx: AccessContext, info: AccessInfo): void {
  const c = ctx.code;
  if (!isInPlace(ctx)) {
    c.call(CALL, ctx.slow(info.name));
    return ctx.faultIf(0);
  }
  c.set(ctx.address);
  emitAccess(
    ctx,
    wayOf(info),
    () => c.memory(info.wasm, 0),
    (faultIf, named) => {
      c.get(ctx.address);
      c.call(CALL, ctx.slow(named(info.name)));
      faultIf();
    },
  );
}

type Two<T> = readonly [T, T];

/**
 * Two loads or two stores from the address on the stack on, the second behind the first.
 * @param values locals for what is loaded, or of what is stored
 */
export function emitPair(ctx: AccessContext, infos: Two<AccessInfo>, values: Two<number>): void {
  const c = ctx.code;
  const [{ store, bytes, tag }, second] = infos;
  c.set(ctx.address);
  const each = (begin: (offset: number) => void, access: (info: AccessInfo, offset: number) => void): void => {
    for (const [k, info] of infos.entries()) {
      begin(k * bytes);
      if (store) c.get(values[k]!);
      access(info, k * bytes);
      if (!store) c.set(values[k]!);
    }
  };
  emitAccess(
    ctx,
    { bytes: bytes + second.bytes, tag, result: VOID },
    () => {
      c.set(ctx.entry);
      each(
        () => c.get(ctx.entry),
        (info, offset) => c.memory(info.wasm, offset),
      );
    },
    (faultIf, named) =>
      each(
        (offset) => {
          c.get(ctx.address);
          if (offset === 0) return;
          c.i64(offset);
          c.op(I64_ADD);
        },
        (info) => {
          c.call(CALL, ctx.slow(named(info.name)));
          faultIf();
        },
      ),
  );
}

/** Store to the address on the stack; `value` leaves the value there, without side effects. */
export function emitStore(ctx: AccessContext, info: AccessInfo, value: () => void): void {
  const c = ctx.code;
  if (!isInPlace(ctx)) {
    value();
    c.call(CALL, ctx.slow(info.name));
    return ctx.faultIf(0);
  }
  c.set(ctx.address);
  emitAccess(
    ctx,
    wayOf(info),
    () => {
      value();
      c.memory(info.wasm, 0);
    },
    (faultIf, named) => {
      c.get(ctx.address);
      value();
      c.call(CALL, ctx.slow(named(info.name)));
      faultIf();
    },
  );
}
