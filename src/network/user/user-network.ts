/**
 * A network in which the guest has the host for its gateway (QEMU's user mode): what the guest sends ends here and
 * goes on by the host's ordinary sockets.
 *
 *     card -- frames --> UserNetwork --> Arp
 *                                   \--> Ipv4, Ipv6 --> Icmp, Icmpv6
 *                                                  \--> Udp --> DHCP, TFTP, sockets
 *                                                  \--> Tcp --> Connection <--> socket
 *          <-- frames -- Link <-- everybody
 */
import type { HostNetwork, StreamEvents } from '../../host/network.ts';
import {
  GSO_NONE,
  GSO_UDP_DATAGRAMS,
  type Offloads,
  type PacketBackend,
  type PacketOffload,
  type VirtualClock,
} from '../../machine/interfaces.ts';
import { sameAddress, type IpAddress } from '../address.ts';
import {
  ETH_SIZE,
  ETH_TYPE,
  FRAME_MAX,
  get16,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TYPE_ARP,
  TYPE_IPV4,
  TYPE_IPV6,
} from '../layout.ts';
import { Arp } from './arp.ts';
import type { HostForward, UserPlan } from '../../machine/network-config.ts';
import { DhcpServer } from './dhcp.ts';
import { Dhcpv6Server } from './dhcpv6.ts';
import type { NetworkFlow } from './flows.ts';
import { HostForwards, openGuestForward } from './forward.ts';
import { Icmp } from './icmp.ts';
import { Icmpv6 } from './icmpv6.ts';
import { Ipv4 } from './ipv4.ts';
import { Ipv6 } from './ipv6.ts';
import { Link, MAC_IPV4, MAC_IPV6, MAC_PREFIX } from './link.ts';
import { Outside } from './outside.ts';
import type { IpLayer, Packet } from './packet.ts';
import { PingRelay } from './ping.ts';
import { Tcp } from './tcp/tcp.ts';
import { TftpServer } from './tftp.ts';
import { Udp } from './udp.ts';

const ALL: Offloads = { checksum: true, tso4: true, tso6: true, ufo: true, uso: true };
/** Frames that come while one is being delivered: a hub may lead answers straight back. */
const MAX_LATER = 256;

type Ipv4Parts = { readonly ip: Ipv4; readonly arp: Arp; readonly icmp: Icmp; readonly ping: PingRelay | null };
type Ipv6Parts = { readonly ip: Ipv6; readonly icmp: Icmpv6; readonly ping: PingRelay | null };

export interface UserNetworkParts {
  readonly plan: UserPlan;
  readonly host: HostNetwork;
  readonly clock: VirtualClock;
  /** 32 bits nobody can guess. */
  readonly random: () => number;
}

export class UserNetwork implements PacketBackend {
  readonly offloads = ALL;
  onWritable: (() => void) | null = null;
  readonly forwards: HostForwards;
  /** Addresses of guests, which outlive connections. */
  readonly dhcp: DhcpServer | null;
  private readonly plan: UserPlan;
  private readonly host: HostNetwork;
  private readonly clock: VirtualClock;
  private readonly link: Link;
  private readonly udp: Udp;
  private readonly tcp: Tcp;
  private readonly v4: Ipv4Parts | null;
  private readonly v6: Ipv6Parts | null;
  private readonly tftp: TftpServer | null;
  /** Of the packet that is being handled, see `Packet.datagramSize`. */
  private datagramSize = 0;
  private closed = false;
  private readonly later: { frame: Uint8Array; offload: PacketOffload | null }[] = [];

  /** @throws Error, one line, when the folder for TFTP is not there */
  constructor({ plan, host, clock, random }: UserNetworkParts) {
    this.plan = plan;
    this.host = host;
    this.clock = clock;
    this.link = new Link((address) => (address.length === 4 ? this.v4?.arp.ask(address) : this.v6?.icmp.ask(address)));
    const outside = new Outside(plan, () => host.resolvers());
    this.udp = new Udp(host, outside, clock);
    this.tcp = new Tcp(clock, (destination, port, events) => this.connect(outside, destination, port, events), random);
    this.link.onRoom = () => this.tcp.onRoom(this.link);
    this.v4 = plan.ipv4 === null ? null : this.makeIpv4();
    this.v6 = plan.ipv6 === null ? null : this.makeIpv6();
    this.dhcp = this.v4 === null ? null : new DhcpServer(plan, this.v4.ip, this.udp);
    if (this.v6 !== null) new Dhcpv6Server(plan, this.v6.ip, this.udp);
    this.tftp = plan.tftp === null ? null : new TftpServer(host.folder(plan.tftp), this.udp, clock);
    this.forwards = new HostForwards({
      plan,
      network: host,
      outside,
      tcp: this.tcp,
      udp: this.udp,
      ip: (family): IpLayer | null => (family === 4 ? this.v4 : this.v6)?.ip ?? null,
    });
  }

  get onReceive(): PacketBackend['onReceive'] {
    return this.link.receiver;
  }

  set onReceive(receiver: PacketBackend['onReceive']) {
    this.link.receiver = receiver;
  }

  get accepts(): Offloads {
    return this.link.accepts;
  }

