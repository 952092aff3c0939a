/** The place in a host controller that takes one card. */
import type { DeviceBus } from '../device-type.ts';
import type { SdCard } from './card.ts';

export class SdBus implements DeviceBus {
  readonly kind = 'sd-bus';
  readonly name = 'sd-bus';
  card: SdCard | null = null;

  get full(): boolean {
    return this.card !== null;
  }

  /** @throws Error when there is a card already */
  plug(card: SdCard): void {
    if (this.card !== null) throw new Error(`Bus '${this.name}' is full`);
    this.card = card;
  }
}
