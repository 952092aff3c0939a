/** What a microvm's kernel finds when it starts: memory map and ACPI tables. */
import { GED_RESET, GED_RESET_VALUE, GED_SLEEP_CONTROL, GED_SLEEP_STATUS } from '../devices/acpi/ged.ts';
import type { AddressSpace } from './address-space.ts';
import { buildReducedTables } from './firmware/acpi-tables.ts';
import { buildE820 } from './firmware/e820.ts';
import { buildMicrovmDsdt, type MicrovmDsdtOptions } from './firmware/microvm-dsdt.ts';
import type { InitialCpuState } from './loader/cpu-state.ts';
import { type BootImage, loadKernel } from './loader/loader.ts';

export type MicrovmStart = {
  ramSize: number;
  /** End of RAM below 4 GiB. */
  lowRam: number;
  apicIds: readonly number[];
  ioApicBase: number;
  /** Null for a machine without ACPI. */
  acpi: MicrovmDsdtOptions | null;
};

const LAPIC_BASE = 0xfee00000;
const TABLE_SPACE = 0x10000;
const RSDP = 0xf0000;
/** Where processors begin, and where kernels go to that take a reset by firmware for the surest one. */
const RESET_VECTOR = 0xffff0;
/** lidt cs:[FFF8h], which has no vectors; int3: the processor shuts down, which resets the machine. */
const SHUT_DOWN = [0x2e, 0x0f, 0x01, 0x1e, 0xf8, 0xff, 0xcc, 0, 0, 0, 0, 0, 0, 0, 0, 0];

export function startMicrovm(mem: AddressSpace, image: BootImage, options: MicrovmStart): InitialCpuState {
  const { ramSize, lowRam, acpi } = options;
  const tables = { base: lowRam - TABLE_SPACE, size: TABLE_SPACE };
  mem.writeBytes(RESET_VECTOR, Uint8Array.from(SHUT_DOWN));
  if (acpi !== null) placeAcpi(mem, options, acpi, tables.base);
  const e820 = buildE820(ramSize, lowRam, acpi === null ? null : tables);
  return loadKernel(image, { memory: mem, e820, lowEnd: tables.base, rsdp: acpi === null ? 0 : RSDP });
}

function placeAcpi(mem: AddressSpace, { apicIds, ioApicBase }: MicrovmStart, acpi: MicrovmDsdtOptions, base: number): void {
  const at = (register: number): number => acpi.events.base + register;
  const { rsdp, tables } = buildReducedTables(
    {
      apicIds,
      dsdt: buildMicrovmDsdt(acpi),
      localApicBase: LAPIC_BASE,
      ioApicBase,
      reduced: {
        sleepControl: at(GED_SLEEP_CONTROL),
        sleepStatus: at(GED_SLEEP_STATUS),
        reset: at(GED_RESET),
        resetValue: GED_RESET_VALUE,
      },
    },
    base,
  );
  if (tables.length > TABLE_SPACE) throw new Error('ACPI tables do not fit into their space');
  mem.writeBytes(base, tables);
  mem.writeBytes(RSDP, rsdp);
}
