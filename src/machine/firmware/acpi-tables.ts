/**
 * ACPI tables: ACPI specification 6.4, section 5.2. They are made for a place in memory, or for
 * firmware that places them itself (table-loader.ts) and needs to know where addresses stand.
 */
import { ByteWriter, fixChecksum } from './bytes.ts';

const OEM_ID = 'VIRELY';
const OEM_TABLE = 'VIRELAY ';
const CREATOR = 'VRLY';
const HEADER_SIZE = 36;
export const RSDP_SIZE = 36;

export type AcpiOptions = {
  /** Of the CPUs, in order; below 255. */
  apicIds: readonly number[];
  dsdt: Uint8Array;
  pmBase: number;
  gpeBase: number;
  gpeLength: number;
  smiCommand: number;
  acpiEnable: number;
  acpiDisable: number;
  sciInterrupt: number;
  localApicBase: number;
  ioApicBase: number;
  hpetBase: number | null;
  /** ISA interrupts (beside the SCI) that are level-triggered: the PIRQs' ones. */
  levelInterrupts: readonly number[];
  /** Where memory shows the configuration space of PCI, 256 MiB, or null. */
  ecam: number | null;
};
export type ReducedAcpiOptions = Pick<AcpiOptions, 'apicIds' | 'dsdt' | 'localApicBase' | 'ioApicBase'> & {
  reduced: ReducedHardware;
};

/** Of machines with ACPI's reduced hardware (3.11.1): registers in memory instead of the fixed ones, which are not there. */
export type ReducedHardware = { sleepControl: number; sleepStatus: number; reset: number; resetValue: number };

/** Where in a table, or in the RSDP, an address stands that points into the tables. */
export type AcpiLink = { at: number; size: 4 | 8 };
export type AcpiTables = {
  rsdp: Uint8Array;
  tables: Uint8Array;
  /** Within `tables`: what has a checksum in its header. */
  placed: { at: number; length: number }[];
  /** By offset within `tables`. */
  links: AcpiLink[];
};

/** Links of the RSDP. */
export const RSDP_LINKS: readonly AcpiLink[] = [
  { at: 16, size: 4 },
  { at: 24, size: 8 },
];
/** Links of each FADT: FACS, DSDT and the 64-bit address of the DSDT. */
const FADT_LINKS: readonly AcpiLink[] = [
  { at: 36, size: 4 },
  { at: 40, size: 4 },
  { at: 140, size: 8 },
];
/** Place of the checksum in a table's header. */
export const TABLE_CHECKSUM = 9;

/** Builds every table for a place in memory. @param base physical address of `tables` */
export function buildAcpiTables(options: AcpiOptions, base: number): AcpiTables {
  const more = [
    ...(options.hpetBase === null ? [] : [buildHpet(options.hpetBase)]),
    ...(options.ecam === null ? [] : [buildMcfg(options.ecam)]),
  ];
  const madt = buildMadt(options, [options.sciInterrupt, ...options.levelInterrupts]);
  return placeTables(base, options.dsdt, (facs, dsdt) => buildFadt(options, facs, dsdt), [madt, ...more]);
}

/** The same of a machine with reduced hardware. */
export function buildReducedTables(options: ReducedAcpiOptions, base: number): AcpiTables {
  const fadt = (facs: number, dsdt: number): Uint8Array => buildReducedFadt(options.reduced, facs, dsdt);
  return placeTables(base, options.dsdt, fadt, [buildMadt(options, [])]);
}

