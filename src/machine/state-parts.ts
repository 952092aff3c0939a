/** What a machine's saved state consists of. */
import { crc32c } from '../host/crc32c.ts';
import type { HypervChoice } from '../isa/x86/system/hyperv.ts';
import { type CpuModel, featureNames, TSC_HZ } from '../isa/x86/system/models.ts';
import type { MemoryBlock } from '../migration/ram.ts';
import type { StateParts } from '../migration/machine-state.ts';
import type { Fields } from '../migration/values.ts';
import type { Accelerator } from './accelerator.ts';
import { HostClock, type InstructionClock, type ClockTsc } from './clock.ts';
import { type DeviceConfig, type MachineConfig, type NamedFile, topologyOf } from './config.ts';
import { placeOf } from './device-builder.ts';
import type { DeviceState, StateOwner, StateValue } from './interfaces.ts';
import type { LocalMachine } from './machine.ts';
import type { Drive } from './pc-storage.ts';

export type StatePieces = {
  config: MachineConfig;
  model: CpuModel;
  drives: readonly Drive[];
  machine: LocalMachine;
  clock: HostClock | InstructionClock;
  tsc: ClockTsc;
  /** Wall-clock time at virtual time 0, in seconds since 1970. */
  boot: { time: number };
  random: StateOwner;
  networks: StateOwner;
  /** The whole shared memory, and what of it is part of the state beside RAM. */
  bytes: Uint8Array;
  areas: readonly { id: string; offset: number; size: number }[];
  /** Disks that are nothing but memory. */
  disks: readonly { readonly id: string; readonly bytes: Uint8Array }[];
};

export function statePartsOf(pieces: StatePieces): StateParts {
  const { machine, random, networks, bytes, areas, disks } = pieces;
  const { board } = machine;
  const cpus = board.apicIds.map((_, cpu) => new VcpuState(machine, cpu));
  const memory = areas.map(
    ({ id, offset, size }): MemoryBlock => ({
      id,
      bytes: bytes.subarray(offset, offset + size),
      changed: (at, length) => board.mem.ramChanged(offset + at, length),
    }),
  );
  return {
    configuration: configurationOf(pieces),
    memory: [...memory, ...disks.map((disk) => ({ ...disk, changed: () => undefined }))],
    owners: named([new ClockState(pieces), machine, random, networks, ...board.stateOwners, ...cpus]),
  };
}

/** Users may have given a device a name that one of the board's own has, which comes first. */
function named(owners: readonly StateOwner[]): StateOwner[] {
  const taken = new Set<string>();
  return owners.map((owner) => {
    let { id } = owner;
    while (taken.has(id)) id += '+';
    taken.add(id);
    return id === owner.id ? owner : new Renamed(id, owner);
  });
}

class Renamed implements StateOwner {
  readonly id: string;
  private readonly owner: StateOwner;

  constructor(id: string, owner: StateOwner) {
    this.id = id;
    this.owner = owner;
  }

  saveState(): DeviceState {
    return this.owner.saveState();
  }

  loadState(state: DeviceState): void {
    this.owner.loadState(state);
  }

  afterLoad(): void {
    this.owner.afterLoad?.();
  }
}

/** Virtual time, the instructions that have been executed, and the guest's TSC. */
class ClockState implements StateOwner {
  readonly id = 'machine/clock';
  private readonly pieces: StatePieces;

  constructor(pieces: StatePieces) {
    this.pieces = pieces;
  }

  saveState(): DeviceState {
    const { clock, tsc, machine, boot } = this.pieces;
    const fields: Fields = {
      now: clock.now(),
      instructions: machine.accelerator.instructions(),
      tscOffset: tsc.offset,
      tscFrequency: tsc.frequency,
      bootTime: boot.time,
    };
    if (!(clock instanceof HostClock)) fields['nsPerInstruction'] = clock.nsPerInstruction;
    return { version: 1, fields };
  }

  loadState({ version, fields }: DeviceState): void {
    const { clock, tsc, machine, boot, config } = this.pieces;
    if (version !== 1) throw new Error(`clock: saved state has version ${version}, this machine has 1`);
    const number = (name: string, most: number): number => {
      const value = fields[name];
      if (typeof value === 'number' && value >= 0 && value <= most) return value;
      throw new Error(`clock: field "${name}" is not a number from 0 to ${most}`);
    };
    const now = number('now', Number.MAX_SAFE_INTEGER);
    machine.accelerator.countFrom(number('instructions', Number.MAX_SAFE_INTEGER));
    if (!(clock instanceof HostClock)) {
      const duration = number('nsPerInstruction', 1024);
      if (!Number.isInteger(Math.log2(duration))) throw new Error('clock: field "nsPerInstruction" is not a power of two');
      clock.setShift(Math.log2(duration));
    }
    clock.set(now);
    const { tscOffset } = fields;
    if (typeof tscOffset !== 'bigint' || BigInt.asIntN(64, tscOffset) !== tscOffset) {
      throw new Error('clock: field "tscOffset" is not a signed integer of 64 bits');
    }
    tsc.offset = tscOffset;
    const { tscFrequency = tsc.frequency } = fields;
    if (typeof tscFrequency !== 'number' || !(tscFrequency >= TSC_HZ.min && tscFrequency <= TSC_HZ.max)) {
      throw new Error(`clock: field "tscFrequency" is not a number from ${TSC_HZ.min} to ${TSC_HZ.max}`);
    }
    tsc.frequency = tscFrequency;
    const saved = number('bootTime', Number.MAX_SAFE_INTEGER);
    // Where the guest's calendar follows the host's, it has gone on meanwhile.
    boot.time = config.rtc.clock === 'vm' || config.icount !== null ? saved : Date.now() / 1000 - now / 1e9;
  }
}

