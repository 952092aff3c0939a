/**
 * The 8254 between the board's form and the kernel's (`struct kvm_pit_state2`).
 * The kernel starts the counts anew when it is given them: the phase of what is periodic is lost there, its rate is not.
 */
import type { ChannelState } from '../../devices/timer/i8254.ts';
import type { DeviceState } from '../../machine/interfaces.ts';
import type { KVM_PIT_CHANNEL_STATE, KVM_PIT_STATE2 } from '../layouts.ts';
import type { Value } from '../struct.ts';

export type KernelPit = Value<typeof KVM_PIT_STATE2>;
type KernelChannel = Value<typeof KVM_PIT_CHANNEL_STATE>;
type Fields = { channels: ChannelState[]; speakerOn: boolean; refresh: boolean; irqCut: boolean };

const NS_PER_TICK = 1e9 / 1_193_182;
const FLAG_HPET_LEGACY = 1;
const FLAG_SPEAKER_ON = 2;
/** What the kernel has a channel in that was never given a count: no mode, so no timer. */
const NO_MODE = 0xff;
/** Bytes to be read or written next (RW_STATE_...): the low, the high, the low of both, the high of both. */
const WAITS = { low: 1, high: 2, first: 3, second: 4 } as const;
const BOTH = 3;

/** Two clocks at one moment, both in nanoseconds. */
export interface Moment {
  /** The machine's virtual clock. */
  readonly virtual: number;
  /** The host's CLOCK_MONOTONIC. */
  readonly host: bigint;
}

export function pitToKernel(state: DeviceState, moment: Moment): KernelPit {
  const s = state.fields as unknown as Fields;
  return {
    channels: s.channels.map((channel) => channelToKernel(channel, moment)),
    flags: (s.irqCut ? FLAG_HPET_LEGACY : 0) | (s.speakerOn ? FLAG_SPEAKER_ON : 0),
    reserved: new Array<number>(9).fill(0),
  };
}

export function pitFromKernel(k: KernelPit, before: DeviceState, moment: Moment): DeviceState {
  const old = before.fields as unknown as Fields;
  return {
    version: before.version,
    fields: {
      ...before.fields,
      channels: k.channels.map((channel, i) => channelFromKernel(channel, old.channels[i]!, moment)),
      speakerOn: (k.flags & FLAG_SPEAKER_ON) !== 0,
      irqCut: (k.flags & FLAG_HPET_LEGACY) !== 0,
    },
  };
}

const waiting = (access: number, second: boolean): number => (access !== BOTH ? access : second ? WAITS.second : WAITS.first);

function channelToKernel(s: ChannelState, { virtual, host }: Moment): KernelChannel {
  const running = s.startNs < 0 ? 0 : virtual - s.startNs;
  const elapsed = Math.round(running + s.heldTicks * NS_PER_TICK);
  return {
    count: s.count,
    latched_count: s.latchedCount & 0xffff,
    count_latched: s.latchedBytes === 0 ? 0 : s.access !== BOTH ? s.access : s.latchedBytes === 2 ? WAITS.first : WAITS.high,
    status_latched: Number(s.statusLatched),
    status: s.status,
    read_state: waiting(s.access, s.readHigh),
    write_state: waiting(s.access, s.writeHigh),
    write_latch: s.writeLow,
    rw_mode: s.access,
    mode: s.count === 0 ? NO_MODE : s.mode,
    bcd: Number(s.bcd),
    gate: Number(s.gate),
    count_load_time: host - BigInt(elapsed),
  };
}

function channelFromKernel(k: KernelChannel, old: ChannelState, { virtual, host }: Moment): ChannelState {
  const loaded = k.mode !== NO_MODE;
  return {
    mode: loaded ? Math.min(5, k.mode) : old.mode,
    access: k.rw_mode & BOTH || old.access,
    bcd: k.bcd !== 0,
    count: loaded ? Math.min(65536, k.count) : 0,
    gate: k.gate !== 0,
    heldTicks: 0,
    startNs: loaded ? Math.max(0, virtual - Number(host - k.count_load_time)) : -1,
    readHigh: k.read_state === WAITS.second,
    writeHigh: k.write_state === WAITS.second,
    writeLow: k.write_latch,
    latchedBytes: k.count_latched === 0 ? 0 : k.count_latched === WAITS.first ? 2 : 1,
    latchedCount: k.latched_count,
    statusLatched: k.status_latched !== 0,
    status: k.status,
  };
}
