/** The options of `-netdev user`: what a user network looks like, in QEMU's words. */
import type { Endpoint } from '../../host/network.ts';
import type { GuestForward, HostForward, IpAddress, Ipv4Plan, Ipv6Plan, UserPlan } from '../../machine/network-config.ts';
import { hostInNetwork, parseIp, parseIpv4, parseIpv6, sameAddress, sameNetwork } from '../address.ts';
import type { Pairs } from './pairs.ts';

export const USER_KEYS = [
  ...['net', 'host', 'dhcpstart', 'dns', 'hostname', 'domainname', 'dnssearch', 'restrict', 'hostfwd', 'guestfwd'],
  ...['tftp', 'bootfile', 'tftp-server-name', 'ipv4', 'ipv6', 'ipv6-net', 'ipv6-prefix', 'ipv6-prefixlen'],
  ...['ipv6-host', 'ipv6-dns'],
];

/** Where the gateway, the name server and DHCP's first address are in a network. */
const HOST = 2;
const DNS = 3;
const DHCP_START = 15;
const MAX_NAME = 255;

const IPV4_KEYS = ['net', 'host', 'dhcpstart', 'dns'];
const IPV6_KEYS = ['ipv6-net', 'ipv6-prefix', 'ipv6-prefixlen', 'ipv6-host', 'ipv6-dns'];

/** @throws Error, one line */
export function parseUser(pairs: Pairs): UserPlan {
  const [wants4, wants6] = families(pairs);
  const ipv4 = wants4 ? parseIpv4Plan(pairs) : null;
  const plan = {
    ipv4,
    ipv6: wants6 ? parseIpv6Plan(pairs) : null,
    restrict: pairs.flag('restrict') ?? false,
    hostname: name(pairs, 'hostname', "'vhostname' parameter cannot exceed 255 bytes"),
    domainName: name(pairs, 'domainname', "'domainname' parameter cannot exceed 255 bytes"),
    dnsSearch: pairs.all('dnssearch').filter((domain) => domain !== ''),
    bootFile: pairs.get('bootfile'),
    tftpServerName: name(pairs, 'tftp-server-name', "'tftp-server-name' parameter cannot exceed 255 bytes"),
    tftp: pairs.get('tftp'),
    hostForwards: pairs.all('hostfwd').map(parseHostForward),
  };
  return { ...plan, guestForwards: pairs.all('guestfwd').map((text) => parseGuestForward(text, plan.ipv4)) };
}

/** Whoever asks for one version alone gets that one. */
function families(pairs: Pairs): [boolean, boolean] {
  const [v4, v6] = [pairs.flag('ipv4'), pairs.flag('ipv6')];
  const wants4 = v4 ?? v6 !== true;
  const wants6 = v6 ?? v4 !== true;
  if (!wants4 && !wants6) throw new Error('IPv4 and IPv6 disabled');
  if (!wants4 && IPV4_KEYS.some((key) => pairs.has(key))) throw new Error('IPv4 disabled but netmask/host/dns provided');
  if (!wants6 && IPV6_KEYS.some((key) => pairs.has(key))) throw new Error('IPv6 disabled but prefix/host6/dns6 provided');
  return [wants4, wants6];
}

function name(pairs: Pairs, key: string, why: string): string | null {
  const value = pairs.get(key);
  if (value !== null && new TextEncoder().encode(value).length > MAX_NAME) throw new Error(why);
  return value;
}

function parseIpv4Plan(pairs: Pairs): Ipv4Plan {
  const { address, prefix } = parseNet(pairs.get('net') ?? '10.0.2.0/24');
  const network = hostInNetwork(address, prefix, 0);
  const part = (key: string, host: number, what: string): IpAddress => {
    const text = pairs.get(key);
    if (text === null) return hostInNetwork(network, prefix, host);
    const given = parseIpv4(text);
    if (given === null) throw new Error(`Failed to parse ${what}`);
    return given;
  };
  const host = part('host', HOST, 'host');
  if (!sameNetwork(host, network, prefix)) throw new Error("Host doesn't belong to network");
  const dhcpStart = part('dhcpstart', DHCP_START, 'DHCP start address');
  if (!sameNetwork(dhcpStart, network, prefix)) throw new Error("DHCP doesn't belong to network");
  const dns = part('dns', DNS, 'DNS');
  if (sameAddress(dhcpStart, host) || sameAddress(dhcpStart, dns)) {
    throw new Error('DHCP must be different from host and DNS');
  }
  if (sameAddress(dns, host)) throw new Error('DNS must be different from host');
  return { network, prefix, host, dns, dhcpStart };
}

function parseNet(text: string): { address: IpAddress; prefix: number } {
  const [first, mask] = text.split('/');
  const address = parseIpv4(first!);
  if (address === null) throw new Error('Failed to parse netmask');
  if (mask === undefined) return { address, prefix: classOf(address) };
  const prefix = /^\d+$/.test(mask) ? Number(mask) : prefixOf(mask);
  if (prefix === null) throw new Error('Failed to parse netmask (trailing chars)');
  if (prefix < 4 || prefix > 32) throw new Error('Invalid netmask provided (must be in range 4-32)');
  return { address, prefix };
}

function prefixOf(mask: string): number | null {
  const bytes = parseIpv4(mask);
  if (bytes === null) return null;
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  return /^1*0*$/.test(bits) ? bits.replaceAll('0', '').length : null;
}

