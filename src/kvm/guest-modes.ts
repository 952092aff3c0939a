/** Registers of small guests in the modes of an x86 processor (Intel SDM, volume 3, chapters 3 and 4). */
import type { VcpuState } from './vcpu.ts';

type Sregs = VcpuState<'sregs'>;
type Segment = Sregs['cs'];

const CR0_PE = 1n;
const CR0_ET = 1n << 4n;
const CR0_PG = 1n << 31n;
const CR4_PSE = 1n << 4n;
const CR4_PAE = 1n << 5n;
const CR4_OSFXSR = 1n << 9n;
const EFER_SCE = 1n << 0n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;
const RPL_3 = 3;
/** Descriptor types: code that can be read, data that can be written, and a 64-bit TSS that is in use. */
const TYPE_CODE = 11;
const TYPE_DATA = 3;
const TYPE_TSS = 11;
const TSS_LIMIT = 0x67;

/** Page tables' entries: present, writable, for programs; and a large page. */
const TABLE_ENTRY = 0x07;
const LARGE_PAGE = 0x87;
/** Where a guest's page tables are: three pages. */
export const PAGE_TABLES = 0x9000;
const PAGE = 0x1000;

/** Selectors in the order that SYSCALL and SYSRET expect. */
export const KERNEL_CODE = 0x08;
const KERNEL_DATA = 0x10;
export const USER_BASE = 0x18;
const USER_DATA = 0x20 | RPL_3;
const USER_CODE = 0x28 | RPL_3;
const TASK = 0x30;

const flat = (segment: Partial<Segment>): Segment => ({
  base: 0n,
  limit: 0xffff_ffff,
  selector: 0,
  type: TYPE_DATA,
  present: 1,
  dpl: 0,
  db: 1,
  s: 1,
  l: 0,
  g: 1,
  avl: 0,
  unusable: 0,
  padding: 0,
  ...segment,
});

function withSegments(sregs: Sregs, code: Segment, data: Segment): Sregs {
  return { ...sregs, cs: code, ds: data, es: data, fs: data, gs: data, ss: data };
}

/** All segments at 0. */
export function realMode(sregs: Sregs): Sregs {
  return { ...sregs, cs: { ...sregs.cs, base: 0n, selector: 0 } };
}

/** 32 bits, flat, without paging. */
export function protectedMode(sregs: Sregs): Sregs {
  const code = flat({ selector: KERNEL_CODE, type: TYPE_CODE });
  return { ...withSegments(sregs, code, flat({ selector: KERNEL_DATA })), cr0: CR0_PE | CR0_ET };
}

/** With a large page at 0: `writePageTables32`. */
export function paged32(sregs: Sregs): Sregs {
  const plain = protectedMode(sregs);
  return { ...plain, cr3: BigInt(PAGE_TABLES), cr4: CR4_PSE, cr0: plain.cr0 | CR0_PG };
}

export function writePageTables32(memory: Uint8Array): void {
  new DataView(memory.buffer, memory.byteOffset).setUint32(PAGE_TABLES, LARGE_PAGE, true);
}

/** 64 bits in ring 0, with a large page at 0: `writePageTables64`. */
export function longMode(sregs: Sregs): Sregs {
  const code = flat({ selector: KERNEL_CODE, type: TYPE_CODE, l: 1, db: 0 });
  return {
    ...withSegments(sregs, code, flat({ selector: KERNEL_DATA })),
    tr: flat({ selector: TASK, type: TYPE_TSS, s: 0, g: 0, db: 0, limit: TSS_LIMIT }),
    cr3: BigInt(PAGE_TABLES),
    cr4: CR4_PAE | CR4_OSFXSR,
    cr0: CR0_PE | CR0_ET | CR0_PG,
    efer: EFER_SCE | EFER_LME | EFER_LMA,
  };
}

/** 64 bits in ring 3. */
export function userMode(sregs: Sregs): Sregs {
  const code = flat({ selector: USER_CODE, type: TYPE_CODE, l: 1, db: 0, dpl: 3 });
  return withSegments(longMode(sregs), code, flat({ selector: USER_DATA, dpl: 3 }));
}

export function writePageTables64(memory: Uint8Array): void {
  const view = new DataView(memory.buffer, memory.byteOffset);
  view.setUint32(PAGE_TABLES, (PAGE_TABLES + PAGE) | TABLE_ENTRY, true);
  view.setUint32(PAGE_TABLES + PAGE, (PAGE_TABLES + 2 * PAGE) | TABLE_ENTRY, true);
  view.setUint32(PAGE_TABLES + 2 * PAGE, LARGE_PAGE, true);
}
