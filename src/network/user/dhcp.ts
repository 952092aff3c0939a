/** The DHCP server (RFC 2131, 2132): sixteen addresses, each for one MAC. */
import { sameAddress, type IpAddress } from '../address.ts';
import { get32, put32 } from '../layout.ts';
import type { UserPlan, Ipv4Plan } from '../../machine/network-config.ts';
import type { Ipv4 } from './ipv4.ts';
import { MAC_SIZE } from './link.ts';
import type { Udp } from './udp.ts';

/*
 * 0 operation   1 hardware type   2 its address length   4 transaction   10 flags   12 client's address
 * 16 "your" address   20 next server   24 relay   28 hardware address   44 server name   108 file   236 options
 */
const YOUR_ADDRESS = 16;
const NEXT_SERVER = 20;
const CLIENT_MAC = 28;
const FILE = 108;
const FILE_SIZE = 128;
const OPTIONS = 236;
const MAGIC = 0x6382_5363;
/** What clients can take at least (RFC 2131, 2), without the headers of IP and UDP. */
const REPLY_SIZE = 548;

const SERVER_PORT = 67;
const CLIENT_PORT = 68;
const ADDRESSES = 16;
const LEASE_SECONDS = 86400;

const DISCOVER = 1;
const OFFER = 2;
const REQUEST = 3;
const ACK = 5;
const NAK = 6;
const RELEASE = 7;
const INFORM = 8;

const OPTION_MASK = 1;
const OPTION_ROUTER = 3;
const OPTION_DNS = 6;
const OPTION_HOSTNAME = 12;
const OPTION_DOMAIN = 15;
const OPTION_REQUESTED = 50;
const OPTION_LEASE = 51;
const OPTION_TYPE = 53;
const OPTION_SERVER = 54;
const OPTION_MESSAGE = 56;
const OPTION_TFTP_SERVER = 66;
const OPTION_SEARCH = 119;
const OPTION_END = 255;

const ALL_ONES = Uint8Array.of(255, 255, 255, 255);

export class DhcpServer {
  private readonly plan: UserPlan;
  private readonly ipv4: Ipv4Plan;
  private readonly ip: Ipv4;
  private readonly udp: Udp;
  /** Who has which address, the first one first. */
  private readonly leases: (Uint8Array | null)[] = Array(ADDRESSES).fill(null);

  constructor(plan: UserPlan, ip: Ipv4, udp: Udp) {
    this.plan = plan;
    this.ipv4 = ip.plan;
    this.ip = ip;
    this.udp = udp;
    udp.serve((packet, _from, port, data) => {
      if (packet.ip !== ip || port !== SERVER_PORT) return false;
      const to = packet.destination;
      if (!sameAddress(to, ip.self) && !sameAddress(to, ALL_ONES)) return false;
      this.input(data);
      return true;
    });
  }

  /** By the addresses' places: who has which, no bytes for nobody. */
  saveLeases(): Uint8Array[] {
    return this.leases.map((holder) => holder?.slice() ?? new Uint8Array(0));
  }

  loadLeases(saved: readonly Uint8Array[]): void {
    this.leases.forEach((_, i) => {
      const mac = saved[i];
      this.leases[i] = mac?.length === MAC_SIZE ? mac.slice() : null;
      if (mac?.length === MAC_SIZE) this.ip.link.learn(this.address(i), mac);
    });
  }

  private input(data: Uint8Array): void {
    if (data.length < OPTIONS + 4 || data[0] !== 1 || get32(data, OPTIONS) !== MAGIC) return;
    const options = readOptions(data);
    const type = options.get(OPTION_TYPE)?.[0] ?? 0;
    const mac = data.subarray(CLIENT_MAC, CLIENT_MAC + MAC_SIZE);
    const server = options.get(OPTION_SERVER);
    if (server !== undefined && !sameAddress(server, this.ip.self)) return;
    const wanted = options.get(OPTION_REQUESTED) ?? data.subarray(12, 16);
    switch (type) {
      // Old clients ask by BOOTP, without a type.
      case 0:
      case DISCOVER:
        return this.offer(type, data, mac, wanted);
      case REQUEST:
        return this.confirm(data, mac, wanted);
      case RELEASE:
        return this.release(mac);
      case INFORM:
        return this.reply(ACK, data, null);
    }
  }

  private offer(type: number, request: Uint8Array, mac: Uint8Array, wanted: Uint8Array): void {
    const index = this.choose(mac, wanted);
    if (index < 0) return;
    if (type === 0) this.leases[index] = mac.slice();
    this.reply(type === 0 ? 0 : OFFER, request, this.address(index));
  }

  private confirm(request: Uint8Array, mac: Uint8Array, wanted: Uint8Array): void {
    const index = this.indexOf(wanted);
    const holder = index < 0 ? undefined : this.leases[index];
    if (holder === undefined || (holder !== null && !sameAddress(holder, mac))) return this.reply(NAK, request, null);
    this.release(mac);
    this.leases[index] = mac.slice();
    const address = this.address(index);
    this.ip.link.learn(address, mac);
    this.reply(ACK, request, address);
  }

