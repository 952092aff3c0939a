/** Puts a machine together from its configuration, in the current thread. */
import { x86Isa } from '../isa/x86/isa.ts';
import { X86Cpu } from '../isa/x86/system/cpu.ts';
import { parseCpu } from '../isa/x86/system/models.ts';
import { Engine } from '../jit/engine.ts';
import type { EngineOptions } from '../jit/engine.ts';
import { BLOCK_CATEGORIES, ENTRIES } from '../jit/trace-block.ts';
import { GUEST_MEMORY } from '../jit/layout.ts';
import { newMemory } from '../wasm/wasm.ts';
import { VGA_MEMORY } from '../devices/vga/vga.ts';
import { rtcBaseSeconds } from '../devices/timer/mc146818.ts';
import type { RtcOptions } from '../devices/timer/mc146818.ts';
import type { Accelerator } from './accelerator.ts';
import { FIRST_SHIFT } from './adaptive-shift.ts';
import { HostClock, InstructionClock, NanosecondTsc } from './clock.ts';
import { ConfigError, type FolderConfig, wantedDevices } from './config.ts';
import type { DeviceLinks } from './device-builder.ts';
import type { MachineConfig, MachineIo } from './config.ts';
import type { CpuPort, DeviceState, PowerEvent, VirtualClock } from './interfaces.ts';
import type { InitialCpuState } from './loader/cpu-state.ts';
import { LocalMachine } from './machine.ts';
import type { MachineEvents } from './machine.ts';
import { PcMachine } from './pc.ts';
import { type FlashArea, flashDrives } from './pc-flash.ts';
import type { Drive } from './pc-storage.ts';
import { settle } from '../devices/block.ts';
import { network as hostNetwork, openFileTree } from '#host';
import type { FileTree } from '../host/file-tree.ts';
import { MappedTree } from '../host/mapped-tree.ts';
import { Networks } from '../network/open.ts';
import { hostRandom, repeatableRandom } from './random.ts';

const WASM_PAGE = 65536;
/** What a WebAssembly.Memory with 64-bit addresses may have at most. */
const MAX_PAGES = 262144;

function allocate(guestBytes: number): WebAssembly.Memory {
  const pages = Math.ceil((GUEST_MEMORY + guestBytes) / WASM_PAGE);
  if (pages > MAX_PAGES) {
    const most = Math.floor((MAX_PAGES * WASM_PAGE - GUEST_MEMORY) / 2 ** 20);
    throw new ConfigError('memory', `${guestBytes / 2 ** 20} MiB is more than the ${most} MiB that a machine can have`);
  }
  try {
    return newMemory(pages);
  } catch (error) {
    throw new ConfigError('memory', `the host has no ${guestBytes / 2 ** 20} MiB to give (${(error as Error).message})`);
  }
}

/** The translator as an accelerator: engine and x86 vCPU. */
class TranslatingAccelerator implements Accelerator {
  readonly name: string;
  readonly engine: Engine;
  readonly cpu: X86Cpu;

  constructor(name: string, engine: Engine, cpu: X86Cpu) {
    this.name = name;
    this.engine = engine;
    this.cpu = cpu;
  }

  get cpuPort(): CpuPort {
    return this.cpu;
  }

  run(count: number, stop: () => boolean): void {
    this.engine.run(count, stop);
  }

  kick(): void {
    this.engine.kick();
  }

  instructions(): number {
    return this.engine.instructions();
  }

  get idle(): boolean {
    this.cpu.pollInterrupts();
    return this.cpu.halted;
  }

  reset(state: InitialCpuState): void {
    this.cpu.reset();
    if (state.mode !== 'real16') this.cpu.setInitialState(state);
    this.engine.flushAll();
  }

  saveState(): DeviceState {
    return this.cpu.saveState();
  }

  loadState(state: DeviceState): void {
    this.cpu.loadState(state);
  }

  statistics(): Record<string, number> {
    return { ...this.engine.statistics, instructions: this.engine.instructions() };
  }
}

function rtcOptions(config: MachineConfig, clock: HostClock | InstructionClock): RtcOptions {
  const { base } = config.rtc;
  const baseSeconds = typeof base === 'number' ? base : rtcBaseSeconds(base);
  if (config.rtc.clock === 'vm' || clock instanceof InstructionClock) return { baseSeconds };
  return { baseSeconds, hostNow: () => performance.now() * 1e6 };
}

type Place = { offset: number; size: number };

