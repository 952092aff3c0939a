/** The area that FXSAVE and XSAVE write (SDM vol. 1, sections 10.5.1 and 13.4). */
import type { CpuModel } from './models.ts';

/** Bytes of the x87 and SSE part, and with the XSAVE header. */
export const XSAVE_LEGACY = 512;
export const XSAVE_AREA = XSAVE_LEGACY + 64;
/** Where the upper halves of the ymm registers lie, in both forms of the area, and their bytes. */
export const AVX_OFFSET = XSAVE_AREA;
export const AVX_BYTES = 256;

/** Components: bits of XCR0. */
export const X87 = 1;
export const SSE = 2;
export const AVX = 4;

/** Components that a CPU model has. */
export const componentsOf = (model: CpuModel): number => X87 | SSE | (model.has('avx') ? AVX : 0);

/** Bytes of an area with these components. */
export const areaBytes = (components: number): number => XSAVE_AREA + (components & AVX ? AVX_BYTES : 0);

// The legacy area's layout.
export const AT_MXCSR = 24;
export const AT_REGISTERS = 32;
export const AT_XMM = 160;