  private release(mac: Uint8Array): void {
    this.leases.forEach((holder, i) => {
      if (holder !== null && sameAddress(holder, mac)) this.leases[i] = null;
    });
  }

  /** The address that the client had, wants, or the first free one. */
  private choose(mac: Uint8Array, wanted: Uint8Array): number {
    const had = this.leases.findIndex((holder) => holder !== null && sameAddress(holder, mac));
    if (had >= 0) return had;
    const index = this.indexOf(wanted);
    if (index >= 0 && this.leases[index] === null) return index;
    return this.leases.indexOf(null);
  }

  private address(index: number): IpAddress {
    const address = new Uint8Array(4);
    put32(address, 0, get32(this.ipv4.dhcpStart, 0) + index);
    return address;
  }

  /** @returns -1 when the address is not one of ours to give */
  private indexOf(address: Uint8Array): number {
    if (address.length !== 4) return -1;
    const index = get32(address, 0) - get32(this.ipv4.dhcpStart, 0);
    return index >= 0 && index < ADDRESSES ? index : -1;
  }

  /** @param address the client's, or null for one that keeps what it has, or must not */
  private reply(type: number, request: Uint8Array, address: IpAddress | null): void {
    const reply = new Uint8Array(REPLY_SIZE);
    reply.set(request.subarray(0, OPTIONS));
    reply.fill(0, YOUR_ADDRESS, CLIENT_MAC);
    reply.fill(0, CLIENT_MAC + 16, OPTIONS);
    reply[0] = 2;
    if (address !== null) reply.set(address, YOUR_ADDRESS);
    if (type !== NAK) reply.set(this.ip.self, NEXT_SERVER);
    if (type !== NAK && this.plan.bootFile !== null) reply.set(text(this.plan.bootFile).subarray(0, FILE_SIZE - 1), FILE);
    put32(reply, OPTIONS, MAGIC);
    let at = OPTIONS + 4;
    for (const [code, value] of this.options(type)) {
      // What no longer fits is left out: the most important comes first.
      if (value.length > 255 || at + 2 + value.length >= REPLY_SIZE) continue;
      reply[at] = code;
      reply[at + 1] = value.length;
      reply.set(value, at + 2);
      at += 2 + value.length;
    }
    reply[at] = OPTION_END;
    if (address !== null) this.ip.link.learn(address, request.subarray(CLIENT_MAC, CLIENT_MAC + MAC_SIZE));
    // Whoever has no address yet is only found by all.
    this.udp.send(this.ip, this.ip.self, SERVER_PORT, ALL_ONES, CLIENT_PORT, reply);
  }

  private options(type: number): (readonly [number, Uint8Array])[] {
    const { plan, ipv4 } = this;
    const found: (readonly [number, Uint8Array])[] = [];
    if (type !== 0) found.push([OPTION_TYPE, Uint8Array.of(type)]);
    found.push([OPTION_SERVER, this.ip.self]);
    if (type === NAK) return [...found, [OPTION_MESSAGE, text('requested address not available')]];
    found.push([OPTION_MASK, maskOf(ipv4.prefix)]);
    if (!plan.restrict) found.push([OPTION_ROUTER, ipv4.host], [OPTION_DNS, ipv4.dns]);
    found.push([OPTION_LEASE, number32(LEASE_SECONDS)]);
    if (plan.hostname !== null) found.push([OPTION_HOSTNAME, text(plan.hostname)]);
    if (plan.domainName !== null) found.push([OPTION_DOMAIN, text(plan.domainName)]);
    if (plan.tftpServerName !== null) found.push([OPTION_TFTP_SERVER, text(plan.tftpServerName)]);
    if (plan.dnsSearch.length > 0) found.push([OPTION_SEARCH, searchList(plan.dnsSearch)]);
    return found;
  }
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function number32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  put32(bytes, 0, value);
  return bytes;
}

const maskOf = (prefix: number): Uint8Array => number32(prefix === 0 ? 0 : -(2 ** (32 - prefix)));

function readOptions(data: Uint8Array): Map<number, Uint8Array> {
  const options = new Map<number, Uint8Array>();
  for (let at = OPTIONS + 4; at < data.length && data[at] !== OPTION_END; ) {
    if (data[at] === 0) {
      at++;
      continue;
    }
    const length = data[at + 1] ?? 0;
    const end = at + 2 + length;
    if (end > data.length) break;
    options.set(data[at]!, data.subarray(at + 2, end));
    at = end;
  }
  return options;
}

/** Names as DNS writes them, without compression (RFC 3397). */
export function searchList(domains: readonly string[]): Uint8Array {
  return Uint8Array.from(
    domains.flatMap((domain) => [
      ...domain
        .split('.')
        .filter((label) => label !== '' && label.length < 64)
        .flatMap((label) => [label.length, ...text(label)]),
      0,
    ]),
  );
}
