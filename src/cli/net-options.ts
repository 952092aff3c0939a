/**
 * `-netdev`, `-nic`, `-net` and what else names networks and cards, by QEMU's rules. Options are collected as they
 * come; `finishNetwork` makes the machine's configuration of them.
 */
import { type DumpConfig, type NetdevConfig, type NetworkConfig, type NicConfig } from '../machine/network-config.ts';
import { parseMac } from '../network/address.ts';
import { kindOf, parseNetdevConfig } from '../network/options/netdev.ts';
import { Pairs } from '../network/options/pairs.ts';
import { splitCommas } from './values.ts';

/** Cards by QEMU's names, and other names for them after `model=`. */
export const NIC_MODELS = [
  'e1000',
  'e1000e',
  'ne2k_pci',
  'rtl8139',
  'virtio-net-pci',
  'virtio-net-pci-non-transitional',
  'virtio-net-pci-transitional',
] as const;
/** The same, with those that are on no list, as they are on no PCI bus. */
const CARDS: readonly string[] = [...NIC_MODELS, 'ne2k_isa', 'virtio-net-device'];
const ALIASES: Record<string, string> = { virtio: 'virtio-net-pci', 'virtio-net': 'virtio-net-pci' };
const DEFAULT_MODEL = 'e1000';
/** MAC addresses of cards that are given none, in the order of the cards. */
const FIRST_MAC = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56] as const;
const DEFAULT_LENGTH = 65536;

/** `first,key=value,switch`, or JSON as management writes it. @param implied key of a first word without "="  @throws Error */
function parsePairs(text: string, implied: string): Pairs {
  if (text.trimStart().startsWith('{')) return Pairs.fromJson(text);
  return new Pairs(
    splitCommas(text)
      .filter((part) => part !== '')
      .map((part, i) => {
        const at = part.indexOf('=');
        if (at >= 0) return [part.slice(0, at), part.slice(at + 1)];
        return i === 0 ? [implied, part] : [part, 'on'];
      }),
  );
}

/** Where something was asked for, for messages. */
type Source = { readonly option: string; readonly text: string };
type Nic = { readonly source: Source; readonly config: Omit<NicConfig, 'mac'>; readonly mac: Uint8Array | null };
type Netdev = { readonly source: Source; readonly config: NetdevConfig };
type Dump = { readonly source: Source; readonly config: DumpConfig };

/** What has been asked for so far. */
export interface NetOptions {
  readonly netdevs: Netdev[];
  readonly nics: Nic[];
  readonly dumps: Dump[];
  /** Any of the options says that the default network is not wanted. */
  asked: boolean;
  /** Names given to what has none. */
  made: number;
}

export const noNetOptions = (): NetOptions => ({ netdevs: [], nics: [], dumps: [], asked: false, made: 0 });

/** A problem that shows when all options are known. */
export class NetError extends Error {
  readonly source: Source;

  constructor(source: Source, why: string) {
    super(why);
    this.source = source;
  }
}

function makeName(net: NetOptions): string {
  return `#net${String(net.made++).padStart(3, '0')}`;
}

function addNetdev(net: NetOptions, source: Source, config: NetdevConfig, what = 'netdev'): void {
  if (net.netdevs.some((one) => one.config.id === config.id)) throw new Error(`Duplicate ID '${config.id}' for ${what}`);
  net.netdevs.push({ source, config });
}

const isHelp = (text: string | null): boolean => text === 'help' || text === '?';

/** `-netdev`. @returns whether help is wanted @throws Error */
export function parseNetdev(net: NetOptions, text: string): boolean {
  net.asked = true;
  const pairs = parsePairs(text, 'type');
  if (isHelp(pairs.get('type'))) return true;
  addNetdev(net, { option: '-netdev', text }, parseNetdevConfig(pairs));
  return false;
}

const NIC_KEYS = ['type', 'id', 'model', 'mac', 'addr'];

