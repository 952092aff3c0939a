/**
 * A whole machine in the thread it was made in: the board, the accelerator and the
 * loop that lets them run, sleep and take turns with the event loop.
 */
import { afterEvents, sleepUntilEvent } from '#threads';
import type { Accelerator, AcceleratorName, FreeRunning } from './accelerator.ts';
import { AdaptiveShift } from './adaptive-shift.ts';
import { HostClock, InstructionClock } from './clock.ts';
import type { Board } from './board.ts';
import type { StateParts } from '../migration/machine-state.ts';
import type { DeviceState, PowerEvent, StateOwner } from './interfaces.ts';
import type { NetdevConfig } from './network-config.ts';

export type RunState = 'prelaunch' | 'running' | 'paused' | 'shutdown' | 'crashed';

export interface MachineParts {
  readonly board: Board;
  /** Makes accelerators; the one that is to run the vCPU is told of. */
  readonly accelerators: { make(name: AcceleratorName): Accelerator; use(accelerator: Accelerator): void };
  /** The one to begin with. */
  readonly accelerator: AcceleratorName;
  readonly clock: HostClock | InstructionClock;
  /** Disk requests are under way, which the event loop will end. */
  readonly awaitsDisk?: () => boolean;
  /** What is behind the board's network cards. */
  readonly networks: MachineNetworks;
}

/** Networks as a machine's life concerns them. */
export interface MachineNetworks {
  /** Settles when everything that the machine must have is there; rejects with one line otherwise. */
  readonly ready: Promise<void>;
  /** Frames reach the board only while the machine runs. */
  setRunning(running: boolean): void;
  /** Opens another network. @throws Error, one line */
  add(netdev: NetdevConfig): Promise<void>;
  /** @throws Error when there is none of that name */
  remove(id: string): void;
  close(): void;
}

export interface MachinePolicy {
  /** A reset ends the machine (-no-reboot). */
  noReboot: boolean;
  /** Power-off pauses instead of ending the machine (-no-shutdown). */
  noShutdown: boolean;
  /** Instruction-counted time also passes at host speed while idle (-icount sleep=on). */
  icountSleep: boolean;
  /** The duration of an instruction follows the host's clock (-icount shift=auto). */
  icountAdapts: boolean;
}

export interface MachineEvents {
  /** The machine has come to its end. @param status exit status a command line should report */
  onEnd(event: PowerEvent, status: number): void;
  onReset?(): void;
  onStateChange?(state: RunState): void;
  /** Called before the event loop gets its turn: the place to pass on collected output. */
  onYield?(): void;
  trace?(category: string, line: string): void;
  /** Something the user should know, e.g. a CPU feature that is not there. */
  warn?(line: string): void;
}

/** Host milliseconds between two turns of the event loop. */
const TURN_MS = 4;
/** The same while a disk may have an answer: a guest that has nothing else to do would wait for it so long. */
const DISK_TURN_MS = 0.5;
/** Instructions between two looks at the clock; one look at the time costs as much as some hundred. */
const MAX_SLICE = 250_000;
const MIN_SLICE = 2_000;
const MAX_COUNTED_SLICE = 1_000_000;
/** Waits shorter than this are slept through outside the event loop, whose timers are not that fine. */
const SHORT_WAIT_MS = 1.2;
/** An idle machine looks after its host at least this often. */
const LONGEST_SLEEP_MS = 1000;

const POWER_EVENTS: readonly PowerEvent[] = ['poweroff', 'reset', 'panic', 'debug-exit', 'internal-error'];

export class LocalMachine implements StateOwner {
  readonly id = 'machine/power';
  readonly board: Board;
  readonly networks: MachineNetworks;
  /** What its saved state consists of; set by whoever puts it together. */
  stateParts!: () => StateParts;
  private readonly clock: HostClock | InstructionClock;
  private readonly accelerators: MachineParts['accelerators'];
  private inForce: Accelerator;
  private readonly awaitsDisk: () => boolean;
  private readonly policy: MachinePolicy;
  private readonly events: MachineEvents;
  private current: RunState = 'prelaunch';
  private pendingPower: { event: PowerEvent; code: number } | null = null;
  private sleeping: ReturnType<typeof setTimeout> | null = null;
  private scheduled = false;
  private stopRequested = false;
  /** It stands still only to be saved: what is loaded from that runs. */
  private savedRunning = false;
  /** A reset is due as soon as disks have nothing under way. */
  private resetWaits = false;
  private adaptiveShift: AdaptiveShift | null = null;
  /** Instructions per host nanosecond, a running estimate. */
  private speed = 0.2;
  /** The event loop has had its turn since the guest has done something: it knows all that it waits for. */
  private loopKnows = false;