/** @param more tables beside FADT and DSDT */
function placeTables(
  base: number,
  definitions: Uint8Array,
  fadt: (facs: number, dsdt: number) => Uint8Array,
  more: readonly Uint8Array[],
): AcpiTables {
  const out = new ByteWriter();
  const links: AcpiLink[] = [];
  const placed: { at: number; length: number }[] = [];
  const put = (data: Uint8Array, align: number): number => {
    out.zeros((align - (out.length % align)) % align);
    const at = out.length;
    out.bytes(data);
    return at;
  };
  const place = (data: Uint8Array, of: readonly AcpiLink[] = []): number => {
    const at = put(data, 16);
    placed.push({ at, length: data.length });
    links.push(...of.map((link) => ({ ...link, at: at + link.at })));
    return base + at;
  };
  const facs = base + put(buildFacs(), 64);
  const dsdt = place(table('DSDT', 2, definitions));
  const entries = [place(fadt(facs, dsdt), FADT_LINKS), ...more.map((one) => place(one))];
  const list = (size: 4 | 8): { body: Uint8Array; at: readonly AcpiLink[] } => {
    const body = new ByteWriter();
    for (const entry of entries) size === 4 ? body.u32(entry) : body.u64(entry);
    const at = entries.map((_, i) => ({ at: HEADER_SIZE + size * i, size }));
    return { body: body.finish(), at };
  };
  const short = list(4);
  const long = list(8);
  const rsdt = place(table('RSDT', 1, short.body), short.at);
  const xsdt = place(table('XSDT', 1, long.body), long.at);
  return { rsdp: buildRsdp(rsdt, xsdt), tables: out.finish(), placed, links };
}

function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const data = new ByteWriter()
    .text(signature)
    .u32(HEADER_SIZE + body.length)
    .u8(revision, 0)
    .text(OEM_ID)
    .text(OEM_TABLE)
    .u32(1)
    .text(CREATOR)
    .u32(1)
    .bytes(body)
    .finish();
  fixChecksum(data, TABLE_CHECKSUM);
  return data;
}

/** 5.2.5.3: the first checksum covers the 20 bytes of version 1, the second one everything. */
function buildRsdp(rsdt: number, xsdt: number): Uint8Array {
  const data = new ByteWriter().text('RSD PTR ').u8(0).text(OEM_ID).u8(2).u32(rsdt).u32(RSDP_SIZE).u64(xsdt).u32(0).finish();
  fixChecksum(data, 8, 0, 20);
  fixChecksum(data, 32);
  return data;
}

/** 5.2.10; it has no checksum. */
function buildFacs(): Uint8Array {
  return new ByteWriter().text('FACS').u32(64).zeros(24).u8(2).zeros(31).finish();
}

/** Generic address of I/O ports (5.2.3.2). */
function ports(out: ByteWriter, base: number, bits: number, accessSize: number): void {
  if (base === 0) out.zeros(12);
  else out.u8(1, bits, 0, accessSize).u64(base);
}

/** Fixed feature flags (table 5.10): WBINVD works, C1 supported, power and sleep button notes. */
const FADT_FLAGS = {
  wbinvd: 1 << 0,
  c1: 1 << 2,
  sleepButtonAbsent: 1 << 5,
  rtcWakeFixed: 1 << 6,
  resetRegister: 1 << 10,
  reducedHardware: 1 << 20,
} as const;

