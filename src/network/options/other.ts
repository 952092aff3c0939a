/** The options of `-netdev` for TAP interfaces, sockets and hubs. */
import type { Endpoint } from '../../host/network.ts';
import type { NetdevConfig } from '../../machine/network-config.ts';
import { parseIpv4 } from '../address.ts';
import type { Pairs } from './pairs.ts';

type Without<T> = T extends unknown ? Omit<T, 'id'> : never;
/** A netdev before it has a name. */
export type Unnamed = Without<NetdevConfig>;

/** `vhost` asks the host's kernel to be faster; it changes nothing else. */
export const TAP_KEYS = ['ifname', 'fd', 'script', 'downscript', 'vnet_hdr', 'sndbuf', 'vhost', 'queues'];
export const SOCKET_KEYS = ['listen', 'connect', 'mcast', 'udp', 'localaddr', 'fd'];
export const STREAM_KEYS = ['server', 'reconnect', 'reconnect-ms', ...addressKeys('addr')];
export const DGRAM_KEYS = [...addressKeys('local'), ...addressKeys('remote')];
export const HUB_KEYS = ['hubid', 'netdev'];

function addressKeys(name: string): string[] {
  return ['type', 'host', 'port', 'path', 'to', 'ipv4', 'ipv6', 'abstract', 'tight', 'keep-alive'].map((key) => `${name}.${key}`);
}

export function parseTap(pairs: Pairs): Unnamed {
  const fd = pairs.get('fd');
  if (fd !== null) {
    const others = ['ifname', 'script', 'downscript', 'vnet_hdr', 'queues'].filter((key) => pairs.has(key));
    if (others.length > 0) {
      throw new Error('ifname=, script=, downscript=, vnet_hdr= and queues= are invalid with fd=');
    }
    if (!/^\d+$/.test(fd)) throw new Error(`file descriptor "${fd}" is not a number`);
    return { type: 'tap', ifname: null, fd: Number(fd), headers: true, script: null, downScript: null };
  }
  if ((pairs.get('queues') ?? '1') !== '1') throw new Error('one queue is what an interface has here');
  const script = (key: string, otherwise: string): string | null => {
    const given = pairs.get(key) ?? otherwise;
    return given === 'no' || given === '' ? null : given;
  };
  return {
    type: 'tap',
    ifname: pairs.get('ifname'),
    fd: null,
    headers: pairs.flag('vnet_hdr') ?? true,
    script: script('script', '/etc/qemu-ifup'),
    downScript: script('downscript', '/etc/qemu-ifdown'),
  };
}

const ONE_OF = 'exactly one of listen=, connect=, mcast= or udp= is required';

export function parseSocket(pairs: Pairs): Unnamed {
  const given = ['listen', 'connect', 'mcast', 'udp', 'fd'].filter((key) => pairs.has(key));
  if (given.length !== 1) throw new Error(ONE_OF);
  const key = given[0]!;
  if (key === 'fd') throw new Error('fd= is not available');
  const at = hostPort(pairs.get(key)!, key === 'listen' ? '0.0.0.0' : '127.0.0.1');
  const local = pairs.get('localaddr');
  switch (key) {
    case 'listen':
      return { type: 'stream', server: true, at, reconnect: 0 };
    case 'connect':
      return { type: 'stream', server: false, at, reconnect: 0 };
    case 'udp':
      if (local === null) throw new Error('localaddr= is mandatory with udp=');
      return { type: 'dgram', local: hostPort(local, '0.0.0.0'), remote: at, multicast: false };
    default:
      if (!isGroup(at.address)) throw new Error(`specified mcastaddr ${at.address} does not contain a multicast address`);
      return { type: 'dgram', local: local === null ? null : { address: local, port: 0 }, remote: at, multicast: true };
  }
}

const isGroup = (text: string): boolean => ((parseIpv4(text)?.[0] ?? 0) & 0xf0) === 0xe0;

function hostPort(text: string, otherwise: string): { address: string; port: number } {
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(.*)$/.exec(text);
  if (match === null) throw new Error(`host address '${text}' doesn't contain ':' separating host from port`);
  const port = /^\d{1,5}$/.test(match[3]!) ? Number(match[3]) : NaN;
  if (!(port <= 65535)) throw new Error(`port number '${match[3]}' is invalid`);
  return { address: (match[1] ?? match[2]!) || otherwise, port };
}

function address(pairs: Pairs, name: string): Endpoint | null {
  const type = pairs.get(`${name}.type`);
  if (type === null) return null;
  const part = (key: string): string => {
    const value = pairs.get(`${name}.${key}`);
    if (value === null) throw new Error(`Parameter '${name}.${key}' is missing`);
    return value;
  };
  if (type === 'unix') return { path: part('path') };
  if (type !== 'inet') throw new Error(`Parameter '${name}.type' does not accept value '${type}'`);
  return hostPort(`[${part('host')}]:${part('port')}`, '127.0.0.1');
}

export function parseStream(pairs: Pairs): Unnamed {
  const at = address(pairs, 'addr');
  if (at === null) throw new Error("Parameter 'addr' is missing");
  const server = pairs.flag('server') ?? false;
  const milliseconds = pairs.number('reconnect-ms');
  const reconnect = milliseconds === null ? (pairs.number('reconnect') ?? 0) : milliseconds / 1000;
  if (server && reconnect > 0) throw new Error("'reconnect' option is incompatible with socket in server mode");
  return { type: 'stream', server, at, reconnect };
}

export function parseDgram(pairs: Pairs): Unnamed {
  const [local, remote] = [address(pairs, 'local'), address(pairs, 'remote')];
  const multicast = remote !== null && 'address' in remote && isGroup(remote.address);
  if (remote !== null && multicast) return { type: 'dgram', local, remote, multicast };
  if (local === null) throw new Error('dgram requires local= parameter');
  if (remote === null) throw new Error('type=inet or type=unix requires remote parameter');
  if ('path' in local !== 'path' in remote) throw new Error('local and remote must be of the same type');
  return { type: 'dgram', local, remote, multicast };
}

export function parseHubPort(pairs: Pairs): Unnamed {
  const hub = pairs.number('hubid');
  if (hub === null) throw new Error("Parameter 'hubid' is missing");
  return { type: 'hubport', hub, netdev: pairs.get('netdev') };
}
