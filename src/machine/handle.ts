/** The machine as a program sees it: a handle to the thread that the machine lives in. */
import { findFirmware } from '#host';
import type { Thread } from '../host/host.ts';
import {
  type BlockOptions,
  completeConfig,
  ConfigError,
  type DeviceConfig,
  type DriveConfig,
  type MachineConfig,
  withFirmware,
} from './config.ts';
import { keySequence, textSequence } from '../display/keys.ts';
import { encodePng } from '../display/png.ts';
import { linesOf } from '../display/text.ts';
import type { GraphicsScreen, InputEvent, Picture, PowerEvent, TextScreen } from './interfaces.ts';
import type { AcceleratorName } from './accelerator.ts';
import type { RunState } from './machine.ts';
import {
  type Calls,
  DEBUGCON_CHANNEL,
  type DeletedDevice,
  FIRST_CHARDEV_CHANNEL,
  type FromMachine,
  type StateStep,
  type MachineCommand,
  type Queries,
  type ToMachine,
} from './messages.ts';
import { SerialPort } from './serial-port.ts';
import type { NetdevConfig } from './network-config.ts';
import { Mouse } from './mouse.ts';
import { withSharedFiles } from './shared-files.ts';
import { machineThreadFor } from './thread.ts';

export interface MachineEnd {
  readonly event: PowerEvent;
  /** Exit status that a command line should report. */
  readonly status: number;
}

/** What `on` can be asked for, and what its listeners are given. */
export interface MachineEventMap {
  state: RunState;
  reset: null;
  /** Lines of the categories in `config.trace`. */
  trace: readonly string[];
  /** Something the user should know, e.g. a CPU feature that is not there. */
  warning: string;
  /** A device has left the machine: its guest has let it go. */
  deviceDeleted: DeletedDevice;
}

type Listener<K extends keyof MachineEventMap> = (value: MachineEventMap[K]) => void;
type Pending = { resolve: (value?: unknown) => void; reject: (error: Error) => void };

export class Machine {
  readonly config: MachineConfig;
  /** COM1 first. A port that the configuration leaves out stays silent. */
  readonly serial: readonly SerialPort[];
  /** What the guest writes to the debug console. */
  readonly debugcon: SerialPort | null;
  /** Byte streams of devices, by the names in `config.chardevs`. */
  readonly chardevs: Map<string, SerialPort>;
  /** The guest's keyboard, with US layout; the promises are settled when all has been typed. */
  readonly keyboard: {
    /** @throws Error naming a character that the keyboard lacks */
    type(text: string): Promise<void>;
    /** Presses keys by QEMU's names, as in `ctrl-alt-delete`. @throws Error naming a key that there is not */
    press(combination: string): Promise<void>;
  };
  /** The guest's mouse or tablet; the promises are settled when events are on their way to the guest. */
  readonly mouse: Mouse;
  /** What the machine has warned of so far, also while it was being made. */
  readonly warnings: string[] = [];
  /** The machine whose state this one was given ran; so does one that is new, unless it is told not to. */
  wasRunning = true;
  /** Settles when the machine has come to its end; rejects when the emulator itself failed. */
  readonly ended: Promise<MachineEnd>;

  private readonly thread: Thread<ToMachine, FromMachine>;
  private readonly listeners = new Map<string, Set<(value: never) => void>>();
  private readonly pending = new Map<number, Pending>();
  private readonly created = Promise.withResolvers<void>();
  private readonly ending = Promise.withResolvers<MachineEnd>();
  private current: RunState = 'prelaunch';
  private nextId = 1;
  private readonly channels = new Map<number, SerialPort>();

