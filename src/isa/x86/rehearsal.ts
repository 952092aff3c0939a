/** See Isa.rehearsal: x87 code of a program, which few guests run, and then all of the time. */
import { BF_CODE64, BF_CPL_SHIFT, BF_LONG, BF_PROTECTED } from './state.ts';

// biome-ignore format: an instruction a line
const CODE = [
  0xd9, 0xc1, // loop: fld st(1)
  0xd8, 0xca, //       fmul st(0), st(2)
  0xd9, 0xc2, //       fld st(2)
  0xd8, 0xc1, //       fadd st(0), st(1)
  0xdb, 0x28, //       fld tbyte [rax]
  0xd8, 0xe9, //       fsubr st(0), st(1)
  0xde, 0xe9, //       fsubp st(1), st(0)
  0xdb, 0x7c, 0x24, 0xf0, // fstp tbyte [rsp - 16]
  0xd9, 0x03, //       fld dword [rbx]
  0xdd, 0x03, //       fld qword [rbx]
  0xdf, 0xf1, //       fcomip st(0), st(1)
  0xdb, 0x44, 0x24, 0xf8, // fild dword [rsp - 8]
  0xd9, 0xfa, //       fsqrt
  0xde, 0xf9, //       fdivp st(1), st(0)
  0xd9, 0xe0, //       fchs
  0xd9, 0xca, //       fxch st(2)
  0xdd, 0xda, //       fstp st(2)
  0x83, 0xc1, 0x01, // add ecx, 1
  0x75, 0xd5, //       jnz loop
  0xc3, //             ret
];

export const X87_REHEARSAL = {
  code: Uint8Array.from(CODE),
  flags: BF_CODE64 | BF_LONG | BF_PROTECTED | (3 << BF_CPL_SHIFT),
};