  constructor(parts: MachineParts, policy: MachinePolicy, events: MachineEvents) {
    this.board = parts.board;
    this.accelerators = parts.accelerators;
    this.inForce = parts.accelerators.make(parts.accelerator);
    parts.accelerators.use(this.inForce);
    this.clock = parts.clock;
    this.awaitsDisk = parts.awaitsDisk ?? (() => false);
    this.networks = parts.networks;
    this.policy = policy;
    const { clock } = parts;
    if (policy.icountAdapts && clock instanceof InstructionClock) this.adaptiveShift = new AdaptiveShift(clock);
    this.events = events;
    this.accelerator.reset(this.board.reset());
  }

  get state(): RunState {
    return this.current;
  }

  get accelerator(): Accelerator {
    return this.inForce;
  }

  /**
   * Goes on under another accelerator; to be called between slices.
   * @throws Error, one line, when it cannot be had; the machine goes on as before
   */
  setAccelerator(name: AcceleratorName): void {
    const before = this.inForce;
    if (before.name === name) return;
    if (this.current === 'shutdown' || this.current === 'crashed') throw new Error('the machine has ended');
    // Translators keep what they know of the guest at the same place of the memory: there, the new one comes after the old.
    const apart = before.name === 'kvm' || name === 'kvm';
    const early = apart ? this.accelerators.make(name) : null;
    const states = this.board.apicIds.map((_, cpu) => before.saveState(cpu));
    const instructions = before.instructions();
    before.close(true);
    const take = (made: Accelerator): void => {
      made.countFrom(instructions);
      this.accelerators.use(made);
      states.forEach((state, cpu) => made.loadState(cpu, state));
      this.inForce = made;
    };
    try {
      take(early ?? this.accelerators.make(name));
    } catch (error) {
      early?.close();
      take(this.accelerators.make(before.name as AcceleratorName));
      throw error;
    }
  }

  start(): void {
    if (this.current === 'running' || this.current === 'shutdown') return;
    this.setState('running');
    this.stopRequested = this.savedRunning = false;
    this.clock.resume();
    this.adaptiveShift?.resume();
    this.networks.setRunning(true);
    this.schedule();
  }

  pause(): void {
    if (this.current !== 'running') return;
    this.stopRequested = true;
    this.accelerator.kick();
    this.clock.pause();
    this.accelerator.settle?.();
    this.networks.setRunning(false);
    this.cancelSleep();
    this.setState('paused');
  }

  /** Pauses to be saved. */
  standStill(): void {
    if (this.current !== 'running') return;
    this.pause();
    this.savedRunning = true;
  }

  /** The machine that was saved, of which this one has the state, ran. */
  get wasRunning(): boolean {
    return this.savedRunning;
  }

  /** Called by the board: the guest (or its user) turns power off, resets, or has crashed. */
  power(event: PowerEvent, code = 0): void {
    this.pendingPower ??= { event, code };
    this.accelerator.kick();
  }

  /** Something happened outside the vCPU that may end its sleep. */
  wake(): void {
    if (this.sleeping === null) return;
    this.cancelSleep();
    this.schedule();
  }

  /** Ends the machine at once. */
  quit(): void {
    this.end('poweroff', 0);
  }

  reset(): void {
    // What has been asked of disks before must not reach them afterwards.
    this.resetWaits = this.current === 'running' && this.awaitsDisk();
    if (this.resetWaits) return this.accelerator.kick();
    this.events.onReset?.();
    // Nothing of the guest runs into what the board is made anew of.
    this.accelerator.settle?.();
    this.accelerator.reset(this.board.reset());
  }

  saveState(): DeviceState {
    const { event, code } = this.pendingPower ?? { event: this.resetWaits ? 'reset' : '', code: 0 };
    return { version: 1, fields: { running: this.savedRunning, power: event, powerCode: code } };
  }

  loadState({ version, fields }: DeviceState): void {
    const { running, power, powerCode } = fields;
    if (version !== 1) throw new Error(`machine: saved state has version ${version}, this machine has 1`);
    if (typeof powerCode !== 'number') throw new Error('machine: field "powerCode" is not a number');
    const event = POWER_EVENTS.find((one) => one === power);
    if (event === undefined && power !== '') throw new Error('machine: field "power" is not a power event');
    if (typeof running !== 'boolean') throw new Error('machine: field "running" is not true or false');
    this.savedRunning = running;
    this.pendingPower = event === undefined ? null : { event, code: powerCode };
  }

  private setState(state: RunState): void {
    this.current = state;
    this.events.onStateChange?.(state);
  }

