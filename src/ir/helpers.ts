/**
 * Helpers: functions that IR calls for what is too long or too rare to inline.
 * Each declares what it may touch, so that the compiler knows what to keep in
 * locals across the call.
 */
import type { Builder, Value } from './builder.ts';

/** IR text of a helper: one arm for each value of its first parameter (an i32). */
export interface IrSwitch {
  readonly arms: number;
  /** Emits the arm's result; `params` are the parameters after the selector. */
  arm(b: Builder, index: number, params: readonly Value[]): Value;
}

export interface Helper {
  readonly name: string;
  /** Number within its ISA's list. */
  readonly index: number;
  /** Operand types, at most four. */
  readonly params: readonly number[];
  /** Result type, or NONE. */
  readonly result: number;
  /** Reads or writes globals: they are spilled before the call and read again after it. */
  readonly touchesGlobals: boolean;
  /** May raise a guest fault: the caller looks at the fault flag after the call. */
  readonly mayFault: boolean;
  /**
   * What it does: IR, a generated wasm function (`wasm` names an export of the
   * ISA's runtime module), a host function (i32 and f64 operands and result only), or a function
   * of the vCPU's (Vcpu.helpers; no operands, the result an i32).
   */
  readonly body:
    | { kind: 'ir'; ir: IrSwitch }
    | { kind: 'wasm'; export: string }
    | { kind: 'host'; call: (...args: number[]) => number | undefined }
    | { kind: 'vcpu'; name: string };
}