/** `-nic`: a network and a card on it. @returns whether help is wanted @throws Error */
export function parseNic(net: NetOptions, text: string): 'netdev' | 'model' | null {
  net.asked = true;
  const pairs = parsePairs(text, 'type');
  if (isHelp(pairs.get('type'))) return 'netdev';
  if (isHelp(pairs.get('model'))) return 'model';
  if (pairs.get('type') === 'none') return null;
  const kind = kindOf(pairs);
  pairs.only([...NIC_KEYS, ...kind.keys]);
  const id = pairs.identifier() ?? makeName(net);
  const source = { option: '-nic', text };
  addNetdev(net, source, { id, ...kind.parse(pairs) } as NetdevConfig, 'nic');
  addNic(net, source, pairs, id, 'mac');
  return null;
}

function addNic(net: NetOptions, source: Source, pairs: Pairs, netdev: string, macKey: string): void {
  const given = pairs.get('model') ?? DEFAULT_MODEL;
  const model = ALIASES[given] ?? given;
  if (!CARDS.includes(model)) throw new Error(`Unsupported NIC model: ${given}`);
  const addr = pairs.get('addr');
  const properties: Record<string, string> = addr === null ? {} : { addr };
  net.nics.push({ source, config: { model, id: null, netdev, properties }, mac: macOf(pairs.get(macKey)) });
}

function macOf(text: string | null): Uint8Array | null {
  if (text === null) return null;
  const mac = parseMac(text);
  if (mac === null) throw new Error('invalid syntax for ethernet address');
  if ((mac[0]! & 1) !== 0) throw new Error('NIC cannot have multicast MAC address (odd 1st byte)');
  return mac;
}

const NET_HUB = 0;

/** `-net`, the old way: everything is plugged into one hub. @returns whether help is wanted @throws Error */
export function parseNet(net: NetOptions, text: string): 'netdev' | 'model' | null {
  net.asked = true;
  const pairs = parsePairs(text, 'type');
  const type = pairs.get('type');
  if (isHelp(type)) return 'netdev';
  if (type === 'none') return null;
  const source = { option: '-net', text };
  const port = (netdev: string | null): string => {
    const id = `hub${NET_HUB}port${net.netdevs.filter(({ config }) => config.type === 'hubport').length}`;
    addNetdev(net, source, { type: 'hubport', id, hub: NET_HUB, netdev });
    return id;
  };
  if (type === 'nic') {
    if (isHelp(pairs.get('model'))) return 'model';
    pairs.only(['type', 'netdev', 'macaddr', 'model', 'name', 'addr', 'vectors']);
    addNic(net, source, pairs, pairs.get('netdev') ?? port(null), 'macaddr');
    return null;
  }
  const kind = kindOf(pairs);
  pairs.only(['type', 'id', 'name', ...kind.keys]);
  const id = pairs.identifier() ?? pairs.get('name') ?? makeName(net);
  const config = { id, ...kind.parse(pairs) } as NetdevConfig;
  addNetdev(net, source, config);
  if (config.type !== 'hubport') port(id);
  return null;
}

/** `-device`. @returns false when that is no card @throws Error */
export function parseNicDevice(net: NetOptions, text: string): boolean {
  const pairs = parsePairs(text, 'driver');
  const driver = pairs.get('driver') ?? '';
  const model = ALIASES[driver] ?? driver;
  if (!CARDS.includes(model)) return false;
  const netdev = pairs.get('netdev');
  const properties = pairs.others(['driver', 'id', 'netdev', 'mac']);
  net.nics.push({
    source: { option: '-device', text },
    config: { model, id: pairs.identifier(), netdev, properties },
    mac: macOf(pairs.get('mac')),
  });
  return true;
}

/** `-object filter-dump`. @throws Error */
export function parseFilterDump(net: NetOptions, text: string): void {
  const pairs = parsePairs(text, 'qom-type');
  pairs.only(['qom-type', 'id', 'netdev', 'file', 'maxlen', 'queue', 'status', 'position']);
  const id = pairs.identifier();
  const [netdev, file] = [pairs.get('netdev'), pairs.get('file')];
  if (id === null) throw new Error("Parameter 'id' is missing");
  if (netdev === null) throw new Error("Parameter 'netdev' is missing");
  if (file === null) throw new Error("dump filter needs 'file' property set!");
  const maxLength = pairs.number('maxlen') ?? DEFAULT_LENGTH;
  net.dumps.push({ source: { option: '-object', text }, config: { id, netdev, file, maxLength } });
}