/** 5.2.9, revision 3. */
function buildFadt(o: AcpiOptions, facs: number, dsdt: number): Uint8Array {
  const flags = FADT_FLAGS.wbinvd | FADT_FLAGS.c1 | FADT_FLAGS.sleepButtonAbsent | FADT_FLAGS.resetRegister;
  const out = new ByteWriter()
    .u32(facs)
    .u32(dsdt)
    .u8(0, 0)
    .u16(o.sciInterrupt)
    .u32(o.smiCommand)
    .u8(o.acpiEnable, o.acpiDisable, 0, 0)
    .u32(o.pmBase)
    .u32(0)
    .u32(o.pmBase + 4)
    .u32(0)
    .u32(0)
    .u32(o.pmBase + 8)
    .u32(o.gpeBase)
    .u32(0)
    .u8(4, 2, 0, 4, o.gpeLength, 0, 0, 0)
    // C2 and C3 latencies above the limits mean "not supported".
    .u16(0xfff)
    .u16(0xfff)
    .u16(0)
    .u16(0)
    .u8(0, 0)
    // Day alarm, month alarm, century byte of the CMOS.
    .u8(0, 0, 0x32)
    // Boot flags: legacy devices and an 8042 are there.
    .u16(0x0003)
    .u8(0)
    .u32(flags);
  ports(out, 0xcf9, 8, 1);
  // The FACS has its address in the 32-bit field, so the 64-bit one is zero.
  out.u8(0x06).u16(0).u8(0).u64(0).u64(dsdt);
  ports(out, o.pmBase, 32, 2);
  ports(out, 0, 0, 0);
  ports(out, o.pmBase + 4, 16, 2);
  ports(out, 0, 0, 0);
  ports(out, 0, 0, 0);
  ports(out, o.pmBase + 8, 32, 3);
  ports(out, o.gpeBase, o.gpeLength * 8, 1);
  ports(out, 0, 0, 0);
  return table('FACP', 3, out.finish());
}

/** A register of a byte in memory (5.2.3.2). */
const byteRegister = (out: ByteWriter, address: number): ByteWriter => out.u8(0, 8, 0, 1).u64(address);

/** 5.2.9, revision 5.1, of which nearly all is about registers that are not there. */
function buildReducedFadt(
  { sleepControl, sleepStatus, reset, resetValue }: ReducedHardware,
  facs: number,
  dsdt: number,
): Uint8Array {
  const flags = FADT_FLAGS.wbinvd | FADT_FLAGS.c1 | FADT_FLAGS.resetRegister | FADT_FLAGS.reducedHardware;
  const out = new ByteWriter()
    .u32(facs)
    .u32(dsdt)
    .zeros(112 - 44)
    .u32(flags);
  byteRegister(out, reset)
    .u8(resetValue)
    .u16(0)
    .u8(1)
    .u64(0)
    .u64(dsdt)
    .zeros(244 - 148);
  byteRegister(byteRegister(out, sleepControl), sleepStatus);
  return table('FACP', 5, out.finish());
}

/** Interrupt flags (table 5.26): active high, edge or level. */
const LEVEL_HIGH = 0x0d;

/** 5.2.12 @param levelInterrupts ISA interrupts that are level-triggered */
function buildMadt(
  o: Pick<AcpiOptions, 'apicIds' | 'localApicBase' | 'ioApicBase'>,
  levelInterrupts: readonly number[],
): Uint8Array {
  // Flag 0: there is an 8259 pair, too.
  const out = new ByteWriter().u32(o.localApicBase).u32(1);
  // A processor is known by its place, which is the _UID of its device in the DSDT.
  o.apicIds.forEach((id, cpu) => out.u8(0, 8, cpu, id).u32(1));
  out.u8(1, 12, 0, 0).u32(o.ioApicBase).u32(0);
  // The timer's ISA interrupt 0 arrives at pin 2.
  out.u8(2, 10, 0, 0).u32(2).u16(0);
  const level = [...new Set(levelInterrupts)].sort((a, b) => a - b);
  for (const irq of level) out.u8(2, 10, 0, irq).u32(irq).u16(LEVEL_HIGH);
  // Every processor's LINT1 is the NMI.
  out.u8(4, 6, 0xff).u16(0).u8(1);
  return table('APIC', 3, out.finish());
}

/** PCI Firmware Specification 3.0, 4.1.2: segment 0, buses 0 to 255. */
function buildMcfg(base: number): Uint8Array {
  return table('MCFG', 1, new ByteWriter().zeros(8).u64(base).u16(0).u8(0, 255).u32(0).finish());
}

/** IA-PC HPET specification, section 3.2.4. */
function buildHpet(base: number): Uint8Array {
  const body = new ByteWriter().u32(0x8086a201).u8(0, 64, 0, 0).u64(base).u8(0).u16(0).u8(0);
  return table('HPET', 1, body.finish());
}
