/** A hub: what comes in by one port goes out by all others. */
import { NO_OFFLOADS, type PacketBackend, type PacketOffload } from '../machine/interfaces.ts';
import { Backend } from './backend.ts';

type Taker = { take(frame: Uint8Array): void };

export class Hub {
  private readonly ports: Taker[] = [];

  /** A port for a card. */
  port(): PacketBackend {
    const port = new HubPort((frame) => this.spread(port, frame));
    this.ports.push(port);
    return port;
  }

  /** Plugs another network in. */
  connect(network: PacketBackend): void {
    // What it cannot take is lost: nobody waits on a hub.
    const port: Taker = { take: (frame) => void network.send(frame, null) };
    this.ports.push(port);
    network.accepts = NO_OFFLOADS;
    network.onReceive = (frame) => {
      this.spread(port, frame);
      return true;
    };
  }

  private spread(from: Taker, frame: Uint8Array): void {
    for (const port of this.ports) if (port !== from) port.take(frame);
  }
}

class HubPort extends Backend implements Taker {
  readonly offloads = NO_OFFLOADS;
  private readonly spread: (frame: Uint8Array) => void;

  constructor(spread: (frame: Uint8Array) => void) {
    super();
    this.spread = spread;
  }

  send(frame: Uint8Array, _offload: PacketOffload | null): boolean {
    this.spread(frame);
    return true;
  }

  take(frame: Uint8Array): void {
    this.deliver(frame);
  }
}
