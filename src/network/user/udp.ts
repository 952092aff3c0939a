/** UDP (RFC 768): datagrams are made into the host's and back; each port of the guest's has a socket. */
import type { HostDatagrams, HostNetwork, NetworkFailure } from '../../host/network.ts';
import type { Timer, VirtualClock } from '../../machine/interfaces.ts';
import { formatIp, sameAddress, type IpAddress } from '../address.ts';
import { get16, get32, PROTOCOL_UDP, put16, UDP_SIZE } from '../layout.ts';
import type { NetworkFlow } from './flows.ts';
import type { Outside } from './outside.ts';
import { type IpLayer, type Obstacle, Packet, seal, sealFully } from './packet.ts';

/** Sockets at a time; the one that was longest idle makes room for a new one. */
const MAX_FLOWS = 512;
/** Addresses that one socket remembers the guest's view of. */
const MAX_VIEWS = 64;
const DNS_PORT = 53;
/** Nanoseconds without a datagram after which a socket is closed: usually, and after questions for a name. */
const IDLE = 240e9;
const IDLE_DNS = 10e9;
const SWEEP = 5e9;
const MAX_PAYLOAD = 65507;
/** Of a packet that could not be delivered, its sender is shown this much. */
const QUOTE = 128;

const OBSTACLES: Record<NetworkFailure, Obstacle | null> = {
  refused: 'port',
  unreachable: 'network',
  'timed-out': 'host',
  reset: 'port',
  other: null,
};

class Flow {
  readonly ip: IpLayer;
  readonly guest: IpAddress;
  readonly port: number;
  socket!: HostDatagrams;
  last = 0;
  idle = IDLE;
  /** Addresses of the host's world as the guest knows them. */
  readonly views = new Map<string, IpAddress>();
  /** The packet that was sent last, for errors. */
  readonly sent = new Uint8Array(QUOTE);
  sentLength = 0;
  /** Whom the guest has written to last. */
  correspondent: { readonly address: IpAddress; readonly port: number } | null = null;

  constructor(ip: IpLayer, guest: IpAddress, port: number) {
    this.ip = ip;
    this.guest = guest;
    this.port = port;
  }
}

/** A server within the network. @returns whether the datagram was for it */
export type UdpService = (packet: Packet, sourcePort: number, port: number, data: Uint8Array) => boolean;

export class Udp {
  private readonly network: HostNetwork;
  private readonly outside: Outside;
  private readonly clock: VirtualClock;
  private readonly services: UdpService[] = [];
  /** The last used is last. */
  private readonly flowsByPort = new Map<number | string, Flow>();
  /** Flows that were set up for the guest's servers, which stay. */
  private readonly forwards = new Map<number | string, Flow>();
  private readonly timer: Timer;

  constructor(network: HostNetwork, outside: Outside, clock: VirtualClock) {
    this.network = network;
    this.outside = outside;
    this.clock = clock;
    this.timer = clock.timer((now) => this.sweep(now));
  }

  serve(service: UdpService): void {
    this.services.push(service);
  }

  input(packet: Packet): void {
    const { bytes, start, end } = packet;
    if (end - start < UDP_SIZE) return;
    const length = get16(bytes, start + 4);
    // Several datagrams in one packet have the length of one, or of all.
    const stop = packet.datagramSize > 0 ? end : start + length;
    if (stop > end || stop < start + UDP_SIZE) return;
    packet.end = stop;
    const unchecked = packet.ip.family === 4 && get16(bytes, start + 6) === 0;
    if (!unchecked && !packet.intact()) return;
    const from = get16(bytes, start);
    const to = get16(bytes, start + 2);
    const size = packet.datagramSize > 0 ? packet.datagramSize : Infinity;
    let at = start + UDP_SIZE;
    do {
      const next = Math.min(at + size, stop);
      this.datagram(packet, from, to, bytes.subarray(at, next));
      at = next;
    } while (at < stop);
  }

  /** Sends the guest a datagram. */
  send(ip: IpLayer, from: IpAddress, fromPort: number, to: IpAddress, toPort: number, data: Uint8Array): void {
    if (data.length > MAX_PAYLOAD) return;
    const { frame } = ip.link;
    const at = ip.payloadAt;
    const length = UDP_SIZE + data.length;
    put16(frame, at, fromPort);
    put16(frame, at + 2, toPort);
    put16(frame, at + 4, length);
    frame.set(data, at + UDP_SIZE);
    if (length <= ip.room) ip.output(PROTOCOL_UDP, from, to, length, seal(ip, from, to, PROTOCOL_UDP, length, 6));
    else {
      sealFully(ip, from, to, PROTOCOL_UDP, length, 6);
      ip.output(PROTOCOL_UDP, from, to, length, false);
    }
  }

  /**
   * Datagrams that arrive at a socket of the host's go to a port of the guest's, whose answers leave by that socket.
   * @param open makes the socket, given what to do with datagrams
   */
  forward(
    ip: IpLayer,
    guest: IpAddress,
    port: number,
    open: (onData: (data: Uint8Array, address: string, port: number) => void) => HostDatagrams,
  ): HostDatagrams {
    const flow = new Flow(ip, guest, port);
    flow.socket = open((data, address, from) => this.arrived(flow, data, address, from));
    this.forwards.set(keyOf(guest, port), flow);
    return flow.socket;
  }

