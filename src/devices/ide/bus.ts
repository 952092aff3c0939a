/** A cable or a port that IDE drives are plugged into. */
import type { DeviceBus } from '../device-type.ts';
import type { AtaDevice } from './ata.ts';

/** Whatever IDE drives are attached to, by its places: two to a parallel channel, one to a port of an AHCI. */
export interface IdeController {
  attach(device: AtaDevice, place: number): void;
}

export class IdeBus implements DeviceBus {
  readonly kind = 'IDE';
  readonly name: string;
  private readonly controller: IdeController;
  private readonly number: number;
  private readonly units: (AtaDevice | null)[];

  constructor(name: string, controller: IdeController, number: number, units: number) {
    this.name = name;
    this.controller = controller;
    this.number = number;
    this.units = new Array<AtaDevice | null>(units).fill(null);
  }

  get full(): boolean {
    return !this.units.includes(null);
  }

  /** @param unit null for the first free one @throws Error when it is not to be had */
  plug(device: AtaDevice, unit: number | null): void {
    const at = unit ?? this.units.indexOf(null);
    if (at < 0) throw new Error(`IDE bus '${this.name}' has no free unit`);
    if (at >= this.units.length) throw new Error(`Can't create IDE unit ${at}, bus supports only ${this.units.length} units`);
    if (this.units[at] != null) throw new Error(`IDE unit ${at} is in use`);
    this.units[at] = device;
    this.controller.attach(device, this.number * this.units.length + at);
  }

  unit(index: number): AtaDevice | null {
    return this.units[index] ?? null;
  }

  /** Below the controller, as Open Firmware names it. */
  bootPath(device: unknown): string | null {
    const unit = this.units.indexOf(device as AtaDevice);
    return unit < 0 ? null : `/drive@${this.number}/disk@${unit}`;
  }
}

/** All buses of a controller, named `name.0` and so on. */
export function ideBuses(name: string, controller: IdeController, count: number, units: number): IdeBus[] {
  return Array.from({ length: count }, (_, i) => new IdeBus(`${name}.${i}`, controller, i, units));
}