/** Where RAM, firmware, video memory and its ROM lie in the shared memory, one after the other. */
function layOut(config: MachineConfig, flashDrives: readonly Drive[]) {
  let size = config.memory;
  const place = (bytes: number): Place => {
    const offset = GUEST_MEMORY + size;
    size += bytes;
    return { offset, size: bytes };
  };
  const bios = config.bios === null ? null : place(config.bios.data.length);
  const flash = flashDrives.map((drive) => ({ ...place(drive.backend!.size), drive }));
  const vga = config.vga === 'std' ? place(VGA_MEMORY) : null;
  const { vgaBios } = config;
  const rom = vga === null || vgaBios === null ? null : place(romSize(vgaBios.data.length));
  return { size, bios, flash, vga: vga === null ? null : { offset: vga.offset, rom } };
}

/** Option ROMs take a power of two, whole pages. */
const romSize = (bytes: number): number => Math.max(4096, 2 ** Math.ceil(Math.log2(bytes)));

function findFlash(drives: readonly Drive[]): Drive[] {
  try {
    return flashDrives(drives);
  } catch (error) {
    throw new ConfigError('drives', (error as Error).message);
  }
}

/** @throws ConfigError naming the drive */
function readFlash({ offset, size, drive }: FlashArea, bytes: Uint8Array): void {
  const bad = (why: string): ConfigError => new ConfigError('drives', `flash memory ${drive.config.index}: ${why}`);
  let over = false;
  settle(
    () => drive.backend!.read(0, bytes.subarray(offset, offset + size)),
    (error) => {
      over = true;
      if (error !== null) throw bad(error.message);
    },
  );
  if (!over) throw bad('its image cannot be read at once');
}

/** @throws ConfigError naming the network */
function openNetworks(config: MachineConfig, clock: VirtualClock, events: MachineEvents): Networks {
  try {
    const warn = (line: string): void => events.warn?.(line);
    return new Networks(config.network, { host: hostNetwork, clock, random: hostRandom(), warn });
  } catch (error) {
    throw new ConfigError('network', (error as Error).message);
  }
}

/** @throws ConfigError naming the folder */
function openFolder({ path, securityModel, readOnly }: FolderConfig, index: number): FileTree {
  try {
    const tree = openFileTree(path, readOnly);
    return securityModel === 'mapped-file' ? new MappedTree(tree) : tree;
  } catch (error) {
    throw new ConfigError('folders', `folder ${index}: ${path}: ${(error as Error).message}`);
  }
}

function linksOf(config: MachineConfig, drives: Drive[], networks: Networks, ports: MachineIo): DeviceLinks {
  const folders = new Map(config.folders.map((one, i) => [one.id, openFolder(one, i)]));
  return {
    drives,
    network: (name) => (networks.backend(name) === null ? null : networks.port(name)),
    character: (name) => ports.chardevs.get(name) ?? null,
    hostNetwork,
    folder: (name) => folders.get(name) ?? null,
  };
}

/** When code is compiled, for tests that want it soon. */
export type Tuning = Partial<Pick<EngineOptions, 'hotThreshold' | 'compileBeside'>>;

/**
 * @throws ConfigError naming the setting that cannot be met; Error for an image that cannot be loaded
 */
