import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildAcpiTables, RSDP_SIZE } from './acpi-tables.ts';
import { device, eisaId, integer, name, nameString, packageOf } from './aml.ts';
import { sumOf } from './bytes.ts';
import { buildE820, E820 } from './e820.ts';
import { buildSmbios } from './smbios.ts';

const BASE = 0x7fe0000;

function tables() {
  const built = buildAcpiTables(
    {
      apicIds: [0, 1],
      dsdt: Uint8Array.from(name('\\TEST', integer(5))),
      pmBase: 0x600,
      gpeBase: 0xafe0,
      gpeLength: 4,
      smiCommand: 0xb2,
      acpiEnable: 1,
      acpiDisable: 0,
      sciInterrupt: 9,
      localApicBase: 0xfee00000,
      ioApicBase: 0xfec00000,
      hpetBase: 0xfed00000,
      levelInterrupts: [10, 11, 10],
      ecam: null,
    },
    BASE,
  );
  const view = new DataView(built.tables.buffer);
  const at = (address: number) => {
    const start = address - BASE;
    return built.tables.subarray(start, start + view.getUint32(start + 4, true));
  };
  return { ...built, at };
}

const u32 = (data: Uint8Array, at: number) => new DataView(data.buffer, data.byteOffset).getUint32(at, true);
const signature = (data: Uint8Array) => String.fromCharCode(...data.subarray(0, 4));

test('RSDP has both checksums', () => {
  const { rsdp } = tables();
  assert.equal(rsdp.length, RSDP_SIZE);
  assert.equal(sumOf(rsdp.subarray(0, 20)), 0);
  assert.equal(sumOf(rsdp), 0);
});

test('every table that the RSDT and XSDT name sums to zero', () => {
  const { rsdp, at } = tables();
  const rsdt = at(u32(rsdp, 16));
  const xsdt = at(u32(rsdp, 24));
  const names: string[] = [];
  for (let i = 36; i < rsdt.length; i += 4) {
    const table = at(u32(rsdt, i));
    assert.equal(u32(xsdt, 36 + (i - 36) * 2), u32(rsdt, i));
    assert.equal(sumOf(table), 0);
    names.push(signature(table));
  }
  assert.deepEqual([sumOf(rsdt), sumOf(xsdt)], [0, 0]);
  assert.deepEqual(names, ['FACP', 'APIC', 'HPET']);
});

test('the FADT points at DSDT, FACS and the registers', () => {
  const { rsdp, at } = tables();
  const fadt = at(u32(at(u32(rsdp, 16)), 36));
  assert.equal(fadt.length, 244);
  assert.equal(signature(at(u32(fadt, 40))), 'DSDT');
  const facs = at(u32(fadt, 36));
  assert.equal(signature(facs), 'FACS');
  assert.equal(u32(fadt, 36) % 64, 0);
  assert.equal(u32(fadt, 76), 0x608);
});

test('the MADT lists each processor once and each level interrupt once', () => {
  const { rsdp, at } = tables();
  const madt = at(u32(at(u32(rsdp, 16)), 40));
  const types: number[] = [];
  for (let i = 44; i < madt.length; i += madt[i + 1]!) types.push(madt[i]!);
  assert.deepEqual(types, [0, 0, 1, 2, 2, 2, 2, 4]);
});

test('AML: names, integers, package lengths', () => {
  assert.deepEqual(nameString('\\_SB.PCI0').slice(0, 3), [0x5c, 0x2e, 0x5f]);
  assert.deepEqual(integer(0x1234), [0x0b, 0x34, 0x12]);
  assert.deepEqual(eisaId('PNP0A03'), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
  assert.deepEqual(packageOf(integer(1)), [0x12, 3, 1, 1]);
  const long = device('DEV0', ...Array.from({ length: 20 }, () => name('AAAA', integer(300))));
  const length = (long[2]! & 15) | (long[3]! << 4);
  assert.equal(long[2]! >> 6, 1);
  assert.equal(length, long.length - 2);
});

test('SMBIOS: checksums, structures end to end', () => {
  const { entry21, entry30, table } = buildSmbios(
    {
      ramSize: 6 * 2 ** 30,
      lowRam: 3 * 2 ** 30,
      topology: { sockets: 1, cores: 1, threads: 1 },
      uuid: null,
      machine: 'x',
    },
    0xf1000,
  );
  assert.equal(sumOf(entry21), 0);
  assert.equal(sumOf(entry21.subarray(16)), 0);
  assert.equal(sumOf(entry30), 0);
  const types: number[] = [];
  for (let at = 0; at < table.length; ) {
    types.push(table[at]!);
    at += table[at + 1]!;
    while (table[at] !== 0 || table[at + 1] !== 0) at++;
    at += 2;
  }
  assert.deepEqual(types, [0, 1, 3, 4, 16, 17, 19, 19, 32, 127]);
});

test('the memory map splits RAM around the hole', () => {
  const map = buildE820(4 * 2 ** 30, 0xc0000000, { base: 0xbffe0000, size: 0x20000 });
  const ram = map.filter((entry) => entry.type === E820.ram);
  assert.deepEqual(
    ram.map(({ base, size }) => [base, size]),
    [
      [0, 0x9fc00],
      [0x100000, 0xbffe0000 - 0x100000],
      [0x1_0000_0000, 0x40000000],
    ],
  );
});