  flows(): NetworkFlow[] {
    const now = this.clock.now();
    return [...this.flowsByPort.values()].map(({ guest, port, last, idle, correspondent }) => ({
      protocol: 'UDP',
      state: `${Math.max(0, Math.round((idle - (now - last)) / 1e9))} sec`,
      source: [formatIp(guest), port],
      destination: [correspondent === null ? '*' : formatIp(correspondent.address), correspondent?.port ?? 0],
      toHost: 0,
      toGuest: 0,
    }));
  }

  close(): void {
    for (const { socket } of [...this.flowsByPort.values(), ...this.forwards.values()]) socket.close();
    this.flowsByPort.clear();
    this.forwards.clear();
    this.timer.cancel();
  }

  private datagram(packet: Packet, from: number, to: number, data: Uint8Array): void {
    for (const service of this.services) if (service(packet, from, to, data)) return;
    const destination = packet.destination;
    const forward = this.forwards.get(keyOf(packet.source, from));
    if (forward !== undefined && answered(forward, destination, to, data)) return;
    const route = this.outside.route(destination);
    if ('obstacle' in route) {
      // A network that is shut off keeps silent, as a cable that leads nowhere.
      if (route.obstacle !== null && route.obstacle !== 'prohibited') packet.ip.refuse(packet, route.obstacle);
      return;
    }
    if (packet.hops <= 1) return packet.ip.refuse(packet, 'time');
    const { address } = route;
    const flow = this.flow(packet, from, address);
    if (flow === null) return packet.ip.refuse(packet, 'host');
    this.remember(flow, packet, address, destination);
    flow.last = this.clock.now();
    flow.correspondent = { address: destination, port: to };
    flow.idle = to === DNS_PORT ? IDLE_DNS : IDLE;
    flow.socket.send(data, { address, port: to });
  }

  private flow({ source, ip }: Packet, port: number, address: string): Flow | null {
    const family = address.includes(':') ? 6 : 4;
    const base = keyOf(source, port);
    const key = family === ip.family ? base : `${base}/${family}`;
    const known = this.flowsByPort.get(key);
    if (known !== undefined) {
      this.flowsByPort.delete(key);
      this.flowsByPort.set(key, known);
      return known;
    }
    if (this.flowsByPort.size >= MAX_FLOWS) this.drop(this.flowsByPort.keys().next().value!);
    const flow = new Flow(ip, source, port);
    try {
      flow.socket = this.network.datagrams(
        { family, bind: null },
        {
          onData: (data, from, fromPort) => this.arrived(flow, data, from, fromPort),
          onFailure: (failure) => this.failed(flow, failure),
        },
        { onFailure: () => this.drop(key) },
      );
    } catch {
      return null;
    }
    this.flowsByPort.set(key, flow);
    if (this.timer.deadline === Infinity) this.timer.arm(this.clock.now() + SWEEP);
    return flow;
  }

  private remember(flow: Flow, { bytes, header, end }: Packet, address: string, destination: IpAddress): void {
    if (flow.views.size >= MAX_VIEWS && !flow.views.has(address)) flow.views.clear();
    flow.views.set(address, destination);
    flow.sentLength = Math.min(QUOTE, end - header);
    flow.sent.set(bytes.subarray(header, header + flow.sentLength));
  }

  private arrived(flow: Flow, data: Uint8Array, address: string, port: number): void {
    let from = flow.views.get(address);
    if (from === undefined) {
      const view = this.outside.view(address, flow.ip.family);
      if (view === null) return;
      from = view;
      if (flow.views.size >= MAX_VIEWS) flow.views.clear();
      flow.views.set(address, view);
    }
    flow.last = this.clock.now();
    this.send(flow.ip, from, port, flow.guest, flow.port, data);
  }

  private failed(flow: Flow, failure: NetworkFailure): void {
    const why = OBSTACLES[failure];
    if (why === null || flow.sentLength === 0) return;
    const { ip } = flow;
    const packet = new Packet();
    packet.ip = ip;
    packet.bytes = flow.sent;
    packet.header = 0;
    packet.addresses = ip.family === 4 ? 12 : 8;
    packet.start = ip.family === 4 ? 4 * (flow.sent[0]! & 15) : 40;
    packet.end = flow.sentLength;
    packet.protocol = PROTOCOL_UDP;
    ip.refuse(packet, why);
  }

  private sweep(now: number): void {
    for (const [key, { last, idle }] of this.flowsByPort) if (now - last >= idle) this.drop(key);
    if (this.flowsByPort.size > 0) this.timer.arm(now + SWEEP);
  }

  private drop(key: number | string): void {
    this.flowsByPort.get(key)?.socket.close();
    this.flowsByPort.delete(key);
  }
}

/** Whoever has sent a forwarded port something is answered by the same socket, also when all else is shut off. */
function answered({ views, socket }: Flow, to: IpAddress, port: number, data: Uint8Array): boolean {
  for (const [address, view] of views) {
    if (!sameAddress(view, to)) continue;
    socket.send(data, { address, port });
    return true;
  }
  return false;
}

const keyOf = (address: IpAddress, port: number): number | string =>
  address.length === 4 ? get32(address, 0) * 65536 + port : `${address.join()},${port}`;