export function createMachine(config: MachineConfig, events: MachineEvents, ports: MachineIo, tuning: Tuning = {}): LocalMachine {
  const { model, warnings } = parseCpu(config.cpu);
  for (const warning of warnings) events.warn?.(warning);
  const drives = config.drives.map((drive, i) => ({ config: drive, backend: ports.drives[i] ?? null }));
  const places = layOut(config, findFlash(drives));
  const memory = allocate(places.size);
  const bytes = new Uint8Array(memory.buffer);
  if (config.bios) bytes.set(config.bios.data, places.bios!.offset);
  for (const area of places.flash) readFlash(area, bytes);
  if (places.vga?.rom) bytes.set(config.vgaBios!.data, places.vga.rom.offset);
  const tracing = new Set(config.trace);
  const trace = (category: string, line: string): void => {
    if (tracing.has(category)) events.trace?.(category, line);
  };

  // The board needs the vCPU's pins and the vCPU the board: the parts meet through these.
  let machine: LocalMachine | null = null;
  let engine: Engine | null = null;
  let cpu: X86Cpu | null = null;
  const clock = config.icount
    ? new InstructionClock(() => engine?.instructions() ?? 0, config.icount.shift === 'auto' ? FIRST_SHIFT : config.icount.shift)
    : new HostClock(undefined, () => engine?.instructions() ?? 0);
  const tsc = new NanosecondTsc(clock);
  const networks = openNetworks(config, clock, events);
  const early: { event: PowerEvent; code: number }[] = [];
  const onPower = (event: PowerEvent, code = 0): void => {
    if (machine) machine.power(event, code);
    else early.push({ event, code });
  };
  const board = new PcMachine({
    machine: config.machine,
    memory: { bytes, ramOffset: GUEST_MEMORY, ramSize: config.memory },
    cpuPort: cpuPins(
      () => cpu,
      () => machine,
    ),
    clock,
    tsc,
    serials: ports.serials,
    ...(config.debugcon && ports.debugcon ? { debugcon: { backend: ports.debugcon, iobase: config.debugcon.iobase } } : {}),
    ...(config.debugExit ? { debugExit: config.debugExit } : {}),
    rtc: rtcOptions(config, clock),
    hpet: config.hpet,
    ...(config.uuid ? { uuid: config.uuid } : {}),
    ...(config.kernel ? { kernel: config.kernel.data, kernelName: config.kernel.name, append: config.append } : {}),
    ...(config.initrd ? { initrd: config.initrd.data } : {}),
    boot: config.boot,
    textOnSerial: config.textOnSerial,
    drives,
    devices: {
      wanted: wantedDevices(config),
      links: linksOf(config, drives, networks, ports),
      random: config.icount ? repeatableRandom() : hostRandom(),
    },
    acpiHotplugBehindBridges: config.acpiHotplugBehindBridges,
    ...(places.bios ? { bios: places.bios } : {}),
    flash: places.flash,
    ...(places.vga ? { vga: places.vga } : {}),
    onPower,
    trace,
  });
  engine = new Engine({
    isa: x86Isa(model.has),
    memory,
    physical: board.mem,
    compile: config.accel === 'jit',
    exactCount: config.icount !== null,
    // When a region becomes ready must not depend on how busy the host is if runs are to repeat.
    compileBeside: config.icount === null,
    trace,
    ...([...BLOCK_CATEGORIES, ENTRIES].some((category) => tracing.has(category))
      ? { tracesBlocks: (category) => tracing.has(category) }
      : {}),
    ...tuning,
  });
  cpu = new X86Cpu(engine, {
    mem: board.mem,
    io: board.io,
    intc: board.lapic,
    tsc,
    model,
    bootTime: typeof config.rtc.base === 'number' ? config.rtc.base : Date.now() / 1000,
    random32: config.icount ? repeatableRandom() : hostRandom(),
    onShutdown: (reason) => {
      trace('cpu_reset', `the guest shut its CPU down: ${reason}`);
      onPower('reset');
    },
    onSystemManagement: (inside) => board.setManaging(inside),
    trace: tracing.size > 0 ? trace : undefined,
    tracesRegisters: tracing.has('cpu'),
  });
  engine.attach(cpu);
  const vcpu = cpu;
  board.mem.onMapChange = () => vcpu.memoryMapChanged();
  machine = new LocalMachine(
    {
      board,
      accelerator: new TranslatingAccelerator(config.accel, engine, cpu),
      clock,
      networks,
      ...(ports.awaitsDisk ? { awaitsDisk: ports.awaitsDisk } : {}),
    },
    {
      noReboot: config.noReboot,
      noShutdown: config.noShutdown,
      icountSleep: config.icount?.sleep ?? true,
      icountAdapts: config.icount?.shift === 'auto' && config.icount.sleep,
    },
    events,
  );
  for (const { event, code } of early) machine.power(event, code);
  return machine;
}

/** The vCPU's interrupt pins, which also wake a sleeping machine. */
function cpuPins(cpu: () => X86Cpu | null, machine: () => LocalMachine | null): CpuPort {
  const wake = (): void => machine()?.wake();
  return {
    setIntr(pending) {
      cpu()?.setIntr(pending);
      if (pending) wake();
    },
    nmi() {
      cpu()?.nmi();
      wake();
    },
    smi() {
      cpu()?.smi();
      wake();
    },
    init() {
      cpu()?.init();
      wake();
    },
    sipi(vector) {
      cpu()?.sipi(vector);
      wake();
    },
    setA20(enabled) {
      cpu()?.setA20(enabled);
    },
  };
}