/** A vCPU, in the form that all accelerators share. */
class VcpuState implements StateOwner {
  readonly id: string;
  private readonly machine: { readonly accelerator: Accelerator };
  private readonly index: number;

  constructor(machine: { readonly accelerator: Accelerator }, index: number) {
    this.id = `cpu/${index}`;
    this.machine = machine;
    this.index = index;
  }

  saveState(): DeviceState {
    return this.machine.accelerator.saveState(this.index);
  }

  loadState(state: DeviceState): void {
    this.machine.accelerator.loadState(this.index, state);
  }
}

const image = (file: NamedFile | null): StateValue =>
  file === null ? 'none' : `${file.data.length} bytes, CRC-32C ${crc32c(file.data).toString(16).padStart(8, '0')}`;

function configurationOf({ config, model, drives, machine }: StatePieces): Fields {
  const { icount, rtc } = config;
  return {
    machine: {
      type: config.machine,
      memory: config.memory,
      icount: icount === null ? 'none' : `shift=${icount.shift}`,
      rtcClock: icount !== null ? 'vm' : rtc.clock,
      hpet: config.hpet,
      smm: machine.board.hasSmm,
      uuid: config.uuid ?? 'none',
      ...(config.machine === 'microvm' ? { ...config.microvm } : {}),
    },
    firmware: {
      bios: image(config.bios),
      vgaBios: image(config.vgaBios),
      kernel: image(config.kernel),
      initrd: image(config.initrd),
      append: config.append,
    },
    cpu: cpuOf(model),
    ...(config.cpus === 1 ? {} : { topology: { ...topologyOf(config) } }),
    devices: devicesOf(drives, machine),
  };
}

/** What CPUID tells of a model. */
function cpuOf(cpu: CpuModel): Fields {
  const { name, vendor, family, model: number, stepping, modelId, level, physicalBits, hugePages } = cpu;
  const features = featureNames().filter((feature) => cpu.has(feature));
  return {
    ...{ model: name, vendor, family, number, stepping, modelId, level, physicalBits, hugePages },
    ...Object.fromEntries(features.map((feature) => [feature, true])),
    ...hypervSeen(cpu.hyperv),
  };
}

function hypervSeen(hyperv: HypervChoice | null): Fields {
  if (hyperv === null) return {};
  const { features, passthrough, spinlocks, vendorId } = hyperv;
  const tries = features.has('hv-spinlocks') ? { 'hv-spinlocks': spinlocks } : {};
  const names = [...features, ...(passthrough ? ['hv-passthrough'] : [])].map((name) => [name, true]);
  return { ...Object.fromEntries(names), ...tries, 'hv-vendor-id': vendorId };
}

/** What the guest finds, and what it would notice if it were another. */
function devicesOf(drives: readonly Drive[], { board }: LocalMachine): Fields {
  const devices: Fields = {};
  for (const { id, type } of board.devices) devices[id] = { type };
  drives.forEach(({ config: one, backend }, i) => {
    const { interface: kind, index, media } = one;
    devices[`drive ${one.id ?? (kind === 'none' ? i : `${kind}${index}`)}`] = {
      type: media,
      size: backend?.size ?? 'no medium',
      readOnly: one.readOnly,
      serial: one.serial ?? '',
    };
  });
  const counts = new Map<string, number>();
  for (const { device, id, type, bus, config } of board.builder?.built ?? []) {
    const number = counts.get(type.name) ?? 0;
    counts.set(type.name, number + 1);
    // Where a device has found its place by itself, it might find another one here.
    devices[`-device ${id ?? `${type.name}#${number}`}`] = { type: type.name, ...seenOf(config), ...placeOf(bus, device) };
  }
  return devices;
}

/** Properties that say what is behind a device and how it is reached, which may be another way on another host. */
const BEHIND = new Set([
  ...['driver', 'id', 'drive', 'netdev', 'chardev', 'fsdev', 'path', 'uds-path', 'werror', 'rerror', 'rng'],
  'ioeventfd',
]);

function seenOf(config: DeviceConfig): Fields {
  const seen: Fields = {};
  for (const [name, value] of Object.entries(config)) {
    if (BEHIND.has(name) || value === null || value === undefined) continue;
    seen[name] = value instanceof Uint8Array ? value : String(value);
  }
  return seen;
}
