/**
 * Where things lie in a machine's one WebAssembly memory (byte addresses).
 *
 *   0           the entry cell that leads to a look-up: what empty jump-cache entries name
 *   64 KiB      the vCPU's block: engine state, ISA state, interpreter temporaries
 *   128 KiB     small constants shared by all interpreter code
 *   256 KiB     entry cells, 8 bytes each: { function: i32, argument: i32 }
 *   8 MiB       contexts: TLB, victim entries and jump cache of each, CONTEXT_SIZE apart
 *   28 MiB      code index
 *   32 MiB      interpreter code: first what is run once, then where computed jumps of the host's code led
 *   96 MiB      guest RAM and ROM
 */
/** The entry cell at address 0. */
export const NULL_CELL = 0;
export const VCPU_BASE = 0x10000;
export const CONSTANTS = 0x20000;
export const CELLS = 0x40000;
export const CELLS_END = 0x800000;
export const CONTEXTS = 0x800000;
export const CODE_INDEX = 0x1c00000;
export const CODE = 0x2000000;
export const CODE_END = 0x6000000;
/** The beginning of the code: where what is run once is put. */
export const SCRATCH_CODE = CODE;
export const SCRATCH_SIZE = 0x10000;
/**
 * Behind it: where computed jumps of the host's code have led, an entry of 16 bytes by the pc's low bits: 0 pc i64, 8 mapping
 * i32 under which that was, 12 host address of the code there i32.
 */
export const NATIVE_JUMPS = SCRATCH_CODE + SCRATCH_SIZE;
export const NATIVE_JUMP_BITS = 12;
/** First address for blocks. */
export const FIRST_CODE = NATIVE_JUMPS + (16 << NATIVE_JUMP_BITS);
export const GUEST_MEMORY = 0x6000000;

/** Entry cell: which function to call with which argument. */
export const CELL_FUNCTION = 0;
export const CELL_ARGUMENT = 4;
export const CELL_SIZE = 8;

/**
 * Guard of a page beyond a region's first, among the entry cells: 0 mapping i32 under which the page was last
 * found where the region's code is from, 8 offset of the page from the region's base pc i64, 16 its address in
 * this memory i64.
 */
export const GUARD_MAPPING = 0;
export const GUARD_OFFSET = 8;
export const GUARD_HOST = 16;
export const GUARD_SIZE = 24;

/**
 * Link of a region to a place on another page, which its pc leads to as long as the mapping is the same; among
 * the entry cells, too, and as large: 0 mapping i32 under which it was made, 4 address of the entry cell i32.
 */
export const LINK_MAPPING = 0;
export const LINK_CELL = 4;
/** A region's. */
export const MAX_LINKS = 8;

/**
 * TLB entry, 32 bytes: the page's virtual address for each permitted access, else -1,
 * and what must be added to a virtual address to get the address in this memory.
 *
 *   0 read tag i64 | 8 write tag i64 | 16 execute tag i64 | 24 addend i64
 */
export const TLB_BITS = 12;
export const TLB_ENTRIES = 1 << TLB_BITS;
export const TLB_ENTRY_SHIFT = 5;
export const TLB_READ = 0;
export const TLB_WRITE = 8;
export const TLB_EXEC = 16;
export const TLB_ADDEND = 24;
export const TLB_SIZE = TLB_ENTRIES << TLB_ENTRY_SHIFT;
/** Entries pushed out of the TLB, looked through one by one before the slow path. */
export const VICTIM = TLB_SIZE;
export const VICTIM_ENTRIES = 8;

/** How often the context has been emptied as a whole, i32: by that others see that it is not the same any more. */
export const EPOCH = VICTIM + VICTIM_ENTRIES * 32;

/**
 * Larger pages of a context that is the supervisor's (large-pages.ts), 2 MiB each; entries are as the TLB's, by the address bits
 * from LARGE_BITS on. In others all are empty.
 */
export const LARGE = 0x30000;
export const LARGE_BITS = 21;
export const LARGE_ENTRIES = 512;
export const LARGE_SIZE = LARGE_ENTRIES << TLB_ENTRY_SHIFT;

/**
 * Jump cache entry, 16 bytes: 0 pc i64, 8 address of the entry cell i32. A page's entries
 * are neighbours, so that one page can be dropped alone: index = page bits, then
 * JUMP_LOW_BITS of the offset, folded. An empty entry is all zero: pc 0 "found" there
 * leads to a look-up, too.
 */
export const JUMP_CACHE = 0x40000;
export const JUMP_PAGE_BITS = 7;
export const JUMP_LOW_BITS = 6;
/** The pc's bits from these on are folded into the low part: within the page, and of the page's number. */
export const JUMP_FOLD_LOW = JUMP_LOW_BITS;
export const JUMP_FOLD_HIGH = 12 + JUMP_PAGE_BITS;
export const JUMP_ENTRIES = 1 << (JUMP_PAGE_BITS + JUMP_LOW_BITS);
export const JUMP_SIZE = JUMP_ENTRIES * 16;
/**
 * Behind the jump cache: how many entries have been made since it was emptied (i32; one more than there is room for
 * stands for any number), and their addresses (i32 each). Most caches are emptied long before they are full.
 */
export const JUMP_COUNT = JUMP_SIZE;
export const JUMP_LIST = JUMP_SIZE + 8;
export const JUMP_LIST_ROOM = 128;

/**
 * Code index: all translated code by where it lies, for what the jump caches have not. Entry,
 * 16 bytes: 0 key i64 (address in this memory + CTL_CODE_KEY), 8 address of the entry cell i32, 12 of the interpreter code i32.
 * Its place: both halves of the key together times INDEX_FACTOR, the upper INDEX_BITS; or the neighbour
 * with the lowest of these bits inverted.
 */
export const INDEX_BITS = 18;
export const INDEX_FACTOR = 0x9e3779b1 | 0;
export const INDEX_SIZE = 16 << INDEX_BITS;

export const CONTEXT_SIZE = 0x200000;
/** Contexts 0 and 1 are the supervisor's; user address spaces share the rest. */
export const SUPERVISOR_CONTEXTS = 2;
export const USER_CONTEXTS = 8;
export const CONTEXT_COUNT = SUPERVISOR_CONTEXTS + USER_CONTEXTS;
/** Address of the first TLB that is a program's. */
export const USER_TLB = CONTEXTS + SUPERVISOR_CONTEXTS * CONTEXT_SIZE;

/** Constants -16 to 255 stand ready as 16-byte slots. */
export const CONSTANT_MIN = -16;
export const CONSTANT_MAX = 255;

/** Fixed places in the function table. */
export const FN_INTERPRETER = 0;
export const FN_LOOKUP = 1; // leaves with EXIT_LOOKUP
export const FN_DISPATCH = 2; // goes on at pc through the jump cache
export const FN_NATIVE = 3; // runs code of the host's processor
export const FN_FIRST_FREE = 16;
