/** What is let into the network, and servers within it that programs of the host's play. */
import type { HostNetwork, HostStream, Listener, StreamEvents, HostDatagrams } from '../../host/network.ts';
import { formatIp, sameAddress, type IpAddress } from '../address.ts';
import type { GuestForward, HostForward, UserPlan } from '../../machine/network-config.ts';
import type { NetworkFlow } from './flows.ts';
import type { Outside } from './outside.ts';
import type { IpLayer } from './packet.ts';
import type { Tcp } from './tcp/tcp.ts';
import type { Udp } from './udp.ts';

/** Clients of Unix sockets have no port: they are given some from here on. */
const FIRST_PORT = 49152;

export interface ForwardParts {
  readonly plan: UserPlan;
  readonly network: HostNetwork;
  readonly outside: Outside;
  readonly tcp: Tcp;
  readonly udp: Udp;
  readonly ip: (family: 4 | 6) => IpLayer | null;
}

export class HostForwards {
  private readonly parts: ForwardParts;
  private readonly open: { forward: HostForward; socket: Listener | HostDatagrams }[] = [];
  private nextPort = FIRST_PORT;

  constructor(parts: ForwardParts) {
    this.parts = parts;
  }

  /** @param outcome told once whether the socket could be had @throws Error, one line */
  add(forward: HostForward, outcome: { onReady(): void; onFailure(error: Error): void }): void {
    const guest = forward.guest ?? this.parts.plan.ipv4?.dhcpStart ?? null;
    const ip = guest === null ? null : this.parts.ip(guest.length === 4 ? 4 : 6);
    if (guest === null || ip === null) throw new Error('the network has no addresses of that kind');
    const socket = forward.protocol === 'tcp' ? this.tcp(forward, ip, guest, outcome) : this.udp(forward, ip, guest, outcome);
    this.open.push({ forward, socket });
  }

  /** @returns false when nothing is forwarded from there */
  remove(protocol: 'tcp' | 'udp', at: HostForward['at']): boolean {
    const index = this.open.findIndex(
      ({ forward }) => forward.protocol === protocol && JSON.stringify(forward.at) === JSON.stringify(at),
    );
    if (index < 0) return false;
    this.open.splice(index, 1)[0]!.socket.close();
    return true;
  }

  /** Ports of the host's, in the order in which they were added. */
  get ports(): number[] {
    return this.open.map(({ socket }) => socket.port);
  }

  /** What is let in, for whoever looks. */
  flows(): NetworkFlow[] {
    return this.open.map(({ forward, socket }) => {
      const { protocol, at, guest, port } = forward;
      const address = 'path' in at ? at.path : at.address === '0.0.0.0' ? '*' : at.address;
      const to = guest ?? this.parts.plan.ipv4?.dhcpStart;
      return {
        protocol: protocol === 'tcp' ? 'TCP' : 'UDP',
        state: 'HOST_FORWARD',
        source: [address, socket.port],
        destination: [to === undefined ? '*' : formatIp(to), port],
        toHost: 0,
        toGuest: 0,
      };
    });
  }

  close(): void {
    for (const { socket } of this.open) socket.close();
    this.open.length = 0;
  }

  private tcp(
    { at, port }: HostForward,
    ip: IpLayer,
    guest: IpAddress,
    outcome: { onReady(): void; onFailure(error: Error): void },
  ): Listener {
    return this.parts.network.listen(
      at,
      (accepted) => {
        const { peer } = accepted;
        const address = peer === null ? ip.self : this.parts.outside.view(peer.address, ip.family);
        if (address === null) return accepted.refuse();
        this.parts.tcp.forward(ip, guest, port, address, peer?.port ?? this.port(), accepted);
      },
      outcome,
    );
  }

  private port(): number {
    const port = this.nextPort;
    this.nextPort = port === 65535 ? FIRST_PORT : port + 1;
    return port;
  }

  private udp(
    { at, port }: HostForward,
    ip: IpLayer,
    guest: IpAddress,
    outcome: { onReady(): void; onFailure(error: Error): void },
  ): HostDatagrams {
    const family = 'address' in at && at.address.includes(':') ? 6 : 4;
    return this.parts.udp.forward(ip, guest, port, (onData) =>
      this.parts.network.datagrams({ family, bind: at }, { onData }, outcome),
    );
  }
}

/** @returns the server's stream, or null when nobody plays that server */
export function openGuestForward(
  forwards: readonly GuestForward[],
  network: HostNetwork,
  destination: IpAddress,
  port: number,
  events: StreamEvents,
): HostStream | null {
  const found = forwards.find((one) => one.port === port && sameAddress(one.address, destination));
  if (found === undefined) return null;
  if ('command' in found.to) return network.command(found.to.command, events);
  return network.connect(found.to, null, events);
}
