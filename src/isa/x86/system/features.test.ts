/** CPU models decide which instructions there are; programs that load MXCSR get exact exception flags. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Builder, CTX_UNKNOWN } from '../../../ir/builder.ts';
import { printBlock } from '../../../ir/printer.ts';
import { X86_HELPERS } from '../helpers.ts';
import { x86Isa } from '../isa.ts';
import { LEAVE_LDMXCSR, LEAVE_SIMD_ERROR, LEAVE_STMXCSR } from '../leave.ts';
import { BF_AVX, BF_CODE32, BF_CODE64, BF_LONG, BF_MXCSR_EXACT, BF_PROTECTED, BF_TS, CR3, CR4, X86_GLOBALS } from '../state.ts';
import { parseCpu } from './models.ts';
import { Kit } from './test-kit.ts';

const LONG = BF_CODE64 | BF_CODE32 | BF_LONG | BF_PROTECTED | BF_AVX | (3 << 6);
const VECTOR_UD = 6;
const VECTOR_NM = 7;

/** The IR of an instruction, and whether it only raises an exception. */
function translate(model: string, hex: string, flags = LONG): string {
  const bytes = [...Buffer.from(`${hex}f4`, 'hex')];
  const b = new Builder(X86_GLOBALS);
  b.reset(CTX_UNKNOWN);
  const code = { offset: 0, pageEnd: 4096, u8: () => bytes[code.offset++] ?? 0xf4 };
  x86Isa(parseCpu(model).model.has).translate(b, code, flags, 1);
  return printBlock(b, { globals: X86_GLOBALS, helpers: X86_HELPERS });
}

const raises = (text: string, vector: number): boolean =>
  [...text.matchAll(/leave 16, (\d+)/g)].some(([, argument]) => Number(argument) >> 8 === vector);

const VADDPS = 'c5f058c2';
const VPADDB_YMM = 'c5f5fcc2';
const TZCNT = 'f30fbcc1';
const AESENC = '660f38dcc1';

test('instructions of features that the model lacks are undefined', () => {
  assert.ok(!raises(translate('max', VADDPS), VECTOR_UD));
  assert.ok(raises(translate('x86-64-v2', VADDPS), VECTOR_UD));
  assert.ok(!raises(translate('x86-64-v3', VPADDB_YMM), VECTOR_UD));
  assert.ok(raises(translate('x86-64-v3,-avx2', VPADDB_YMM), VECTOR_UD));
  assert.ok(raises(translate('max,aes=off', AESENC), VECTOR_UD));
  assert.ok(raises(translate('max,-xsave', VADDPS), VECTOR_UD), 'AVX goes with XSAVE');
});

test('without BMI1 the opcode of TZCNT is that of BSF', () => {
  assert.match(translate('max', TZCNT), /ctz32/);
  assert.doesNotMatch(translate('max', TZCNT), /select64/);
  assert.match(translate('qemu64', TZCNT), /select64/, 'a source of zero leaves the destination alone');
});

test('AVX needs XCR0, and is not available with CR0.TS', () => {
  assert.ok(raises(translate('max', VADDPS, LONG & ~BF_AVX), VECTOR_UD));
  assert.ok(raises(translate('max', VADDPS, LONG | BF_TS), VECTOR_NM));
});

test('programs that store MXCSR to look at its flags get exact ones', () => {
  const kit = new Kit().long64(3);
  kit.leave(LEAVE_STMXCSR, 3);
  assert.notEqual(kit.cpu.blockFlags() & BF_MXCSR_EXACT, 0);
});

test('programs that load MXCSR get exact flags, others do not', () => {
  const kit = new Kit().long64(3);
  const { core } = kit.cpu;
  const exact = (): boolean => (kit.cpu.blockFlags() & BF_MXCSR_EXACT) !== 0;
  assert.equal(exact(), false);
  kit.leave(LEAVE_LDMXCSR, 3, 0x1f80n);
  assert.equal(exact(), true);
  const space = kit.big(CR3);
  kit.setBig(CR3, space + 0x100000n);
  core.changed = true;
  assert.equal(exact(), false, 'another address space');
  kit.setBig(CR3, space);
  core.changed = true;
  assert.equal(exact(), true);
  const saved = kit.cpu.saveState();
  const other = new Kit().long64(3);
  other.cpu.loadState(saved);
  assert.notEqual(other.cpu.blockFlags() & BF_MXCSR_EXACT, 0, 'known after migration');
});

test('an unmasked SSE exception is #XM, or #UD for a kernel that does not know it', () => {
  const vectors: number[] = [];
  const kit = new Kit().long64(3);
  kit.cpu.interceptEvents((vector) => vectors.push(vector) > 0);
  kit.setBig(CR4, kit.big(CR4) | (1n << 10n));
  kit.leave(LEAVE_SIMD_ERROR, 4);
  kit.setBig(CR4, kit.big(CR4) & ~(1n << 10n));
  kit.leave(LEAVE_SIMD_ERROR, 4);
  assert.deepEqual(vectors, [19, 6]);
});
