/** A vCPU with mock engine, memory and board, for the tests of this folder. */
import type { EngineServices, Translation } from '../../isa.ts';
import type { InterruptController } from '../../../machine/interfaces.ts';
import { CTL_PC } from '../../../ir/vcpu-block.ts';
import {
  CPL,
  CR0,
  CR3,
  CR4,
  CS,
  DS,
  EFER,
  ES,
  FS,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  GS,
  IDTR_BASE,
  IDTR_LIMIT,
  LDTR,
  OP0,
  OP1,
  SEG_NULL,
  SS,
  TR,
} from '../state.ts';
import { X86Cpu } from './cpu.ts';
import type { Platform } from './cpu.ts';
import { parseCpu } from './models.ts';

export const RAM = 1 << 20;
const HOST_RAM = 1 << 20;
const VCPU = 65536;

/** Physical addresses at or above this are a device that records its writes. */
export const DEVICE = 0xf0000000;

export class Kit {
  readonly memory = new WebAssembly.Memory({ initial: 64 });
  readonly cpu: X86Cpu;
  readonly view = new DataView(this.memory.buffer);
  readonly ram = new DataView(this.memory.buffer, HOST_RAM, RAM);
  readonly pageFlags = new Uint8Array(64 * 16);
  readonly log: string[] = [];
  readonly deviceWrites: [address: number, size: number, value: number][] = [];
  readonly portWrites: [port: number, size: number, value: number][] = [];
  portValue = 0;
  vectors: number[] = [];
  shutdowns = 0;
  tsc = 1000n;
  deadline = 0n;

  constructor(model = 'max') {
    const services: EngineServices = {
      reach: () => -1,
      memory: this.memory,
      vcpuBase: VCPU,
      flushAll: () => this.log.push('flushAll'),
      flushAddressSpace: (asid) => this.log.push(`flush ${asid}`),
      flushPage: (low) => this.log.push(`page ${(low >>> 0).toString(16)}`),
      selectContext: (context, asid) => this.log.push(`context ${context} ${asid}`),
      kick: () => {},
      instructions: () => 0,
      exactCount: false,
    };
    this.cpu = new X86Cpu(services, this.platform(model));
  }

  private platform(model: string): Platform {
    const intc: InterruptController = {
      acknowledge: () => this.vectors.shift() ?? -1,
      getTpr: () => 3,
      setTpr: () => {},
      getApicBase: () => [0xfee00900, 0],
      setApicBase: () => true,
      readX2apic: () => null,
      writeX2apic: () => false,
      getTscDeadline: () => this.deadline,
      setTscDeadline: (value) => void (this.deadline = value),
    };
    const host = (address: number): number => (address < RAM ? HOST_RAM + Math.floor(address / 4096) * 4096 : -1);
    return {
      mem: {
        hostPage: host,
        isWritable: (address) => address < RAM,
        read: (address, size) => this.readPhysical(address, size),
        write: (address, size, value) => this.writePhysical(address, size, value),
        pageFlags: this.pageFlags,
      },
      io: {
        in: () => this.portValue++,
        out: (port, size, value) => void this.portWrites.push([port, size, value]),
      },
      intc,
      tsc: {
        frequency: 1e9,
        read: () => this.tsc,
        readWords: (out, at) => {
          out[at] = Number(BigInt.asIntN(32, this.tsc));
          out[at + 1] = Number(BigInt.asIntN(32, this.tsc >> 32n));
        },
        write: (value) => void (this.tsc = value),
        toNanoseconds: Number,
      },
      model: parseCpu(model).model,
      random32: () => 0x12345678,
      bootTime: 1_000_000_000.5,
      onShutdown: () => void this.shutdowns++,
    };
  }

  private readPhysical(address: number, size: number): number {
    if (address >= RAM) return 0xabcdef01 >>> (32 - 8 * size);
    return size === 4 ? this.ram.getUint32(address, true) : this.ram.getUint8(address);
  }

  private writePhysical(address: number, size: number, value: number): void {
    if (address >= RAM) this.deviceWrites.push([address, size, value]);
    else if (size === 4) this.ram.setUint32(address, value, true);
    else if (size === 2) this.ram.setUint16(address, value, true);
    else this.ram.setUint8(address, value);
  }

  // --- State. ---

  reg(n: number): bigint {
    return this.view.getBigUint64(VCPU + GPR + 8 * n, true);
  }
  setReg(n: number, value: bigint): void {
    this.view.setBigUint64(VCPU + GPR + 8 * n, BigInt.asUintN(64, value), true);
  }
  big(offset: number): bigint {
    return this.view.getBigUint64(VCPU + offset, true);
  }
  setBig(offset: number, value: bigint): void {
    this.view.setBigUint64(VCPU + offset, BigInt.asUintN(64, value), true);
  }
  get rip(): bigint {
    return this.big(CTL_PC);
  }
  set rip(value: bigint) {
    this.setBig(CTL_PC, value);
  }
  selector(segment: number): number {
    return this.cpu.core.segSelector(segment);
  }
  get cpl(): number {
    return this.cpu.core.cpl;
  }

  // --- Set-up. ---

  quad(physical: number, value: bigint): void {
    this.ram.setBigUint64(physical, BigInt.asUintN(64, value), true);
  }
  getQuad(physical: number): bigint {
    return this.ram.getBigUint64(physical, true);
  }

