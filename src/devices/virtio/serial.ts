/** Console device: virtio 1.2, section 5.3; QEMU's virtio-serial. Many ports, each a byte stream. */
import type { CharBackend, Device, DeviceState } from '../../machine/interfaces.ts';
import type { BusHotplug, DeviceBus } from '../device-type.ts';
import { StateBlock } from '../state.ts';
import { put16, put32, readBytes } from './config-space.ts';
import { VirtioDevice, type VirtioParts } from './device.ts';
import { DEVICE, featureSet } from './features.ts';
import type { Virtqueue } from './queue.ts';

const FEATURE = { size: 0, multiport: 1, emergencyWrite: 2 } as const;
/** Configuration space (5.3.4). */
const CONFIG = { columns: 0, rows: 2, ports: 4, emergencyWrite: 8 } as const;
const CONFIG_SIZE = 12;
const QUEUE_SIZE = 128;
const CONTROL_SIZE = 32;
export const MAX_PORTS = 31;

/** Control messages (5.3.6.2): port 32, event 16, value 16, perhaps with text behind. */
const EVENT = {
  deviceReady: 0,
  portAdd: 1,
  portRemove: 2,
  portReady: 3,
  consolePort: 4,
  resize: 5,
  portOpen: 6,
  portName: 7,
} as const;
const MESSAGE = 8;
/** Bytes of a guest's that are handed on at a time. */
const PIECE = 4096;

/** What a port still has to tell the driver, in this order. */
const TELL = { remove: 1, add: 2, console: 4, name: 8, open: 16 } as const;

/** The first port's queues come before those of control, the others' after them (5.3.2). */
const CONTROL_RECEIVE = 2;
const CONTROL_SEND = 3;
const receiveQueue = (port: number): number => (port === 0 ? 0 : 2 + 2 * port);
const portOfQueue = (queue: number): number => (queue < 2 ? 0 : (queue >> 1) - 1);

export type PortOptions = { type: string; id: string; name: string; console: boolean; backend: CharBackend | null };

/** One port: a device of its own, on the bus that the serial device provides. */
export class SerialPortDevice implements Device {
  readonly type: string;
  readonly id: string;
  readonly name: string;
  readonly console: boolean;
  readonly backend: CharBackend | null;

  constructor({ type, id, name, console, backend }: PortOptions) {
    this.type = type;
    this.id = id;
    this.name = name;
    this.console = console;
    this.backend = backend;
  }

  reset(): void {
    // Its state is the serial device's.
  }

  saveState(): DeviceState {
    return { version: 1, fields: {} };
  }

  loadState(): void {
    // See above.
  }
}

const powerOn = (ports: number) => ({
  /** The driver listens to control messages. */
  ready: false,
  /** Per port: somebody in the guest has it open; what it has to tell the driver (`TELL`). */
  open: new Uint8Array(ports),
  tell: new Uint8Array(ports),
});

export class VirtioSerial extends VirtioDevice implements DeviceBus, BusHotplug {
  readonly deviceType = DEVICE.console;
  readonly configSize = CONFIG_SIZE;
  readonly kind = 'virtio-serial-bus';
  readonly hotplug = this;
  onEject: ((port: SerialPortDevice) => void) | null = null;
  readonly ports: (SerialPortDevice | null)[];
  private readonly registers: StateBlock<ReturnType<typeof powerOn>>;
  private readonly emergencyWrite: boolean;
  private readonly piece = new Uint8Array(PIECE);
  /** Per port: the host is full, and the rest of a chain waits from so many bytes on. */
  private readonly blocked: boolean[];

  constructor(parts: VirtioParts, ports: number, emergencyWrite: boolean) {
    const others = new Array<number>(2 * (ports - 1)).fill(QUEUE_SIZE);
    super(parts, [QUEUE_SIZE, QUEUE_SIZE, CONTROL_SIZE, CONTROL_SIZE, ...others]);
    this.ports = new Array<SerialPortDevice | null>(ports).fill(null);
    this.blocked = new Array<boolean>(ports).fill(false);
    this.registers = new StateBlock(parts.id, 1, () => powerOn(ports));
    this.emergencyWrite = emergencyWrite;
  }

  get name(): string {
    return `${this.id}.0`;
  }

  /** Puts a port in its place. @param number null for the first free one @throws Error when there is none */
  plug(port: SerialPortDevice, number: number | null): void {
    // Port 0 is a console or nothing: drivers without many ports know no other.
    const first = port.console ? 0 : 1;
    const free = this.ports.findIndex((other, i) => i >= first && other === null);
    const at = number ?? free;
    if (at < 0 || at >= this.ports.length) {
      throw new Error(
        number === null ? 'A port id was not found' : `Out-of-range port id specified, max. allowed: ${this.ports.length - 1}`,
      );
    }
    if (at === 0 && !port.console)
      throw new Error('Port number 0 on virtio-serial devices reserved for virtconsole devices for backward compatibility.');
    if (this.ports[at] != null) throw new Error(`A port already exists at id ${at}`);
    this.ports[at] = port;
    const { backend } = port;
    if (backend === null) return;
    backend.onReceive = (data) => this.receive(at, data);
    backend.onDrain = () => this.drained(at);
  }

  plugged(port: SerialPortDevice): void {
    this.tell(this.ports.indexOf(port), TELL.add);
  }

  /** A port leaves at once. */
  requestUnplug(port: SerialPortDevice): void {
    this.onEject?.(port);
  }

  unplug(port: SerialPortDevice): void {
    const number = this.ports.indexOf(port);
    const { open, tell } = this.registers.value;
    this.ports[number] = null;
    open[number] = 0;
    tell[number] = 0;
    // What it had not taken yet is dropped.
    this.drained(number);
    this.tell(number, TELL.remove);
  }

