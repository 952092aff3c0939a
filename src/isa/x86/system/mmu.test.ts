import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ACCESS_EXEC, ACCESS_READ, ACCESS_WRITE } from '../../isa.ts';
import { CR0, CR3, CR4, EFER, EFLAGS, AC } from '../state.ts';
import { DEVICE, Kit } from './test-kit.ts';

const fault = (kit: Kit): [number, number] => [kit.cpu.core.vector, kit.cpu.core.code];

function paging(cr4: bigint, efer: bigint, cr0 = 0x80010001n, cr3 = 0x8000n): Kit {
  const kit = new Kit('max,+la57');
  kit.setBig(CR0, cr0);
  kit.setBig(CR3, cr3);
  kit.setBig(CR4, cr4);
  kit.setBig(EFER, efer);
  return kit.ready();
}

test('without paging every address is its own, A20 masks bit 20', () => {
  const kit = new Kit();
  assert.deepEqual(kit.walk(0x123456n, ACCESS_WRITE), { ok: true, page: 0x123000, permissions: 7, global: false, bits: 12 });
  kit.cpu.setA20(false);
  assert.equal(kit.walk(0x123456n, ACCESS_READ).page, 0x23000);
});

test('4-level walk sets accessed and dirty, and withholds write until dirty', () => {
  const kit = new Kit().long64();
  const read = kit.walk(0x5123n, ACCESS_READ);
  assert.deepEqual([read.ok, read.page, read.permissions], [true, 0x5000, 5]);
  assert.equal(kit.getQuad(0xb028), 0x5027n);
  assert.equal(kit.getQuad(0x8000), 0x9027n);
  const write = kit.walk(0x5123n, ACCESS_WRITE);
  assert.equal(write.permissions, 7);
  assert.equal(kit.getQuad(0xb028), 0x5067n);
});

test('error codes tell present, write, user, reserved and fetch', () => {
  const kit = new Kit().long64(3);
  kit.quad(0xb000, 0n);
  kit.quad(0xb008, 0x1003n); // supervisor
  kit.quad(0xb010, 0x2005n); // read-only
  kit.quad(0xb018, 0x3007n | (1n << 45n)); // reserved bit
  kit.quad(0xb020, 0x4007n | (1n << 63n)); // no execute
  const code = (address: bigint, access: number): number => {
    assert.equal(kit.walk(address, access).ok, false);
    assert.equal(kit.cpu.core.vector, 14);
    assert.equal(kit.cpu.core.faultLow, Number(address));
    return kit.cpu.core.code;
  };
  assert.equal(code(0x10n, ACCESS_READ), 4);
  assert.equal(code(0x10n, ACCESS_WRITE), 6);
  assert.equal(code(0x1010n, ACCESS_READ), 5);
  assert.equal(code(0x2010n, ACCESS_WRITE), 7);
  assert.equal(code(0x3010n, ACCESS_READ), 13);
  assert.equal(code(0x4010n, ACCESS_EXEC), 0x15);
  assert.equal(kit.walk(0x4010n, ACCESS_READ).permissions, 1);
});

test('supervisor: write protection, SMEP and SMAP', () => {
  const kit = new Kit().long64();
  kit.quad(0xb008, 0x1001n);
  kit.quad(0xb010, 0x2007n);
  assert.equal(kit.walk(0x1000n, ACCESS_WRITE).ok, false);
  assert.equal(kit.cpu.core.code, 3);
  kit.setBig(CR0, 0x80000033n);
  kit.ready();
  assert.equal(kit.walk(0x1000n, ACCESS_WRITE).ok, true);
  kit.setBig(CR4, 0x3006b0n);
  kit.ready();
  assert.equal(kit.walk(0x2000n, ACCESS_READ).ok, false);
  assert.equal(kit.cpu.core.code, 1);
  assert.equal(kit.walk(0x2000n, ACCESS_EXEC).ok, false);
  assert.equal(kit.cpu.core.code, 0x11);
  kit.cpu.core.set(EFLAGS, AC | 2);
  assert.equal(kit.walk(0x2000n, ACCESS_READ).ok, true);
  assert.equal(kit.walk(0x2000n, ACCESS_WRITE).permissions, 3);
});

