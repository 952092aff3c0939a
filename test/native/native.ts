/** Runs instruction cases on the host's CPU, by the C program beside this file. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const CODE_BASE = 0x20000000;
export const CODE_START = CODE_BASE + 256;
export const DATA_BASE = 0x20010000;
export const DATA_SIZE = 0x3000;
export const WINDOW = DATA_BASE + 0x1000;
export const WINDOW_SIZE = 512;

/** A page that can only be read follows the data, and after it there is nothing. */
export const READ_ONLY = DATA_BASE + DATA_SIZE;
/** What lies right below the read-only page. */
export const TAIL = 64;
export const YMM_BYTES = 256;

const RECORD_SIZE = 1552;
const AT_GPR = 32;
const AT_RIP = 160;
const AT_FLAGS = 168;
const AT_SIGNAL = 176;
const AT_MODE = 180;
const AT_FX = 192;
const AT_DATA = 704;
const AT_VECTOR = 184;
const AT_ERROR = 188;
const AT_YMM = 1216;
const AT_TAIL = 1472;
const AT_ADDRESS = 1536;

export const SIGILL = 4;
export const SIGTRAP = 5;
export const SIGBUS = 7;
export const SIGFPE = 8;
export const SIGSEGV = 11;

/** State before and after an instruction. */
export interface Case {
  readonly name: string;
  readonly code: Uint8Array;
  /** 32-bit code instead of 64-bit code. */
  readonly mode32: boolean;
  readonly gpr: bigint[];
  rip: bigint;
  flags: number;
  signal: number;
  /** FXSAVE image: xmm0 at 160. */
  readonly fx: Uint8Array;
  readonly data: Uint8Array;
  /** Bits 128-255 of ymm0 to ymm15. */
  readonly ymm: Uint8Array;
  readonly tail: Uint8Array;
  /** After a fault: exception vector, error code (0 = none), of page faults the address. */
  vector: number;
  error: number;
  address: bigint;
}

/** Why the host cannot serve as the judge, or null. */
export function unavailable(): string | null {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'not an x86-64 Linux host';
  return spawnSync('gcc', ['--version']).status === 0 ? null : 'no C compiler';
}

function encodeCase(one: Case, into: Buffer, at: number): void {
  into.fill(0xcc, at, at + 32);
  into.set(one.code, at);
  one.gpr.forEach((value, i) => into.writeBigUInt64LE(value, at + AT_GPR + 8 * i));
  into.writeBigUInt64LE(one.rip, at + AT_RIP);
  into.writeBigUInt64LE(BigInt(one.flags), at + AT_FLAGS);
  into.writeUInt32LE(one.mode32 ? 1 : 0, at + AT_MODE);
  into.set(one.fx, at + AT_FX);
  into.set(one.data, at + AT_DATA);
  into.set(one.ymm, at + AT_YMM);
  into.set(one.tail, at + AT_TAIL);
}

function decodeCase(one: Case, from: Buffer, at: number): Case {
  return {
    name: one.name,
    code: one.code,
    mode32: one.mode32,
    gpr: Array.from({ length: 16 }, (_, i) => from.readBigUInt64LE(at + AT_GPR + 8 * i)),
    rip: from.readBigUInt64LE(at + AT_RIP),
    flags: from.readUInt32LE(at + AT_FLAGS),
    signal: from.readUInt32LE(at + AT_SIGNAL),
    fx: Uint8Array.from(from.subarray(at + AT_FX, at + AT_FX + 512)),
    data: Uint8Array.from(from.subarray(at + AT_DATA, at + AT_DATA + WINDOW_SIZE)),
    ymm: Uint8Array.from(from.subarray(at + AT_YMM, at + AT_YMM + YMM_BYTES)),
    tail: Uint8Array.from(from.subarray(at + AT_TAIL, at + AT_TAIL + TAIL)),
    vector: from.readUInt32LE(at + AT_VECTOR),
    error: from.readUInt32LE(at + AT_ERROR),
    address: from.readBigUInt64LE(at + AT_ADDRESS),
  };
}

/** Runs all cases natively. @returns the states after them */
export function runNative(cases: readonly Case[]): Case[] {
  const folder = mkdtempSync(join(tmpdir(), 'virelay-native-'));
  try {
    const program = join(folder, 'harness');
    execFileSync('gcc', ['-O1', '-o', program, join(import.meta.dirname, 'harness.c')]);
    const input = Buffer.alloc(cases.length * RECORD_SIZE);
    cases.forEach((one, i) => encodeCase(one, input, i * RECORD_SIZE));
    const output = execFileSync(program, [], { input, maxBuffer: input.length + 1024 });
    return cases.map((one, i) => decodeCase(one, output, i * RECORD_SIZE));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
