/** Serves a guest's accesses to the board's registers. */
import type { PowerEvent } from '../machine/interfaces.ts';
import { NUMBERS } from './constants.ts';
import type { Vcpu } from './vcpu.ts';
import type { RunPage } from './run-page.ts';

export interface Registers {
  read(address: number, size: number): number;
  write(address: number, size: number, value: number): void;
}

export interface Ports {
  in(port: number, size: number): number;
  out(port: number, size: number, value: number): void;
}

export function servePort({ run }: Vcpu, io: Ports): void {
  const { ioPort: port, ioSize: size, ioCount: count } = run;
  if (run.ioIsOut) for (let i = 0; i < count; i++) io.out(port, size, run.ioValue(i));
  else for (let i = 0; i < count; i++) run.setIoValue(i, io.in(port, size));
}

export function serveMemory({ run }: Vcpu, mem: Registers): void {
  if (run.mmioIsWrite) writeMemory(run, mem);
  else readMemory(run, mem);
}

/** Of Hyper-V: there is no such call (Hypervisor Top Level Functional Specification, appendix B). */
const HV_STATUS_INVALID_HYPERCALL_CODE = 2n;

/** What of Hyper-V's interface KVM leaves to its user: to know where a guest wants its messages, of which there are none. */
export function serveHyperv({ run }: Vcpu): void {
  if (run.hypervType === NUMBERS.KVM_EXIT_HYPERV_HCALL) run.hypercallResult = HV_STATUS_INVALID_HYPERCALL_CODE;
}

/** @returns what a guest wants by Hyper-V's interface; null for what is not known */
export function systemEvent({ run }: Vcpu): PowerEvent | null {
  switch (run.systemEvent) {
    case NUMBERS.KVM_SYSTEM_EVENT_RESET:
      return 'reset';
    case NUMBERS.KVM_SYSTEM_EVENT_SHUTDOWN:
      return 'poweroff';
    case NUMBERS.KVM_SYSTEM_EVENT_CRASH:
      return 'panic';
    default:
      return null;
  }
}

/** Largest access of registers, at most 4 bytes, that a piece of so many bytes begins with. */
const pieceOf = (bytes: number): number => (bytes >= 4 ? 4 : bytes >= 2 ? 2 : 1);

function writeMemory(run: RunPage, mem: Registers): void {
  writePieces(mem, run.mmioAddress, run.mmioLength, run.mmioLow, run.mmioHigh);
}

/** @param length bytes, at most 8 @param low bits 31-0 of what is written, of which bits beyond the length do not count */
export function writePieces(mem: Registers, address: number, length: number, low: number, high: number): void {
  for (let at = 0; at < length; ) {
    const size = pieceOf(length - at);
    const value = (at < 4 ? low : high) >>> (8 * (at & 3));
    mem.write(address + at, size, size === 4 ? value : value & (2 ** (8 * size) - 1));
    at += size;
  }
}

function readMemory(run: RunPage, mem: Registers): void {
  const { mmioAddress: address, mmioLength: length } = run;
  let low = 0;
  let high = 0;
  for (let at = 0; at < length; ) {
    const size = pieceOf(length - at);
    const value = mem.read(address + at, size);
    if (at < 4) low |= value << (8 * at);
    else high |= value << (8 * (at - 4));
    at += size;
  }
  run.setMmioValue(low >>> 0, high >>> 0);
}