  private constructor(config: MachineConfig, thread: Thread<ToMachine, FromMachine>) {
    this.config = config;
    this.thread = thread;
    this.ended = this.ending.promise;
    // Whoever does not ask how the machine ended need not be told by an unhandled rejection.
    this.ended.catch(() => undefined);
    const post = (message: ToMachine): void => thread.post(message);
    this.serial = config.serials.map((_, i) => new SerialPort(i, post));
    this.keyboard = {
      type: async (text) => this.typed(textSequence(text)),
      press: async (combination) => this.typed(keySequence(combination)),
    };
    this.mouse = new Mouse((events) => this.sendInput(events));
    this.debugcon = config.debugcon === null ? null : new SerialPort(DEBUGCON_CHANNEL, post);
    this.chardevs = new Map();
    for (const id of config.chardevs) this.openChannel(id);
    thread.onMessage((message) => this.receive(message));
    thread.onError((error) => this.fail(error));
    post({ type: 'create', config: withSharedFiles(config) });
  }

  /**
   * Makes a machine and, unless `startPaused` is set, starts it.
   * @throws ConfigError or Error, one line, when the configuration cannot be had
   */
  static async create(given: Partial<MachineConfig>): Promise<Machine> {
    const config = withFirmware(completeConfig(given), findFirmware);
    const machine = new Machine(
      config,
      machineThreadFor(typeof config.accel === 'string' ? config.accel : (config.accel[0] ?? 'jit')).take(),
    );
    await machine.created.promise;
    return machine;
  }

  /**
   * Makes a machine with the same configuration as that of the saved one, and loads its state; if it ran, and unless
   * `startPaused` is set, it goes on. What is behind its devices (images, networks, files) may be elsewhere.
   * @param stream what `save` has given, in pieces of any size
   * @throws ConfigError or Error, one line, when the configuration cannot be had or the state does not fit
   */
  static async restore(stream: AsyncIterable<Uint8Array>, given: Partial<MachineConfig>): Promise<Machine> {
    const machine = await Machine.create({ ...given, startPaused: true });
    try {
      for await (const data of stream) await machine.step({ step: 'load', data });
      const { wasRunning } = (await machine.step({ step: 'load', data: null })) as { wasRunning: boolean };
      machine.wasRunning = wasRunning;
    } catch (error) {
      await machine.quit();
      throw error;
    }
    if (machine.wasRunning && given.startPaused !== true) await machine.start();
    return machine;
  }

  get state(): RunState {
    return this.current;
  }