  set accepts(offloads: Offloads) {
    this.link.accepts = offloads;
  }

  /** Connections of TCP that there are, for whoever looks. */
  get connections(): number {
    return this.tcp.connections;
  }

  /** What is being carried, for whoever looks. */
  flows(): NetworkFlow[] {
    return [...this.forwards.flows(), ...this.tcp.flows(), ...this.udp.flows()];
  }

  /** Opens a forwarding of the plan's, or one that was asked for later. @throws Error, one line */
  addForward(forward: HostForward, outcome: { onReady(): void; onFailure(error: Error): void }): void {
    this.forwards.add(forward, outcome);
  }

  send(frame: Uint8Array, offload: PacketOffload | null): boolean {
    if (this.closed) return true;
    if (this.link.delivering) {
      // Whoever sends just now has not taken account of what it sent.
      if (this.later.length === 0) queueMicrotask(() => this.inputLater());
      if (this.later.length < MAX_LATER) this.later.push({ frame: frame.slice(), offload: offload && { ...offload } });
      return true;
    }
    this.input(frame, offload);
    this.inputLater();
    return true;
  }

  resume(): void {
    this.link.resume();
  }

  close(): void {
    this.closed = true;
    this.forwards.close();
    this.tcp.close();
    this.udp.close();
    this.v4?.ping?.close();
    this.v6?.ping?.close();
    this.v6?.icmp.close();
    this.tftp?.close();
    this.link.close();
  }

  private inputLater(): void {
    for (let next = this.later.shift(); next !== undefined; next = this.later.shift()) this.input(next.frame, next.offload);
  }

  private input(frame: Uint8Array, offload: PacketOffload | null): void {
    if (frame.length < ETH_SIZE || frame.length > FRAME_MAX || !isForNetwork(frame)) return;
    // What is still to be summed has not been on any wire.
    const trusted = offload !== null && offload.checksumStart >= 0;
    this.datagramSize = offload?.gso === GSO_UDP_DATAGRAMS ? offload.segmentSize : 0;
    switch (get16(frame, ETH_TYPE)) {
      case TYPE_ARP:
        return this.v4?.arp.input(frame);
      case TYPE_IPV4:
        return this.v4?.ip.input(frame, trusted || (offload !== null && offload.gso !== GSO_NONE));
      case TYPE_IPV6:
        return this.v6?.ip.input(frame, trusted || (offload !== null && offload.gso !== GSO_NONE));
    }
  }

  private deliver(packet: Packet): void {
    packet.datagramSize = this.datagramSize;
    switch (packet.protocol) {
      case PROTOCOL_TCP:
        return this.tcp.input(packet);
      case PROTOCOL_UDP:
        return this.udp.input(packet);
      case PROTOCOL_ICMP:
        return packet.ip === this.v4?.ip ? this.v4.icmp.input(packet) : undefined;
      case PROTOCOL_ICMPV6:
        return packet.ip === this.v6?.ip ? this.v6.icmp.input(packet) : undefined;
    }
  }

  private makeIpv4(): Ipv4Parts {
    const { plan, link, clock } = this;
    const ipv4 = plan.ipv4!;
    const ip = new Ipv4(
      ipv4,
      link,
      clock,
      (packet) => this.deliver(packet),
      (_, packet, why) => icmp.error(packet, why),
    );
    const ping = this.makePing(
      () => ip,
      (from, to, message) => icmp.reply(from, to, message),
    );
    const icmp = new Icmp(ip, ping);
    const servers = plan.guestForwards.map(({ address }) => address);
    const own = [ipv4.host, ipv4.dns, ...servers];
    const arp = new Arp(ipv4, link, (address) => own.some((one) => sameAddress(one, address)));
    return { ip, arp, icmp, ping };
  }

  private makeIpv6(): Ipv6Parts {
    const { plan, link, clock } = this;
    const ip = new Ipv6(
      plan.ipv6!,
      link,
      clock,
      (packet) => this.deliver(packet),
      (_, packet, why) => icmp.error(packet, why),
    );
    const ping = this.makePing(
      () => ip,
      (from, to, message) => icmp.reply(from, to, message),
    );
    const icmp = new Icmpv6(ip, clock, ping, plan.restrict);
    return { ip, icmp, ping };
  }

  private makePing(ip: () => IpLayer, reply: (from: IpAddress, to: IpAddress, message: Uint8Array) => void) {
    return this.plan.restrict ? null : new PingRelay(ip, this.host, this.clock, reply);
  }

  private connect(outside: Outside, destination: IpAddress, port: number, events: StreamEvents) {
    const { host } = this;
    const forwarded = openGuestForward(this.plan.guestForwards, host, destination, port, events);
    if (forwarded !== null) return forwarded;
    const route = outside.route(destination);
    if ('obstacle' in route) return route;
    return host.connect({ address: route.address, port }, null, events);
  }
}

/** To all, to some, or to one of the network's own hosts: on a hub, guests talk to each other, too. */
const isForNetwork = (frame: Uint8Array): boolean =>
  (frame[0]! & 1) !== 0 || (frame[0] === MAC_PREFIX && (frame[1] === MAC_IPV4 || frame[1] === MAC_IPV6));