  /** A descriptor in the GDT at 0x1000. */
  descriptor(selector: number, base: number, limit: number, attributes: number): void {
    const at = 0x1000 + (selector & ~7);
    this.ram.setUint32(at, (limit & 0xffff) | (base << 16), true);
    const high = ((base >>> 16) & 0xff) | (attributes << 8) | (limit & 0xf0000) | (base & 0xff000000);
    this.ram.setUint32(at + 4, high, true);
  }

  /** An interrupt (0xe) or trap (0xf) gate in the IDT at 0x2000. */
  gate(vector: number, selector: number, offset: number, options: { type?: number; dpl?: number; ist?: number } = {}): void {
    const { type = 0xe, dpl = 0, ist = 0 } = options;
    const at = 0x2000 + vector * (this.long ? 16 : 8);
    this.ram.setUint32(at, (offset & 0xffff) | (selector << 16), true);
    this.ram.setUint32(at + 4, (offset & 0xffff0000) | 0x8000 | (dpl << 13) | (type << 8) | ist, true);
    if (this.long) this.quad(at + 8, 0n);
  }

  private get long(): boolean {
    return this.cpu.core.longMode;
  }

  /** Identity-maps the first 2 MiB times `count`, tables from 0x8000; entries with `bits`. */
  identity(bits = 7n): void {
    this.quad(0x8000, 0x9000n | 7n);
    this.quad(0x9000, 0xa000n | 7n);
    this.quad(0xa000, 0xb000n | 7n);
    for (let i = 0; i < 512; i++) this.quad(0xb000 + 8 * i, BigInt(i * 4096) | bits);
  }

  private tables(): void {
    this.setBig(GDTR_BASE, 0x1000n);
    this.view.setUint32(VCPU + GDTR_LIMIT, 0xff, true);
    this.setBig(IDTR_BASE, 0x2000n);
    this.view.setUint32(VCPU + IDTR_LIMIT, 0xfff, true);
  }

  private setTask(base: number): void {
    this.cpu.core.setSegment(TR, 0x40, base, 0, 0x67, 0x8b);
    this.cpu.core.setSegment(LDTR, 0, 0, 0, 0, SEG_NULL);
  }

  /** 64-bit mode with identity mapping; selectors 8/10h ring 0, 2Bh data and 33h code ring 3; TSS at 0x3000. */
  long64(cpl = 0): this {
    this.identity();
    this.setBig(CR0, 0x80010033n);
    this.setBig(CR3, 0x8000n);
    this.setBig(CR4, 0x6b0n);
    this.setBig(EFER, 0xd01n);
    this.tables();
    this.descriptor(0x08, 0, 0xfffff, 0xa09b);
    this.descriptor(0x10, 0, 0xfffff, 0xc093);
    this.descriptor(0x20, 0, 0xfffff, 0xc0fb);
    this.descriptor(0x28, 0, 0xfffff, 0xc0f3);
    this.descriptor(0x30, 0, 0xfffff, 0xa0fb);
    this.setTask(0x3000);
    this.quad(0x3004, 0x7000n);
    this.quad(0x3024, 0x6800n);
    const { core } = this.cpu;
    if (cpl === 0) this.flat(0x08, 0xa09b, 0x10, 0xc093);
    else this.flat(0x33, 0xa0fb, 0x2b, 0xc0f3);
    core.set(CPL, cpl);
    return this.ready();
  }

  /** Flat 32-bit protected mode without paging; the same selectors (1Bh code and 23h data for ring 3). */
  prot32(cpl = 0): this {
    this.setBig(CR0, 0x33n);
    this.tables();
    this.descriptor(0x08, 0, 0xfffff, 0xc09b);
    this.descriptor(0x10, 0, 0xfffff, 0xc093);
    this.descriptor(0x18, 0, 0xfffff, 0xc0fb);
    this.descriptor(0x20, 0, 0xfffff, 0xc0f3);
    this.setTask(0x3000);
    this.ram.setUint32(0x3004, 0x7000, true);
    this.ram.setUint32(0x3008, 0x10, true);
    if (cpl === 0) this.flat(0x08, 0xc09b, 0x10, 0xc093);
    else this.flat(0x1b, 0xc0fb, 0x23, 0xc0f3);
    this.cpu.core.set(CPL, cpl);
    return this.ready();
  }

  private flat(code: number, codeAttributes: number, data: number, dataAttributes: number): void {
    const { core } = this.cpu;
    core.setSegment(CS, code, 0, 0, -1, codeAttributes);
    for (const segment of [ES, SS, DS, FS, GS]) core.setSegment(segment, data, 0, 0, -1, dataAttributes);
  }

  ready(): this {
    this.cpu.mmu.configure();
    this.cpu.core.changed = true;
    this.cpu.blockFlags();
    this.log.length = 0;
    return this;
  }

  leave(reason: number, argument: number, op0 = 0n, op1 = 0n): void {
    this.setBig(OP0, op0);
    this.setBig(OP1, op1);
    this.cpu.leave(reason, argument);
  }

  walk(address: bigint, access: number): Translation & { ok: boolean } {
    const out = { page: 0, permissions: 0, global: false, bits: 12, ok: false };
    const low = Number(BigInt.asIntN(32, address));
    out.ok = this.cpu.walk(low, Number(BigInt.asIntN(32, address >> 32n)), access, out);
    return out;
  }
}
