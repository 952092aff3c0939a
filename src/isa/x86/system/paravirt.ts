/**
 * The clock that KVM offers its guests (Linux, Documentation/virt/kvm/x86/msr.rst):
 * guests read the time from a page instead of calibrating counters. It is here as well
 * as under KVM, so that a guest finds it whatever runs it.
 */
import type { Core } from './core.ts';

export const MSR_KVM_WALL_CLOCK_NEW = 0x4b564d00;
export const MSR_KVM_SYSTEM_TIME_NEW = 0x4b564d01;

const ENABLED = 1;
/** The TSC of all CPUs agrees. */
const FLAG_STABLE = 1;

/**
 * Time page of a vCPU, 32 bytes:
 *
 *    0 version u32 (odd while changing) | 4 - | 8 TSC at the reading u64 | 16 nanoseconds then u64
 *   24 multiplier u32 | 28 shift i8 | 29 flags u8
 *
 * time = nanoseconds + ((TSC - reading) << shift) * multiplier >> 32
 */
export class ParavirtualClock {
  private readonly core: Core;
  /** Of the time page, or of the wall clock, that was written last. */
  version = 0;
  /** Value of the MSR: guest-physical address of the page, bit 0 = enabled. */
  systemTime: [low: number, high: number] = [0, 0];

  constructor(core: Core) {
    this.core = core;
  }

  reset(): void {
    this.systemTime = [0, 0];
  }

  /** Takes over a saved state, to which the page in memory belongs as it stands. */
  restore(low: number, high: number): void {
    this.systemTime = [low, high];
  }

  setSystemTime(low: number, high: number): boolean {
    this.systemTime = [low, high];
    this.publish();
    return true;
  }

  /** Writes the page anew, after the TSC was set. */
  publish(): void {
    const [low, high] = this.systemTime;
    if (!(low & ENABLED)) return;
    const { mem, tsc } = this.core.platform;
    const at = (high >>> 0) * 2 ** 32 + ((low & ~ENABLED) >>> 0);
    const ticks = tsc.read();
    this.version += 2;
    mem.write(at, 4, this.version - 1);
    this.write64(at + 8, ticks);
    this.write64(at + 16, BigInt(Math.floor(tsc.toNanoseconds(ticks))));
    // ticks * 2^shift * multiplier / 2^32 nanoseconds, the multiplier in its upper half.
    let shift = 0;
    let perTick = 1e9 / tsc.frequency;
    while (perTick >= 1) {
      perTick /= 2;
      shift++;
    }
    while (perTick < 0.5) {
      perTick *= 2;
      shift--;
    }
    mem.write(at + 24, 4, Math.floor(perTick * 2 ** 32) >>> 0);
    mem.write(at + 28, 1, shift & 0xff);
    mem.write(at + 29, 1, FLAG_STABLE);
    mem.write(at, 4, this.version);
  }

  /** Wall-clock time at system time 0: version u32, seconds u32, nanoseconds u32. */
  writeWallClock(low: number, high: number): boolean {
    const { mem, bootTime } = this.core.platform;
    const at = (high >>> 0) * 2 ** 32 + (low >>> 0);
    const seconds = Math.floor(bootTime);
    this.version += 2;
    mem.write(at, 4, this.version - 1);
    mem.write(at + 4, 4, seconds >>> 0);
    mem.write(at + 8, 4, Math.floor((bootTime - seconds) * 1e9));
    mem.write(at, 4, this.version);
    return true;
  }

  private write64(at: number, value: bigint): void {
    const { mem } = this.core.platform;
    mem.write(at, 4, Number(value & 0xffffffffn));
    mem.write(at + 4, 4, Number((value >> 32n) & 0xffffffffn));
  }
}