/**
 * Everything is known: what is missing is filled in, what is wrong found out.
 * @param noDefaults leave out the card that a machine has unless told otherwise
 * @throws NetError
 */
export function finishNetwork(net: NetOptions, noDefaults: boolean): { config: NetworkConfig; warnings: string[] } {
  if (!net.asked && !noDefaults) parseNic(net, 'user');
  checkUse(net);
  const given = net.nics.map(({ config, mac }, i) => ({ ...config, mac: mac ?? nthMac(i) }));
  const { netdevs, nics } = withoutCables(
    net.netdevs.map(({ config }) => config),
    given,
  );
  const used = new Set([
    ...nics.map(({ netdev }) => netdev),
    ...netdevs.map((one) => (one.type === 'hubport' ? one.netdev : null)),
  ]);
  const loose = netdevs.filter(({ id }) => !used.has(id));
  const warnings = loose
    .filter((one) => one.type !== 'hubport' || one.netdev === null)
    .map(({ id }) => `netdev ${id} has no peer`);
  return { config: { netdevs, nics, dumps: net.dumps.map(({ config }) => config) }, warnings };
}

type Plugged = { readonly netdevs: readonly NetdevConfig[]; readonly nics: readonly NicConfig[] };

/** A hub with one card and one network is a cable, which lets whole segments pass. */
function withoutCables(netdevs: readonly NetdevConfig[], nics: readonly NicConfig[]): Plugged {
  const hubs = new Set(netdevs.flatMap((one) => (one.type === 'hubport' ? [one.hub] : [])));
  let plugged: Plugged = { netdevs, nics };
  for (const hub of hubs) {
    const ports = netdevs.flatMap((one) => (one.type === 'hubport' && one.hub === hub ? [one] : []));
    const behind = ports.find(({ netdev }) => netdev !== null);
    const card = ports.find(({ id }) => nics.some(({ netdev }) => netdev === id));
    if (ports.length !== 2 || behind === undefined || card === undefined || behind === card) continue;
    plugged = {
      netdevs: plugged.netdevs.filter((one) => one !== behind && one !== card),
      nics: plugged.nics.map((nic) => (nic.netdev === card.id ? { ...nic, netdev: behind.netdev } : nic)),
    };
  }
  return plugged;
}

function nthMac(index: number): Uint8Array {
  const mac = Uint8Array.from(FIRST_MAC);
  mac[5] = mac[5]! + index;
  return mac;
}

function checkUse({ netdevs, nics, dumps }: NetOptions): void {
  const known = new Set(netdevs.map(({ config }) => config.id));
  const taken = new Set<string>();
  for (const { source, config } of netdevs) {
    if (config.type !== 'hubport' || config.netdev === null) continue;
    if (!known.has(config.netdev)) throw new NetError(source, `netdev '${config.netdev}' not found`);
    taken.add(config.netdev);
  }
  for (const { source, config } of nics) {
    const { model, netdev } = config;
    if (netdev === null) continue;
    const property = `Property '${model}.netdev' can't`;
    if (!known.has(netdev)) throw new NetError(source, `${property} find value '${netdev}'`);
    if (taken.has(netdev)) throw new NetError(source, `${property} take value '${netdev}', it's in use`);
    taken.add(netdev);
  }
  for (const { source, config } of dumps) {
    if (!known.has(config.netdev)) throw new NetError(source, "Parameter 'netdev' expects a network backend id");
  }
}

/** @returns the option that a network was asked for by */
export function sourceOf(net: NetOptions, id: string): Source | null {
  return net.netdevs.find(({ config }) => config.id === id)?.source ?? null;
}
