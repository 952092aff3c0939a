/** For tests of cards: a network that remembers what was sent. */
import {
  type IoHandler,
  type MsiSink,
  NO_OFFLOADS,
  type NetworkPort,
  type Offloads,
  type PacketOffload,
} from '../../machine/interfaces.ts';
import { PciBus } from '../pci.ts';

export const ALL_OFFLOADS: Offloads = { checksum: true, tso4: true, tso6: true, ufo: true, uso: true };

export class TestNetwork implements NetworkPort {
  onReceive: NetworkPort['onReceive'] = null;
  onWritable: NetworkPort['onWritable'] = null;
  onLinkChange: NetworkPort['onLinkChange'] = null;
  linkUp = true;
  offloads = ALL_OFFLOADS;
  accepts = NO_OFFLOADS;
  room = Infinity;
  resumed = 0;
  readonly sent: { frame: Uint8Array; offload: PacketOffload | null }[] = [];

  send(frame: Uint8Array, offload: PacketOffload | null): boolean {
    if (this.room <= 0) return false;
    this.room--;
    this.sent.push({ frame: frame.slice(), offload: offload === null ? null : { ...offload } });
    return true;
  }

  resume(): void {
    this.resumed++;
  }

  close(): void {
    // Nothing to close.
  }
}

/** A bus that puts registers nowhere: they are found by their names. */
export function busOfNames(more: { messages?: MsiSink } = {}) {
  const handlers = new Map<string, IoHandler>();
  const place = (handler: IoHandler, name: string) => {
    handlers.set(name, handler);
    return { remove: () => void handlers.delete(name) };
  };
  const bus = new PciBus({
    memory: { addMmio: (_base, _size, handler, name) => place(handler, name) },
    ports: { register: (_base, _count, handler, name) => place(handler, name) },
    ...more,
  });
  return { bus, handlers };
}
