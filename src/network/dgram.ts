/** A network of datagrams, one for each frame: between two, or for all who hear a group (`-netdev dgram`, `socket,udp=`, `socket,mcast=`). */
import type { Endpoint, HostDatagrams, HostNetwork } from '../host/network.ts';
import { NO_OFFLOADS, type PacketOffload } from '../machine/interfaces.ts';
import { sameAddress } from './address.ts';
import { Backend } from './backend.ts';
import { complete } from './offload.ts';

const MAC_SIZE = 6;

export interface DgramOptions {
  readonly local: Endpoint | null;
  readonly remote: Endpoint;
  readonly multicast: boolean;
}

export class DgramBackend extends Backend {
  readonly offloads = NO_OFFLOADS;
  private readonly socket: HostDatagrams;
  private readonly options: DgramOptions;
  /** The card's address: a group's datagrams come back to whoever sends them. */
  private readonly own = new Uint8Array(MAC_SIZE);

  /** @throws Error, one line */
  constructor(host: HostNetwork, options: DgramOptions, outcome: { onReady(): void; onFailure(error: Error): void }) {
    super();
    this.options = options;
    const { remote, local, multicast } = options;
    const address = 'address' in remote ? remote.address : '';
    const family = 'path' in remote ? 'unix' : address.includes(':') ? 6 : 4;
    const localAddress = local !== null && 'address' in local ? local.address : null;
    this.socket = host.datagrams(
      {
        family,
        // Everybody in a group has the group's port.
        bind: multicast && 'port' in remote ? { address: family === 6 ? '::' : '0.0.0.0', port: remote.port } : local,
        ...(multicast ? { multicast: { group: address, local: localAddress } } : {}),
      },
      { onData: (data) => this.receive(data) },
      outcome,
    );
  }

  get port(): number {
    return this.socket.port;
  }

  send(frame: Uint8Array, offload: PacketOffload | null): boolean {
    if (this.options.multicast) this.own.set(frame.subarray(MAC_SIZE, 2 * MAC_SIZE));
    complete(frame, offload, this.emit);
    return true;
  }

  override close(): void {
    super.close();
    this.socket.close();
  }

  private readonly emit = (frame: Uint8Array): void => this.socket.send(frame, this.options.remote);

  private receive(data: Uint8Array): void {
    if (this.options.multicast && sameAddress(data.subarray(MAC_SIZE, 2 * MAC_SIZE), this.own)) return;
    this.deliver(data);
  }
}