/** The prefix of a network that is given without one. */
function classOf(address: IpAddress): number {
  const [a, b] = [address[0]!, address[1]!];
  if (a < 128) return 8;
  if (a === 172 && b >> 4 === 1) return 12;
  if (a < 192 || (a === 192 && b === 168)) return 16;
  return a < 224 ? 24 : 4;
}

function parseIpv6Plan(pairs: Pairs): Ipv6Plan {
  const [joined, joinedLength] = (pairs.get('ipv6-net') ?? '').split('/');
  const address = parseIpv6(joined || (pairs.get('ipv6-prefix') ?? 'fec0::'));
  if (address === null) throw new Error('Failed to parse IPv6 prefix');
  const prefix = Number(joinedLength ?? pairs.get('ipv6-prefixlen') ?? 64);
  if (!(Number.isInteger(prefix) && prefix >= 0 && prefix <= 126)) {
    throw new Error('Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)');
  }
  const network = hostInNetwork(address, prefix, 0);
  const part = (key: string, host: number, what: string): IpAddress => {
    const text = pairs.get(key);
    const given = text === null ? hostInNetwork(network, prefix, host) : parseIpv6(text);
    if (given === null) throw new Error(`Failed to parse IPv6 ${what}`);
    return given;
  };
  const host = part('ipv6-host', HOST, 'host');
  if (!sameNetwork(host, network, prefix)) throw new Error("IPv6 Host doesn't belong to network");
  return { network, prefix, host, dns: part('ipv6-dns', DNS, 'DNS') };
}

const isPort = (text: string | undefined, least: number): boolean =>
  text !== undefined && /^\d{1,5}$/.test(text) && Number(text) >= least && Number(text) <= 65535;

/** An address or one in brackets, a colon, and the rest. */
function splitAddress(text: string): { address: string; rest: string } | null {
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(.*)$/.exec(text);
  return match === null ? null : { address: match[1] ?? match[2]!, rest: match[3]! };
}

/** `[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT`, or `unix:PATH-[GUESTADDR]:GUESTPORT`. @throws Error, one line */
export function parseHostForward(text: string): HostForward {
  const bad = (why: string): Error => new Error(`Invalid host forwarding rule '${text}' (${why})`);
  const colon = text.indexOf(':');
  if (colon < 0) throw bad('No : separators');
  const protocol = text.slice(0, colon) || 'tcp';
  const rest = text.slice(colon + 1);
  if (protocol === 'unix') {
    const dash = rest.lastIndexOf('-');
    if (dash <= 0) throw bad('Bad path separator');
    return { protocol: 'tcp', at: { path: rest.slice(0, dash) }, ...guestEnd(rest.slice(dash + 1), bad) };
  }
  if (protocol !== 'tcp' && protocol !== 'udp') throw bad('Bad protocol name');
  const split = splitAddress(rest);
  if (split === null) throw bad('Missing : separator');
  const address = split.address === '' ? '0.0.0.0' : split.address;
  if (parseIp(address) === null) throw bad('Bad host address');
  const dash = split.rest.indexOf('-');
  if (dash < 0) throw bad('Bad host port separator');
  const port = split.rest.slice(0, dash);
  if (!isPort(port, 0)) throw bad('Bad host port');
  return { protocol, at: { address, port: Number(port) }, ...guestEnd(split.rest.slice(dash + 1), bad) };
}

function guestEnd(text: string, bad: (why: string) => Error): { guest: IpAddress | null; port: number } {
  const split = splitAddress(text);
  if (split === null) throw bad('Missing guest address');
  const guest = split.address === '' ? null : parseIp(split.address);
  if (split.address !== '' && guest === null) throw bad('Bad guest address');
  if (!isPort(split.rest, 1)) throw bad('Bad guest port');
  return { guest, port: Number(split.rest) };
}

/** `[tcp]:SERVER:PORT-DEV`, where DEV is `cmd:COMMAND`, `tcp:HOST:PORT` or `unix:PATH`. @throws Error, one line */
function parseGuestForward(text: string, ipv4: Ipv4Plan | null): GuestForward {
  const match = /^(?:tcp)?:([^:]*):(\d+)-(.+)$/.exec(text);
  if (match === null || !isPort(match[2], 1)) throw new Error(`Invalid guest forwarding rule '${text}'`);
  const address = parseIpv4(match[1]!);
  const conflict = `Conflicting/invalid host:port in guest forwarding rule '${text}'`;
  if (address === null || ipv4 === null || !sameNetwork(address, ipv4.network, ipv4.prefix)) throw new Error(conflict);
  if (sameAddress(address, ipv4.host) || sameAddress(address, ipv4.dns)) throw new Error(conflict);
  return { address, port: Number(match[2]), to: parseDevice(match[3]!, text) };
}

function parseDevice(device: string, text: string): GuestForward['to'] {
  if (device.startsWith('cmd:')) return { command: device.slice(4) };
  if (device.startsWith('unix:')) return { path: device.slice(5) } satisfies Endpoint;
  const split = device.startsWith('tcp:') ? splitAddress(device.slice(4)) : null;
  if (split === null || !isPort(split.rest, 1)) {
    throw new Error(`Invalid guest forwarding rule '${text}' (not cmd:COMMAND, tcp:HOST:PORT or unix:PATH)`);
  }
  return { address: split.address || '127.0.0.1', port: Number(split.rest) };
}
