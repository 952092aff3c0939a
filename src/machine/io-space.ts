/** The 64 KiB of x86 I/O ports. Where ranges overlap, the one registered first wins. */
import type { VisibleRegisters } from './address-space.ts';
import type { IoHandler, MappedRegion, PortBus, PortOptions, Trace } from './interfaces.ts';

const PORTS = 0x10000;

type PortRegion = {
  base: number;
  count: number;
  handler: IoHandler;
  name: string;
  maxSize: number;
};

export class IoSpace implements PortBus {
  trace: Trace | undefined;
  /** Doorbells have come or gone, or what is said of them has changed. */
  onDoorbells: (() => void) | undefined;
  /** Index into `regions` plus one, per port; 0 where nothing answers. */
  private readonly table = new Uint16Array(PORTS);
  private regions: PortRegion[] = [];

  register(base: number, count: number, handler: IoHandler, name: string, options: PortOptions = {}): MappedRegion {
    const region: PortRegion = { base, count, handler, name, maxSize: options.maxSize ?? 4 };
    this.regions.push(region);
    this.claim(this.regions.length - 1);
    // Others may hide it, and it may hide others.
    this.onDoorbells?.();
    return {
      remove: () => {
        this.regions = this.regions.filter((other) => other !== region);
        this.table.fill(0);
        this.regions.forEach((_, index) => this.claim(index));
        this.onDoorbells?.();
      },
      doorbellsChanged: () => this.onDoorbells?.(),
    };
  }

  in(port: number, size: number): number {
    const region = this.find(port);
    if (region === null) {
      this.trace?.('unassigned-io', `in ${size} from ${hex(port)}`);
      return size === 4 ? 0xffffffff : size === 2 ? 0xffff : 0xff;
    }
    const piece = pieceSize(region, port, size);
    if (piece === size) {
      const value = region.handler.read(port - region.base, size);
      return size === 4 ? value >>> 0 : value & (size === 2 ? 0xffff : 0xff);
    }
    let value = 0;
    for (let i = 0; i < size; i += piece) {
      value |= this.in((port + i) & 0xffff, piece) << (8 * i);
    }
    return value >>> 0;
  }

  out(port: number, size: number, value: number): void {
    const region = this.find(port);
    if (region === null) {
      this.trace?.('unassigned-io', `out ${size} to ${hex(port)} value ${hex(value >>> 0)}`);
      return;
    }
    const piece = pieceSize(region, port, size);
    if (piece === size) {
      region.handler.write(port - region.base, size, value >>> 0);
      return;
    }
    const mask = piece === 1 ? 0xff : 0xffff;
    for (let i = 0; i < size; i += piece) {
      this.out((port + i) & 0xffff, piece, (value >>> (8 * i)) & mask);
    }
  }

  /** What answers where, for the monitor. */
  describe(): { base: number; count: number; name: string }[] {
    return this.regions.map(({ base, count, name }) => ({ base, count, name }));
  }

  /** Registers of which no port is another's. */
  visibleRegisters(): VisibleRegisters[] {
    return this.regions
      .filter(({ base, count }, index) => this.table.subarray(base, base + count).every((one) => one === index + 1))
      .map(({ base, count, handler }) => ({ base, size: count, handler }));
  }

  private find(port: number): PortRegion | null {
    const index = this.table[port & 0xffff]!;
    return index === 0 ? null : this.regions[index - 1]!;
  }

  private claim(index: number): void {
    const { base, count } = this.regions[index]!;
    for (let port = base; port < Math.min(base + count, PORTS); port++) {
      if (this.table[port] === 0) this.table[port] = index + 1;
    }
  }
}

/** How large a part of an access the region takes in one go. */
function pieceSize(region: PortRegion, port: number, size: number): number {
  if (port - region.base + size > region.count) return 1;
  return Math.min(size, region.maxSize);
}

function hex(value: number): string {
  return '0x' + value.toString(16);
}