test('large pages, global bit, canonical addresses', () => {
  const kit = new Kit().long64();
  kit.quad(0xa008, 0x4000001e7n | (1n << 32n));
  const large = kit.walk(0x2ff123n, ACCESS_READ);
  assert.deepEqual([large.ok, large.page, large.global, large.bits], [true, 0x5000ff000, true, 21]);
  kit.quad(0xa010, 0x4002007n | 0x80n | 0x2000n);
  assert.equal(kit.walk(0x400000n, ACCESS_READ).ok, false);
  assert.equal(kit.cpu.core.code, 9);
  kit.quad(0x9008, 0x80000087n);
  const huge = kit.walk(0x7fffffffn, ACCESS_READ);
  assert.deepEqual([huge.page, huge.bits], [0x80000000 + 0x3ffff000, 30]);
  assert.equal(kit.walk(0x800000000000n, ACCESS_READ).ok, false);
  assert.deepEqual(fault(kit), [13, 0]);
  kit.quad(0x8000 + 8 * 511, 0x9007n);
  assert.equal(kit.walk(0xffffff8000005000n, ACCESS_READ).page, 0x5000);
});

test('5-level walk', () => {
  const kit = paging(0x10b0n | (1n << 12n), 0xd00n, 0x80010001n, 0x7000n);
  kit.identity();
  kit.quad(0x7000, 0x8007n);
  kit.quad(0x7000 + 8 * 256, 0x8007n);
  assert.equal(kit.walk(0x5000n, ACCESS_READ).page, 0x5000);
  assert.equal(kit.walk(0xff00000000005000n, ACCESS_READ).page, 0x5000);
  assert.equal(kit.walk(0x0100000000005000n, ACCESS_READ).ok, false);
  assert.deepEqual(fault(kit), [13, 0]);
});

test('32-bit walk with 4 KiB and 4 MiB pages', () => {
  const kit = paging(0x10n, 0n);
  kit.ram.setUint32(0x8000, 0x9007, true);
  kit.ram.setUint32(0x9000 + 4 * 5, 0x6007, true);
  kit.ram.setUint32(0x8004, 0x00800087 | (1 << 13), true);
  assert.equal(kit.walk(0x5008n, ACCESS_WRITE).page, 0x6000);
  assert.equal(kit.ram.getUint32(0x9014, true), 0x6067);
  const large = kit.walk(0x412345n, ACCESS_READ);
  assert.deepEqual([large.page, large.bits], [0x100812000, 22]);
  assert.equal(kit.walk(0x800000n, ACCESS_READ).ok, false);
  assert.equal(kit.cpu.core.code, 0);
});

test('PAE walk through the pointers loaded with CR3', () => {
  const kit = paging(0x20n, 0x800n);
  kit.quad(0x8000, 0x9001n);
  kit.quad(0x8018, 0xa001n);
  kit.quad(0x9000, 0xb007n);
  kit.quad(0xb028, 0x5007n);
  kit.quad(0xa008, 0x600087n);
  assert.equal(kit.cpu.mmu.loadPdptes(0x8000), true);
  assert.equal(kit.walk(0x5000n, ACCESS_READ).page, 0x5000);
  assert.equal(kit.walk(0xc0212000n, ACCESS_READ).page, 0x612000);
  assert.equal(kit.walk(0x40000000n, ACCESS_READ).ok, false);
  kit.quad(0x8008, 0x3n);
  assert.equal(kit.cpu.mmu.loadPdptes(0x8000), false);
});

test('system code reads and writes across pages and to devices', () => {
  const kit = new Kit().long64();
  const { mmu, core } = kit.cpu;
  kit.quad(0xb030, 0xe007n);
  kit.ram.setUint16(0x5ffe, 0x1122, true);
  kit.ram.setUint16(0xe000, 0x3344, true);
  assert.equal(mmu.read32(0x5ffe, 0, 0), 0x33441122);
  mmu.write64(0x5ffc, 0, 0x01020304, 0x05060708, 0);
  assert.equal(kit.ram.getUint32(0x5ffc, true), 0x01020304);
  assert.equal(kit.ram.getUint32(0xe000, true), 0x05060708);
  kit.quad(0xb038, 0n);
  kit.quad(0xb030, BigInt(DEVICE) | 7n);
  mmu.forget();
  mmu.write(0x6010, 0, 2, 0x12345, 0);
  assert.deepEqual(kit.deviceWrites, [[DEVICE + 0x10, 2, 0x2345]]);
  // A write that runs into a page that is not there writes nothing.
  assert.throws(() => mmu.write(0x6ffe, 0, 4, 0, 0));
  assert.equal(kit.deviceWrites.length, 1);
  assert.deepEqual([core.vector, core.code, core.faultLow], [14, 2, 0x7000]);
});