  private end(event: PowerEvent, status: number): void {
    if (this.current === 'shutdown') return;
    this.stopRequested = true;
    this.clock.pause();
    this.networks.close();
    this.cancelSleep();
    this.setState(event === 'panic' ? 'crashed' : 'shutdown');
    this.accelerator.close();
    this.events.onYield?.();
    this.events.onEnd(event, status);
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    const run = (): void => {
      this.scheduled = false;
      this.turn();
    };
    const { free } = this.accelerator;
    if (free === undefined) afterEvents(run);
    else free.afterEvents(run);
  }

  private cancelSleep(): void {
    if (this.sleeping !== null) clearTimeout(this.sleeping);
    this.sleeping = null;
  }

  private readonly stop = (): boolean => this.stopRequested || this.pendingPower !== null || this.resetWaits;

  private turnMs(): number {
    return this.awaitsDisk() ? DISK_TURN_MS : TURN_MS;
  }

  /** Milliseconds until the next timer is due. */
  private readonly left = (): number => {
    const { clock } = this;
    clock.runTimers();
    return Math.max(0, (clock.nextDeadline() - clock.now()) / 1e6);
  };

  private turn(): void {
    if (this.current !== 'running') return;
    if (this.resetWaits) this.reset();
    if (this.resetWaits) return this.schedule();
    const { free } = this.accelerator;
    if (free !== undefined) return this.freeTurn(free);
    const start = performance.now();
    do {
      this.adaptiveShift?.adjust();
      this.clock.runTimers();
      if (this.accelerator.idle) {
        if (!this.passIdleTime()) return this.events.onYield?.();
      } else {
        this.loopKnows = false;
        this.slice();
      }
      if (this.pendingPower && this.handlePower()) return;
      // A request may have begun in this turn.
    } while (performance.now() < start + this.turnMs() && this.current === 'running' && !this.resetWaits);
    this.events.onYield?.();
    if (this.current === 'running') this.schedule();
  }

  private freeTurn(free: FreeRunning): void {
    free.stay(this.left, this.stop);
    if (this.pendingPower && this.handlePower()) return;
    this.events.onYield?.();
    if (this.current === 'running') this.schedule();
  }

  private slice(): void {
    const { clock } = this;
    const ahead = clock.nextDeadline() - clock.now();
    if (clock instanceof InstructionClock) {
      const count = Math.ceil(ahead / clock.nsPerInstruction);
      this.accelerator.run(Math.min(Math.max(1, count), MAX_COUNTED_SLICE), this.stop);
      return;
    }
    // A guest that is slow, because it keeps asking devices, must not keep the event loop waiting.
    const time = Math.min(ahead, this.turnMs() * 1e6);
    const count = Math.min(Math.max(MIN_SLICE, Math.floor(time * this.speed)), MAX_SLICE);
    const instructions = this.accelerator.instructions();
    const before = performance.now();
    this.accelerator.run(count, this.stop);
    const elapsed = (performance.now() - before) * 1e6;
    if (elapsed > 20_000) {
      const now = (this.accelerator.instructions() - instructions) / elapsed;
      this.speed = Math.max(0.0005, this.speed * 0.75 + now * 0.25);
    }
  }

  /** @returns false when the machine went to sleep in the event loop */
  private passIdleTime(): boolean {
    const { clock } = this;
    if (clock instanceof HostClock) clock.endPace();
    const deadline = clock.nextDeadline();
    if (clock instanceof InstructionClock && !this.policy.icountSleep && deadline !== Infinity) {
      clock.advanceTo(deadline);
      return true;
    }
    const ms = (deadline - clock.now()) / 1e6;
    if (ms <= 0) return true;
    if (ms < SHORT_WAIT_MS && !(clock instanceof InstructionClock)) {
      if (this.loopKnows && !sleepUntilEvent(ms)) return true;
      this.loopKnows = true;
      this.schedule();
      return false;
    }
    const sleep = Math.min(LONGEST_SLEEP_MS, ms);
    this.sleeping = setTimeout(
      () => {
        this.sleeping = null;
        if (clock instanceof InstructionClock && deadline !== Infinity) clock.advanceTo(deadline);
        this.turn();
      },
      Math.max(1, Math.floor(sleep)),
    );
    return false;
  }

  /** @returns true when the machine has ended or paused */
  private handlePower(): boolean {
    const { event, code } = this.pendingPower!;
    this.pendingPower = null;
    this.events.trace?.('machine', `power event: ${event} after ${this.accelerator.instructions()} instructions`);
    if (event === 'internal-error') {
      this.end(event, 1);
      return true;
    }
    if (event === 'debug-exit') {
      this.end(event, code);
      return true;
    }
    if (event === 'reset' && !this.policy.noReboot) {
      this.reset();
      return false;
    }
    if (event === 'panic' && !this.policy.noReboot) {
      this.reset();
      return false;
    }
    if (this.policy.noShutdown) {
      this.pause();
      return true;
    }
    this.end(event, 0);
    return true;
  }
}