  private tell(number: number, what: number): void {
    const { ready, tell } = this.registers.value;
    if (!ready || !this.running) return;
    tell[number] = tell[number]! | what;
    this.tellAll();
  }

  override readConfig(offset: number, size: number): number {
    const bytes = new Uint8Array(CONFIG_SIZE);
    put16(bytes, CONFIG.columns, 0);
    put16(bytes, CONFIG.rows, 0);
    put32(bytes, CONFIG.ports, this.ports.length);
    return readBytes(bytes, offset, size);
  }

  override writeConfig(offset: number, _size: number, value: number): void {
    if (offset === CONFIG.emergencyWrite && this.emergencyWrite) this.ports[0]?.backend?.write(Uint8Array.of(value));
  }

  protected deviceFeatures(): bigint {
    return featureSet(FEATURE.multiport, ...(this.emergencyWrite ? [FEATURE.emergencyWrite] : []));
  }

  protected override deviceState() {
    return this.registers;
  }

  protected override onReset(): void {
    this.registers.reset();
    this.blocked.fill(false);
  }

  protected override onActivate(): void {
    if (!this.has(FEATURE.multiport)) this.ports[0]?.backend?.resume();
  }

  protected override onLoad(): void {
    this.blocked.fill(false);
  }

  /** What the guest had written while the host was full. */
  override afterLoad(): void {
    if (this.running) this.ports.forEach((port, i) => port !== null && this.queues[receiveQueue(i) + 1]!.ready && this.send(i));
  }

  protected queueNotified(queue: Virtqueue): void {
    if (queue.index === CONTROL_SEND) return this.control(queue);
    if (queue.index === CONTROL_RECEIVE) return this.tellAll();
    const port = portOfQueue(queue.index);
    if (queue.index % 2 === 1) this.send(port);
    else this.ports[port]?.backend?.resume();
  }

  // --- Streams.

  private send(port: number): void {
    const queue = this.queues[receiveQueue(port) + 1]!;
    const backend = this.ports[port]?.backend ?? null;
    while (!this.blocked[port]) {
      const chain = queue.pop();
      if (chain === null) break;
      for (let done = 0; done < chain.readable && backend !== null; ) {
        const count = chain.read(done, this.piece, Math.min(PIECE, chain.readable - done));
        // A copy: what takes it may keep it. All of it is taken, full or not.
        if (!backend.write(this.piece.slice(0, count))) this.blocked[port] = true;
        done += count;
      }
      queue.push(chain, 0);
    }
    queue.flush();
  }

  private drained(port: number): void {
    this.blocked[port] = false;
    if (this.running) this.send(port);
  }

  /** @returns bytes that the guest had room for */
  private receive(port: number, data: Uint8Array): number {
    if (!this.running) return 0;
    if (this.has(FEATURE.multiport) && this.registers.value.open[port] === 0) return 0;
    const queue = this.queues[receiveQueue(port)]!;
    let done = 0;
    while (done < data.length) {
      const chain = queue.pop();
      if (chain === null) break;
      const count = chain.write(0, data.subarray(done));
      queue.push(chain, count);
      done += count;
      if (count === 0) break;
    }
    queue.flush();
    return done;
  }

  // --- Control.

  private control(queue: Virtqueue): void {
    const message = new Uint8Array(MESSAGE);
    const view = new DataView(message.buffer);
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
      if (chain.read(0, message) === MESSAGE) {
        this.told(view.getUint32(0, true), view.getUint16(4, true), view.getUint16(6, true));
      }
      queue.push(chain, 0);
    }
    queue.flush();
    this.tellAll();
  }

  private told(number: number, event: number, value: number): void {
    const { value: state } = this.registers;
    if (event === EVENT.deviceReady) {
      state.ready = value !== 0;
      this.ports.forEach((port, i) => {
        if (port !== null && state.ready) state.tell[i] = state.tell[i]! | TELL.add;
      });
      return;
    }
    const port = this.ports[number] ?? null;
    if (port === null) return;
    if (event === EVENT.portReady && value !== 0) {
      const name = port.name === '' ? 0 : TELL.name;
      const open = port.backend === null ? 0 : TELL.open;
      state.tell[number] = state.tell[number]! | (port.console ? TELL.console : 0) | name | open;
    }
    if (event !== EVENT.portOpen) return;
    state.open[number] = value === 0 ? 0 : 1;
    if (value !== 0) port.backend?.resume();
  }

  /** Sends what is to be told, for as long as there are buffers. */
  private tellAll(): void {
    const queue = this.queues[CONTROL_RECEIVE]!;
    const { tell } = this.registers.value;
    for (let number = 0; number < tell.length; number++) {
      for (let bit = 1; bit <= TELL.open && tell[number]! !== 0; bit <<= 1) {
        if ((tell[number]! & bit) === 0) continue;
        const chain = queue.pop();
        if (chain === null) return queue.flush();
        queue.push(chain, chain.write(0, this.message(number, bit)));
        tell[number] = tell[number]! & ~bit;
      }
    }
    queue.flush();
  }

  private message(number: number, bit: number): Uint8Array {
    const name = bit === TELL.name ? new TextEncoder().encode(this.ports[number]?.name ?? '') : new Uint8Array(0);
    const bytes = new Uint8Array(MESSAGE + name.length);
    const event = {
      [TELL.add]: EVENT.portAdd,
      [TELL.console]: EVENT.consolePort,
      [TELL.name]: EVENT.portName,
      [TELL.open]: EVENT.portOpen,
      [TELL.remove]: EVENT.portRemove,
    }[bit]!;
    put32(bytes, 0, number);
    put16(bytes, 4, event);
    put16(bytes, 6, 1);
    bytes.set(name, MESSAGE);
    return bytes;
  }
}
