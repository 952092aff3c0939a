/** Port I/O and its permission check (SDM vol. 1, 19.5). */
import { TR } from '../state.ts';
import { CR0_PE } from './core.ts';
import type { Core, IoPorts } from './core.ts';
import type { Debug } from './debug.ts';
import { AS_SYSTEM } from './mmu.ts';
import type { Mmu } from './mmu.ts';

const RAX = 0;
const MAP_BASE = 0x66;

export class Ports {
  private readonly core: Core;
  private readonly mmu: Mmu;
  private readonly io: IoPorts;
  private readonly debug: Debug;

  constructor(core: Core, mmu: Mmu, debug: Debug) {
    this.core = core;
    this.debug = debug;
    this.mmu = mmu;
    this.io = core.platform.io;
  }

  /** #GP(0) unless the code may use these ports. */
  check(port: number, size: number): void {
    const { core } = this;
    if (!(core.cr0 & CR0_PE)) return;
    if (!core.v86 && core.cpl <= core.iopl) return;
    // Only 32- and 64-bit TSSs have a map.
    if (!(core.segAttr(TR) & 8) || core.segLimit(TR) < MAP_BASE + 1) core.gp();
    const map = this.word(MAP_BASE);
    const at = map + (port >> 3);
    if (at + 1 > core.segLimit(TR)) core.gp();
    const bits = this.word(at) >> (port & 7);
    if (bits & ((1 << size) - 1)) core.gp();
  }

  private word(offset: number): number {
    const { core } = this;
    const sum = (core.segBaseLow(TR) >>> 0) + offset;
    return this.mmu.read16(sum | 0, core.segBaseHigh(TR) + (sum > 0xffffffff ? 1 : 0), AS_SYSTEM);
  }

  in(port: number, size: number): number {
    this.debug.port(port, size);
    return this.io.in(port, size);
  }
  out(port: number, size: number, value: number): void {
    this.debug.port(port, size);
    this.io.out(port, size, size === 4 ? value >>> 0 : value & (size === 2 ? 0xffff : 0xff));
  }

  input(port: number, size: number): void {
    this.check(port, size);
    this.core.writeReg(RAX, size, this.in(port, size) | 0, 0);
  }

  output(port: number, size: number): void {
    this.check(port, size);
    this.out(port, size, this.core.regLow(RAX));
  }
}