  /**
   * The machine's whole state. It is paused for that, and stays so: `start` lets it go on when the stream has been
   * read or cancelled.
   * @param options `compress` (true unless said otherwise): memory is compressed, where the host can do it fast
   * @returns the stream as docs/state.md describes it; it fails with one line when the machine cannot be saved
   */
  save({ compress = true }: { readonly compress?: boolean } = {}): ReadableStream<Uint8Array> {
    let begun: Promise<unknown> | null = null;
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          await (begun ??= this.step({ step: 'save', compress }));
          const data = (await this.step({ step: 'next' }).catch((error: Error) => this.notSaved(error))) as Uint8Array | null;
          if (data !== null) return controller.enqueue(data);
          await this.step({ step: 'end' });
          controller.close();
        },
        cancel: async () => {
          const mine = await (begun ?? Promise.resolve(false)).then(
            () => begun !== null,
            () => false,
          );
          if (mine && !this.over) await this.step({ step: 'end' });
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** Goes on under another accelerator, from where the machine is. @throws Error, one line, when it cannot be had */
  async setAccelerator(name: AcceleratorName): Promise<void> {
    if (!this.over) await this.ask((id) => ({ type: 'accelerator', id, name }));
  }

  start(): Promise<void> {
    return this.command('start');
  }

  pause(): Promise<void> {
    return this.command('pause');
  }

  reset(): Promise<void> {
    return this.command('reset');
  }

  /** Presses the power button: the guest may shut down. */
  powerdown(): Promise<void> {
    return this.command('powerdown');
  }

  nmi(): Promise<void> {
    return this.command('nmi');
  }

  /** @returns the display's lines, or null while it shows pixels or there is none */
  async screenText(): Promise<string[] | null> {
    const screen = await this.query('text');
    return screen === null ? null : linesOf(screen);
  }

  /** @returns the display's characters with their attributes, the size of its pixels' screen, or null without a display */
  screen(): Promise<TextScreen | GraphicsScreen | null> {
    return this.query('screen');
  }

  /** @returns what the display shows, or null when there is none */
  screenshot(): Promise<Picture | null> {
    return this.query('picture');
  }

  /** @returns what the display shows as a PNG file, or null when there is none */
  async screenshotPng(): Promise<Uint8Array | null> {
    const picture = await this.query('picture');
    return picture === null ? null : encodePng(picture);
  }

  /**
   * Puts a device into the machine while it runs (QMP's `device_add`).
   * @param device `driver`, `id`, `bus`, `addr` and the type's properties
   * @returns the same with the place that it was given
   * @throws Error in QEMU's words: there is no such type, bus or place, the place is taken, the bus takes no devices now
   */
  addDevice(device: DeviceConfig): Promise<DeviceConfig> {
    return this.call('addDevice', device);
  }

  /**
   * Asks the guest to let a device go (`device_del`); `deviceDeleted` comes when it has.
   * @throws Error when there is no such device, or it cannot leave
   */
  async removeDevice(id: string): Promise<void> {
    await this.call('removeDevice', id);
  }

  /** Opens a drive for devices that will name it. @param drive as `drive` makes it, with interface `none` and an `id` */
  async addDrive(drive: DriveConfig): Promise<void> {
    await this.call('addDrive', drive);
  }

  /** Closes a drive that no device has. @throws Error when one has */
  async removeDrive(id: string): Promise<void> {
    await this.call('removeDrive', id);
  }

  /** Opens a block node (`blockdev-add`), which devices name as their drive. */
  async addBlockdev(options: BlockOptions): Promise<void> {
    await this.call('addBlockdev', options);
  }

  /** Closes a block node (`blockdev-del`). @throws Error when it is in use */
  async removeBlockdev(nodeName: string): Promise<void> {
    await this.call('removeBlockdev', nodeName);
  }

  /** Opens a network for cards that will name it (`netdev_add`). */
  async addNetdev(netdev: NetdevConfig): Promise<void> {
    await this.call('addNetdev', netdev);
  }

  /** Closes a network (`netdev_del`); a card that is on it hears nothing any more. */
  async removeNetdev(id: string): Promise<void> {
    await this.call('removeNetdev', id);
  }

  /** Makes a byte stream for devices that will name it (`chardev-add`). */
  async addChardev(id: string): Promise<SerialPort> {
    await this.call('addChardev', { id, channel: this.nextChannel() });
    return this.openChannel(id);
  }

  /** Ends a byte stream that no device has (`chardev-remove`). @throws Error when one has */
  async removeChardev(id: string): Promise<void> {
    await this.call('removeChardev', id);
    const port = this.chardevs.get(id);
    port?.end();
    this.chardevs.delete(id);
    for (const [channel, one] of this.channels) if (one === port) this.channels.delete(channel);
  }

  /**
   * Asks the guest to make do with so many bytes of its memory (`balloon`); the host gets the rest.
   * @throws Error when there is no balloon device
   */
  async setBalloon(bytes: number): Promise<void> {
    await this.call('setBalloon', bytes);
  }

  /** @returns bytes that the guest has (`query-balloon`) @throws Error when there is no balloon device */
  getBalloon(): Promise<number> {
    return this.call('getBalloon', null);
  }

  /**
   * Gives the guest's pointer events that happen together (QMP's `input-send-event`).
   * @returns whether there is a device that takes them and whose guest listens
   */
  sendInput(events: readonly InputEvent[]): Promise<boolean> {
    return this.call('sendInput', events);
  }

  /** Ends the machine at once. */
  async quit(): Promise<void> {
    await this.command('quit');
    await this.ended;
  }

  /** @returns a function that takes the listener away again */
  on<K extends keyof MachineEventMap>(event: K, listener: Listener<K>): () => void {
    const set = this.listeners.get(event) ?? new Set();
    this.listeners.set(event, set);
    set.add(listener);
    return () => {
      set.delete(listener);
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.quit();
  }

  private emit<K extends keyof MachineEventMap>(event: K, value: MachineEventMap[K]): void {
    for (const listener of this.listeners.get(event) ?? []) (listener as Listener<K>)(value);
  }

  private command(command: MachineCommand): Promise<void> {
    if (this.over) return Promise.resolve();
    return this.ask((id) => ({ type: 'command', id, command })).then(() => undefined);
  }

  private async notSaved(error: Error): Promise<never> {
    await this.step({ step: 'end' });
    throw error;
  }

  private async step(step: StateStep): Promise<unknown> {
    if (this.over) throw new Error('the machine has ended');
    return this.ask((id) => ({ type: 'state', id, ...step }));
  }

  private query<K extends keyof Queries>(query: K): Promise<Queries[K]> {
    if (this.over) return Promise.resolve(null);
    return this.ask((id) => ({ type: 'query', id, query })) as Promise<Queries[K]>;
  }

  /** @throws Error when the machine has ended, too: there is nothing to change any more */
  private call<K extends keyof Calls>(call: K, given: Calls[K]['given']): Promise<Calls[K]['answer']> {
    if (this.over) return Promise.reject(new Error('the machine has ended'));
    return this.ask((id) => ({ type: 'call', id, call, given }) as ToMachine) as Promise<Calls[K]['answer']>;
  }

  private nextChannel(): number {
    return Math.max(FIRST_CHARDEV_CHANNEL - 1, ...this.channels.keys()) + 1;
  }

  private openChannel(id: string): SerialPort {
    const channel = this.nextChannel();
    const port = new SerialPort(channel, (message) => this.thread.post(message));
    this.chardevs.set(id, port);
    this.channels.set(channel, port);
    return port;
  }

  private get over(): boolean {
    return this.current === 'shutdown' || this.current === 'crashed';
  }

  /** Sends a message that is answered by `done`; the end of the machine answers it with null. */
  private ask(message: (id: number) => ToMachine): Promise<unknown> {
    const id = this.nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.pending.set(id, { resolve: (value) => resolve(value ?? null), reject });
    this.thread.post(message(id));
    return promise;
  }

  private async typed(sequences: readonly (readonly number[])[]): Promise<void> {
    if (!this.over) await this.ask((id) => ({ type: 'keys', id, sequences }));
  }

  private channel(index: number): SerialPort | null {
    if (index >= FIRST_CHARDEV_CHANNEL) return this.channels.get(index) ?? null;
    return index === DEBUGCON_CHANNEL ? this.debugcon : (this.serial[index] ?? null);
  }

  private receive(message: FromMachine): void {
    switch (message.type) {
      case 'created':
        return this.created.resolve();
      case 'failed':
        return this.fail(failure(message.message, message.field));
      case 'done':
        return this.done(message.id, message.error, message.value);
      case 'output':
        return this.channel(message.channel)?.deliver(message.data);
      case 'taken':
        return this.channel(message.channel)?.taken(message.bytes);
      case 'state':
        this.current = message.state;
        return this.emit('state', message.state);
      case 'reset':
        return this.emit('reset', null);
      case 'warning':
        this.warnings.push(message.line);
        return this.emit('warning', message.line);
      case 'deviceDeleted':
        return this.emit('deviceDeleted', { device: message.device, path: message.path });
      case 'trace':
        return this.emit('trace', message.lines);
      case 'end':
        this.close();
        return this.ending.resolve({ event: message.event, status: message.status });
    }
  }

  private done(id: number, error: string | null, value: unknown): void {
    const pending = this.pending.get(id);
    this.pending.delete(id);
    if (error === null) pending?.resolve(value);
    else pending?.reject(new Error(error));
  }

  private fail(error: Error): void {
    this.current = 'crashed';
    this.close();
    this.created.reject(error);
    this.ending.reject(error);
  }

  private close(): void {
    for (const port of this.serial) port.end();
    this.debugcon?.end();
    for (const port of this.chardevs.values()) port.end();
    for (const { resolve } of this.pending.values()) resolve();
    this.pending.clear();
    this.thread.terminate();
  }
}

function failure(message: string, field: string | null): Error {
  if (field === null) return new Error(message);
  const prefix = `${field}: `;
  const why = message.startsWith(prefix) ? message.slice(prefix.length) : message;
  return new ConfigError(field as keyof MachineConfig, why);
}
