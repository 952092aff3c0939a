/** What SSE instructions become: faults by mode, and the shape of scalar code. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Builder, CTX_UNKNOWN } from '../../ir/builder.ts';
import { printBlock } from '../../ir/printer.ts';
import { verify } from '../../ir/verifier.ts';
import { X86_HELPERS } from './helpers.ts';
import { x86Isa } from './isa.ts';
import { LEAVE_LDMXCSR, LEAVE_STMXCSR } from './leave.ts';
import {
  BF_AVX,
  BF_CODE32,
  BF_CODE64,
  BF_FPU_OFF,
  BF_HOT,
  BF_LONG,
  BF_MXCSR_EXACT,
  BF_PROTECTED,
  BF_SSE_OFF,
  BF_TS,
  X86_GLOBALS,
} from './state.ts';

const ALL_OF_X86 = x86Isa(() => true);

const COLD = BF_CODE64 | BF_CODE32 | BF_LONG | BF_PROTECTED | (3 << 6);
const LONG = COLD | BF_HOT;
const NAMES = { globals: X86_GLOBALS, helpers: X86_HELPERS };

function print(hex: string, flags: number): string {
  const bytes = [...Buffer.from(`${hex.replaceAll(' ', '')}f4`, 'hex')];
  const b = new Builder(X86_GLOBALS);
  b.reset(CTX_UNKNOWN);
  const code = {
    offset: 0,
    pageEnd: 4096,
    u8: () => bytes[code.offset++] ?? 0xf4,
    peek: (i: number) => bytes[code.offset + i] ?? 0,
  };
  ALL_OF_X86.translate(b, code, flags, 64);
  assert.deepEqual(verify(b, NAMES), []);
  return printBlock(b, NAMES);
}

/** Reason and vector of an exception that ends the block. */
const raises = (vector: number): RegExp => new RegExp(`leave 16, ${(vector << 8) | 3}, 0`);

const ADDPS = '0f58c1';
const PADDB_MMX = '0ffcc1';

test('SSE is undefined without CR4.OSFXSR or with CR0.EM, and not available with CR0.TS', () => {
  assert.match(print(ADDPS, LONG | BF_SSE_OFF), raises(6));
  assert.match(print(ADDPS, LONG | BF_SSE_OFF | BF_TS), raises(6));
  assert.match(print(ADDPS, LONG | BF_TS | BF_FPU_OFF), raises(7));
  assert.match(print(ADDPS, LONG), /addf32x4/);
});

test('MMX does not need CR4.OSFXSR', () => {
  assert.match(print(PADDB_MMX, LONG | BF_SSE_OFF), /add8x16/);
  assert.match(print(PADDB_MMX, LONG | BF_FPU_OFF), raises(6));
  assert.match(print(PADDB_MMX, LONG | BF_FPU_OFF | BF_TS), raises(7));
});

test('a branch after UCOMISD compares the doubles', () => {
  const above = print('660f2ec1 7700', LONG);
  assert.match(above, /gtf64/);
  assert.doesNotMatch(above, /calli|f64bits/);
  assert.match(print('660f2ec1 7300', LONG), /gef64/);
});

test('scalar code reads back what it wrote without going through the vector', () => {
  // movsd (%rax), %xmm0; mulsd %xmm0, %xmm0; movsd %xmm0, (%rax)
  const text = print('f20f1000 f20f59c0 f20f1100', LONG);
  assert.doesNotMatch(text, /= lanef64|\blanef64/);
  assert.match(text, /stf64/);
});

test('aligned forms check the address, others do not', () => {
  assert.match(print('660f6f00', LONG), /leaveif/);
  assert.doesNotMatch(print('f30f6f00', LONG), /leaveif/);
});

test('conversions ask MXCSR for the rounding only when it is not the default', () => {
  assert.doesNotMatch(print('f20f2dc0', LONG), /floorf64/);
  assert.match(print('f20f2dc0', LONG | BF_MXCSR_EXACT), /floorf64[\s\S]*ceilf64[\s\S]*truncf64/);
});

test('cold code of programs sets exception flags, hot code only where they are looked at, kernels not at all', () => {
  assert.match(print(ADDPS, COLD), /sse.settle/);
  assert.doesNotMatch(print(ADDPS, LONG), /sse/);
  assert.match(print(ADDPS, LONG | BF_MXCSR_EXACT), /sse.settle/);
  assert.doesNotMatch(print(ADDPS, COLD & ~(3 << 6)), /sse/);
});

test('STMXCSR tells that flags are looked at, unless the code after it looks at the rounding', () => {
  const tells = new RegExp(`leave ${LEAVE_STMXCSR},`);
  const STORE = '0fae5c2404';
  // mov 4(%rsp), %eax; and $0x3d, %eax
  assert.match(print(`${STORE} 8b442404 83e03d`, LONG), tells);
  assert.doesNotMatch(print(`${STORE} 8b442404 83e03d`, LONG | BF_MXCSR_EXACT), tells);
  // mov 4(%rsp), %eax; and $0x9f, %ah
  assert.doesNotMatch(print(`${STORE} 8b442404 80e49f`, LONG), tells);
  // and $0x6000, %ecx; and $0xffc0, %eax
  assert.doesNotMatch(print(`${STORE} 81e100600000`, LONG), tells);
  assert.doesNotMatch(print(`${STORE} 25c0ff0000`, LONG), tells);
});

test('VLDMXCSR and VSTMXCSR are there with AVX', () => {
  assert.match(print('c5f8ae5c2404', COLD | BF_AVX), /lds32 v\d+, 1200/);
  assert.match(print('c5f8ae542404', COLD | BF_AVX), new RegExp(`leave ${LEAVE_LDMXCSR},`));
  // VEX.L must be zero.
  assert.match(print('c5fcae5c2404', COLD | BF_AVX), /leave 16, 15\d\d, 0/);
});
