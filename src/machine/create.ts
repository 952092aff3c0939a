/** Puts a machine together from its configuration, in the current thread. */
import { namesOf } from '../isa/x86/system/hyperv.ts';
import { type CpuModel, DEFAULT_MODEL, HOST_MODEL, parseCpu, withinHost } from '../isa/x86/system/models.ts';
import { GUEST_MEMORY } from '../jit/layout.ts';
import { newMemory } from '../wasm/memory.ts';
import { VGA_MEMORY } from '../devices/vga/vga.ts';
import { rtcBaseSeconds } from '../devices/timer/mc146818.ts';
import type { RtcOptions } from '../devices/timer/mc146818.ts';
import type { Accelerator, AcceleratorName } from './accelerator.ts';
import {
  type AcceleratorParts,
  checkCpus,
  CpuPins,
  loadAccelerator,
  type LoadedAccelerator,
  makeAccelerator,
  type Tuning,
} from './accelerators.ts';
import { FIRST_SHIFT } from './adaptive-shift.ts';
import { ClockTsc, DEFAULT_TSC_HZ, HostClock, InstructionClock } from './clock.ts';
import { ConfigError, type FolderConfig, topologyOf, wantedDevices } from './config.ts';
import type { CpuTopology } from './cpu-topology.ts';
import { loadDeviceTypes } from './device-types.ts';
import type { DeviceLinks } from './device-builder.ts';
import type { MachineConfig, MachineIo } from './config.ts';
import type { PowerEvent, VirtualClock } from './interfaces.ts';
import type { Board } from './board.ts';
import { LocalMachine } from './machine.ts';
import { type BoardParts, MicrovmMachine } from './microvm.ts';
import type { MachineEvents } from './machine.ts';
import { type PcConfig, PcMachine } from './pc.ts';
import { type FlashArea, flashDrives } from './pc-flash.ts';
import type { Drive } from './pc-storage.ts';
import { settle } from '../devices/block.ts';
import { network as hostNetwork, openFileTree, releasePages } from '#host';
import type { FileTree } from '../host/file-tree.ts';
import { Attributes } from '../host/mapped-attributes.ts';
import { FilesBeside } from '../host/mapped-files.ts';
import { MappedTree } from '../host/mapped-tree.ts';
import { Networks } from '../network/open.ts';
import { hostRandom, RandomSources } from './random.ts';
import { statePartsOf } from './state-parts.ts';

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
    if (securityModel === 'mapped-file') return new MappedTree(tree, new FilesBeside(tree));
    return securityModel === 'mapped-xattr' ? new MappedTree(tree, new Attributes(tree)) : tree;
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

/** The first one of those wanted that can be had. @throws ConfigError saying why there is none */
async function chooseAccelerator(
  { accel, icount, cpus }: MachineConfig,
  events: MachineEvents,
): Promise<[AcceleratorName, LoadedAccelerator]> {
  const wanted = typeof accel === 'string' ? [accel] : accel;
  for (const [i, name] of wanted.entries()) {
    try {
      if (name === 'kvm' && icount !== null) throw new Error('instructions that the processor runs cannot be counted (-icount)');
      const loaded = await loadAccelerator(name);
      checkCpus(loaded, cpus);
      return [name, loaded];
    } catch (error) {
      const why = (error as Error).message;
      const next = wanted[i + 1];
      if (next === undefined) throw new ConfigError('accel', `${name}: ${why}`);
      events.warn?.(`accelerator ${name}: ${why}; going on with ${next}`);
    }
  }
  throw new ConfigError('accel', 'none is given');
}

/** Without firmware nobody uses it. */
const hasSmm = ({ smm, bios, drives }: MachineConfig, accelerator: AcceleratorName): boolean =>
  smm ?? (accelerator !== 'kvm' && (bios !== null || drives.some((one) => one.interface === 'pflash')));

function chooseCpu(
  text: string,
  { features, hostCpu, tscFrequency }: LoadedAccelerator,
  events: MachineEvents,
): { model: CpuModel; tscFrequency: number } {
  const { model, warnings } = parseCpu(text, hostCpu);
  if (model.name === HOST_MODEL && hostCpu === null) {
    throw new ConfigError('cpu', 'the model "host" is the host\'s own processor, which only KVM runs (-accel kvm)');
  }
  for (const warning of warnings) events.warn?.(warning);
  const frequency = model.tscFrequency || tscFrequency || DEFAULT_TSC_HZ;
  if (features === null) {
    if (model.hyperv !== null) events.warn?.(`CPU ${model.name}: ${namesOf(model.hyperv)} can be had by KVM alone (-accel kvm)`);
    return { model: { ...model, hyperv: null }, tscFrequency: frequency };
  }
  const within = withinHost(model, features);
  // "max" is whatever there is.
  if (within.missing.length > 0 && model.name !== DEFAULT_MODEL) {
    events.warn?.(`CPU ${model.name}: this host does not have ${within.missing.join(', ')}`);
  }
  return { model: within.model, tscFrequency: frequency };
}

/** AMD's processors tell of the threads of a core by a leaf that not all of them have. */
function warnOfThreads(model: CpuModel, { threads }: CpuTopology, events: MachineEvents): void {
  if (threads === 1 || model.vendor !== 'AuthenticAMD' || model.has('topoext')) return;
  events.warn?.(`CPU ${model.name}: guests take its ${threads} threads a core for cores; -cpu MODEL,+topoext tells them`);
}

