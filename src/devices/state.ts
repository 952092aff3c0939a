/**
 * A device's registers, declared once: the object that `powerOn` returns names every field and
 * gives its value after reset, and its shape is the schema that save and load follow.
 */
import type { DeviceState, StateValue, Timer } from '../machine/interfaces.ts';

export type StateFields = { [name: string]: StateValue };

/** Largest value allowed per top-level field; applies to each element of a list. */
export type Limits<T> = { readonly [K in keyof T]?: number };

/** The compiler takes a flag that starts as `false` for the literal; it is a boolean. */
type Widened<T> = { [K in keyof T]: T[K] extends boolean ? boolean : T[K] };

export class StateBlock<T extends StateFields> {
  readonly value: Widened<T>;
  private readonly id: string;
  private readonly version: number;
  private readonly powerOn: () => T;
  private readonly limits: Limits<T>;
  private readonly added: Partial<T>;
  private timers: { readonly [name: string]: Timer } = {};
  /** Deadlines of a state that has been loaded, by the timers' names. */
  private loaded: { readonly [name: string]: number } = {};

  /** @param added fields that states of before lack, with what they then are */
  constructor(id: string, version: number, powerOn: () => T, limits: Limits<T> = {}, added: Partial<T> = {}) {
    this.id = id;
    this.version = version;
    this.powerOn = powerOn;
    this.limits = limits;
    this.added = added;
    this.value = powerOn() as Widened<T>;
  }

  /** Puts every field back to its value after reset, keeping arrays and objects in place. */
  reset(): void {
    assignFields(this.value, this.powerOn());
  }

  /**
   * Timers that are armed now and then: when they are due is saved as a field `timers` (-1 for one that is not armed), since
   * what can be worked out from registers is not always when they would have fired.
   */
  keepTimers(timers: { readonly [name: string]: Timer }): void {
    this.timers = timers;
  }

  /** Arms the timers as they were; the last thing that is done to load a state. */
  armTimers(): void {
    for (const [name, timer] of Object.entries(this.timers)) {
      const deadline = this.loaded[name]!;
      if (deadline < 0) timer.cancel();
      else timer.arm(deadline);
    }
  }

  save(): DeviceState {
    const fields = cloneFields(this.value);
    const timers = Object.entries(this.timers);
    if (timers.length > 0) fields['timers'] = Object.fromEntries(timers.map(([name, timer]) => [name, savedDeadline(timer)]));
    return { version: this.version, fields };
  }

  load(state: DeviceState): void {
    if (state.version !== this.version) {
      throw new Error(`${this.id}: saved state has version ${state.version}, this device has ${this.version}`);
    }
    const limits = this.limits as { readonly [name: string]: number | undefined };
    const { timers, ...fields } = state.fields;
    const timed = Object.keys(this.timers).length > 0;
    const own: StateFields = { ...this.added, ...(timed ? fields : state.fields) };
    for (const name of Object.keys(own)) {
      if (!Object.hasOwn(this.value, name)) {
        throw new Error(`${this.id}: field "${name}" is not known`);
      }
    }
    for (const [name, model] of Object.entries(this.value)) {
      this.check(name, model, own[name], limits[name]);
    }
    if (timed) this.loaded = this.checkTimers(timers);
    assignFields(this.value, cloneFields(own));
  }

  private checkTimers(saved: StateValue | undefined): { [name: string]: number } {
    const model = Object.fromEntries(Object.keys(this.timers).map((name) => [name, 0]));
    this.check('timers', model, saved);
    const deadlines = saved as { [name: string]: number };
    for (const [name, at] of Object.entries(deadlines)) {
      if (at < -1) throw this.bad(`timers.${name}`, `is ${at}, which is no time`);
    }
    return deadlines;
  }

  /** Everything is checked before anything is assigned: a bad state leaves the device as it was. */
  private check(path: string, model: StateValue, value: StateValue | undefined, max?: number): void {
    if (value === undefined) throw this.bad(path, 'is missing');
    const want = kindOf(model);
    if (kindOf(value) !== want) throw this.bad(path, `should be a ${want}, is a ${kindOf(value)}`);
    if (typeof value === 'number') this.checkNumber(path, value, max);
    if (model instanceof Uint8Array && value instanceof Uint8Array) {
      this.checkLength(path, model.length, value.length);
    } else if (Array.isArray(model) && Array.isArray(value)) {
      this.checkLength(path, model.length, value.length);
      model.forEach((item, i) => this.check(`${path}[${i}]`, item, value[i], max));
    } else if (want === 'record') {
      const record = value as StateFields;
      for (const [name, item] of Object.entries(model as StateFields)) {
        this.check(`${path}.${name}`, item, record[name], max);
      }
    }
  }

  private checkNumber(path: string, value: number, max?: number): void {
    if (!Number.isFinite(value)) throw this.bad(path, 'is not a finite number');
    if (max !== undefined && (!Number.isInteger(value) || value < 0 || value > max)) {
      throw this.bad(path, `is ${value}, outside 0 to ${max}`);
    }
  }

  private checkLength(path: string, want: number, got: number): void {
    if (want !== got) throw this.bad(path, `has ${got} elements instead of ${want}`);
  }

  private bad(path: string, what: string): Error {
    return new Error(`${this.id}: field "${path}" ${what}`);
  }
}

const savedDeadline = ({ deadline }: Timer): number => (deadline === Infinity ? -1 : deadline);

function kindOf(value: StateValue): string {
  if (value instanceof Uint8Array) return 'byte string';
  if (Array.isArray(value)) return 'list';
  return typeof value === 'object' ? 'record' : typeof value;
}

function cloneValue(value: StateValue): StateValue {
  if (value instanceof Uint8Array) return value.slice();
  if (Array.isArray(value)) return value.map(cloneValue);
  return typeof value === 'object' ? cloneFields(value) : value;
}

function cloneFields(fields: StateFields): StateFields {
  const copy: StateFields = {};
  for (const [name, value] of Object.entries(fields)) copy[name] = cloneValue(value);
  return copy;
}

/** Copies values of equal shape; devices may keep references to nested records and arrays. */
function assignFields(into: StateFields, from: StateFields): void {
  for (const name of Object.keys(into)) into[name] = assignValue(into[name]!, from[name]!);
}

function assignValue(into: StateValue, from: StateValue): StateValue {
  if (into instanceof Uint8Array) {
    into.set(from as Uint8Array);
  } else if (Array.isArray(into)) {
    const list = from as StateValue[];
    for (let i = 0; i < into.length; i++) into[i] = assignValue(into[i]!, list[i]!);
  } else if (typeof into === 'object') {
    assignFields(into, from as StateFields);
  } else {
    return from;
  }
  return into;
}
