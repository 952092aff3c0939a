/** Input devices: virtio 1.2, section 5.8. Events are Linux's: type 16, code 16, value 32. */
import type { DeviceState, StateValue } from '../../machine/interfaces.ts';
import { StateBlock, type StateFields } from '../state.ts';
import { readBytes } from './config-space.ts';
import { VirtioDevice, type VirtioParts } from './device.ts';
import { DEVICE } from './features.ts';
import type { Virtqueue } from './queue.ts';

const QUEUE_SIZE = 64;
const EVENTS = 0;
/** Configuration (5.8.4): what is asked for, and the answer with its size. */
const CONFIG = { select: 0, subselect: 1, size: 2, data: 8 } as const;
const CONFIG_SIZE = 136;
const SELECT = { name: 1, serial: 2, ids: 3, properties: 0x10, events: 0x11, axis: 0x12 } as const;
const EVENT_SIZE = 8;
/** Events that are kept while the driver has no buffers; when there are more, all of a report are lost. */
const BACKLOG = 256;

/** Types and codes of events (Linux's input-event-codes). */
export const EV = { sync: 0, key: 1, relative: 2, absolute: 3, led: 0x11, repeat: 0x14 } as const;
export const REL = { x: 0, y: 1, wheel: 8 } as const;
export const ABS = { x: 0, y: 1 } as const;
export const BTN = {
  left: 0x110,
  right: 0x111,
  middle: 0x112,
  side: 0x113,
  extra: 0x114,
  gearDown: 0x150,
  gearUp: 0x151,
} as const;

export type InputDescription = {
  name: string;
  serial: string;
  /** Bus, vendor, product, version. */
  ids: readonly [number, number, number, number];
  /** Codes of the events that there are, by type. */
  events: Readonly<Record<number, readonly number[]>>;
  /** Ranges of absolute axes. */
  axes: Readonly<Record<number, readonly [least: number, most: number]>>;
};

export type InputEvent = { readonly type: number; readonly code: number; readonly value: number };

export class VirtioInput extends VirtioDevice {
  readonly deviceType = DEVICE.input;
  readonly configSize = CONFIG_SIZE;
  /** What the guest tells of its state, e.g. of lights on the keyboard. */
  onStatus: ((event: InputEvent) => void) | undefined;
  private readonly description: InputDescription;
  private readonly registers = new StateBlock('virtio-input', 1, () => ({ select: 0, subselect: 0 }));
  private waiting: InputEvent[] = [];

  constructor(parts: VirtioParts, description: InputDescription) {
    super(parts, [QUEUE_SIZE, QUEUE_SIZE]);
    this.description = description;
  }

  /** Sends what belongs together, with the mark that ends a report. */
  send(events: readonly InputEvent[]): void {
    if (!this.listens || this.waiting.length + events.length >= BACKLOG) return;
    this.waiting.push(...events, { type: EV.sync, code: 0, value: 0 });
    this.deliver();
  }

  /** The guest's driver is there. */
  get listens(): boolean {
    return this.running;
  }

  override readConfig(offset: number, size: number): number {
    const { select, subselect } = this.registers.value;
    const bytes = new Uint8Array(CONFIG_SIZE);
    const answer = this.answer(select, subselect).subarray(0, CONFIG_SIZE - CONFIG.data);
    bytes[CONFIG.select] = select;
    bytes[CONFIG.subselect] = subselect;
    bytes[CONFIG.size] = answer.length;
    bytes.set(answer, CONFIG.data);
    return readBytes(bytes, offset, size);
  }

  override writeConfig(offset: number, _size: number, value: number): void {
    if (offset === CONFIG.select) this.registers.value.select = value & 0xff;
    else if (offset === CONFIG.subselect) this.registers.value.subselect = value & 0xff;
  }

  protected deviceFeatures(): bigint {
    return 0n;
  }

  protected override deviceState() {
    return {
      save: (): DeviceState => {
        const state = this.registers.save();
        state.fields['waiting'] = this.waiting.map((event) => ({ ...event }));
        return state;
      },
      load: ({ version, fields }: DeviceState): void => {
        const { waiting, ...own } = fields;
        this.registers.load({ version, fields: own });
        this.waiting = this.checkEvents(waiting);
      },
    };
  }

  private checkEvents(saved: StateValue | undefined): InputEvent[] {
    const isEvent = (one: StateValue): boolean =>
      typeof one === 'object' && ['type', 'code', 'value'].every((name) => typeof (one as StateFields)[name] === 'number');
    if (Array.isArray(saved) && saved.length <= BACKLOG && saved.every(isEvent)) return saved as InputEvent[];
    throw new Error(`${this.id}: field "waiting" is not a list of events`);
  }

  protected override onReset(): void {
    this.registers.reset();
    this.waiting = [];
  }

  protected queueNotified(queue: Virtqueue): void {
    if (queue.index === EVENTS) return this.deliver();
    const bytes = new Uint8Array(EVENT_SIZE);
    const view = new DataView(bytes.buffer);
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
      if (chain.read(0, bytes) === EVENT_SIZE) {
        this.onStatus?.({ type: view.getUint16(0, true), code: view.getUint16(2, true), value: view.getInt32(4, true) });
      }
      queue.push(chain, 0);
    }
    queue.flush();
  }

  private deliver(): void {
    const queue = this.queues[EVENTS]!;
    const bytes = new Uint8Array(EVENT_SIZE);
    const view = new DataView(bytes.buffer);
    let done = 0;
    for (; done < this.waiting.length; done++) {
      const chain = queue.pop();
      if (chain === null) break;
      const { type, code, value } = this.waiting[done]!;
      view.setUint16(0, type, true);
      view.setUint16(2, code, true);
      view.setInt32(4, value, true);
      queue.push(chain, chain.write(0, bytes));
    }
    this.waiting.splice(0, done);
    queue.flush();
  }

  private answer(select: number, subselect: number): Uint8Array {
    const { name, serial, ids, events, axes } = this.description;
    switch (select) {
      case SELECT.name:
        return new TextEncoder().encode(name);
      case SELECT.serial:
        return new TextEncoder().encode(serial);
      case SELECT.ids:
        return new Uint8Array(Uint16Array.from(ids).buffer);
      case SELECT.events:
        return bitmap(events[subselect] ?? []);
      case SELECT.axis: {
        const range = axes[subselect];
        return range === undefined ? new Uint8Array(0) : new Uint8Array(Int32Array.of(range[0], range[1], 0, 0, 0).buffer);
      }
      default:
        return new Uint8Array(0);
    }
  }
}

function bitmap(codes: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(codes.length === 0 ? 0 : (Math.max(...codes) >> 3) + 1);
  for (const code of codes) bytes[code >> 3] = bytes[code >> 3]! | (1 << (code & 7));
  return bytes;
}