/** @param shared what all boards take @param pc what only a PC does @throws ConfigError naming the device that cannot be had */
function makeBoard(config: MachineConfig, shared: BoardParts, pc: Omit<PcConfig, keyof BoardParts | 'machine'>): Board {
  const { machine, kernel, append, microvm } = config;
  if (machine !== 'microvm') return new PcMachine({ ...shared, ...pc, machine });
  if (kernel === null) throw new ConfigError('kernel', 'none is given');
  return new MicrovmMachine({ ...shared, kernel: kernel.data, kernelName: kernel.name, append, options: microvm });
}

/**
 * @throws ConfigError naming the setting that cannot be met; Error for an image that cannot be loaded
 */
export async function createMachine(
  config: MachineConfig,
  events: MachineEvents,
  ports: MachineIo,
  tuning: Tuning = {},
): Promise<LocalMachine> {
  const [name, accelerator] = await chooseAccelerator(config, events);
  const { model, tscFrequency } = chooseCpu(config.cpu, accelerator, events);
  warnOfThreads(model, topologyOf(config), events);
  if (config.smm === true && name === 'kvm') throw new ConfigError('smm', 'KVM runs no system management mode here');
  const smm = hasSmm(config, name);
  await loadDeviceTypes(wantedDevices(config).map((wanted) => wanted.config.driver));
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
  let inForce: Accelerator | null = null;
  const pins = new CpuPins(() => machine?.wake());
  const instructions = (): number => inForce?.instructions() ?? 0;
  const clock = config.icount
    ? new InstructionClock(instructions, config.icount.shift === 'auto' ? FIRST_SHIFT : config.icount.shift)
    : new HostClock(undefined, instructions);
  const tsc = new ClockTsc(clock, tscFrequency);
  const networks = openNetworks(config, clock, events);
  const randoms = new RandomSources(config.icount !== null);
  const boot = { time: typeof config.rtc.base === 'number' ? config.rtc.base : Date.now() / 1000 };
  const early: { event: PowerEvent; code: number }[] = [];
  const onPower = (event: PowerEvent, code = 0): void => {
    if (machine) machine.power(event, code);
    else early.push({ event, code });
  };
  const shared = {
    memory: { bytes, ramOffset: GUEST_MEMORY, ramSize: config.memory },
    cpuPort: pins,
    topology: topologyOf(config),
    clock,
    tsc,
    serials: ports.serials,
    ...(config.debugcon && ports.debugcon ? { debugcon: { backend: ports.debugcon, iobase: config.debugcon.iobase } } : {}),
    ...(config.debugExit ? { debugExit: config.debugExit } : {}),
    rtc: rtcOptions(config, clock),
    ...(config.kernel ? { kernel: config.kernel.data, kernelName: config.kernel.name, append: config.append } : {}),
    ...(config.initrd ? { initrd: config.initrd.data } : {}),
    devices: { wanted: wantedDevices(config), links: linksOf(config, drives, networks, ports), random: randoms.devices },
    onPower,
    trace,
  };
  const board = makeBoard(config, shared, {
    hpet: config.hpet,
    smm,
    ...(config.uuid ? { uuid: config.uuid } : {}),
    boot: config.boot,
    textOnSerial: config.textOnSerial,
    drives,
    acpiHotplugBehindBridges: config.acpiHotplugBehindBridges,
    ...(places.bios ? { bios: places.bios } : {}),
    flash: places.flash,
    ...(places.vga ? { vga: places.vga } : {}),
  });
  board.mem.release = releasePages;
  const parts: AcceleratorParts = {
    ...{ board, memory, model, topology: topologyOf(config), clock, tsc, tracing, trace, tuning, onPower },
    onFailure: (text) => events.warn?.(text),
    bootTime: () => boot.time,
    random32: randoms.cpu,
    counted: config.icount !== null,
    irqchip: config.kernelIrqchip,
    nativeCode: config.nativeCode,
  };
  machine = new LocalMachine(
    {
      board,
      accelerators: {
        make: (name) => makeAccelerator(name, parts),
        use: (accelerator) => {
          inForce = accelerator;
          pins.target = accelerator.cpuPort;
          board.mem.onMapChange = () => accelerator.memoryMapChanged();
          board.mem.onDoorbells = board.io.onDoorbells = () => accelerator.doorbellsChanged?.();
          accelerator.memoryMapChanged();
        },
      },
      accelerator: name,
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
  const made = machine;
  machine.stateParts = () =>
    statePartsOf({
      config,
      model,
      drives,
      machine: made,
      clock,
      tsc,
      boot,
      random: randoms,
      networks,
      bytes,
      areas: areasOf(config, places),
      disks: ports.driveMemory?.() ?? [],
    });
  return machine;
}

/** Memory that a guest may change. */
function areasOf({ memory }: MachineConfig, { flash, vga }: ReturnType<typeof layOut>) {
  return [
    { id: 'ram', offset: GUEST_MEMORY, size: memory },
    ...(vga === null ? [] : [{ id: 'vga.vram', offset: vga.offset, size: VGA_MEMORY }]),
    ...flash.map(({ offset, size }, unit) => ({ id: `pflash${unit}`, offset, size })),
  ];
}
