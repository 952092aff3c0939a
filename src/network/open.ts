/** Makes the networks of a machine from its configuration, and hands them to its cards. */
import type { HostNetwork } from '../host/network.ts';
import type {
  DeviceState,
  NetworkPort,
  Offloads,
  PacketBackend,
  PacketOffload,
  StateOwner,
  StateValue,
  VirtualClock,
} from '../machine/interfaces.ts';
import type { DumpConfig, HostForward, NetdevConfig, NetworkConfig } from '../machine/network-config.ts';
import { formatIp } from './address.ts';
import { DgramBackend } from './dgram.ts';
import { FrameDump } from './dump.ts';
import { Hub } from './hub.ts';
import { StreamBackend } from './stream.ts';
import { TapBackend } from './tap.ts';
import { UserNetwork } from './user/user-network.ts';

export interface NetworkParts {
  readonly host: HostNetwork;
  readonly clock: VirtualClock;
  /** 32 bits that nobody can guess. */
  readonly random: () => number;
  /** Something the user should know. */
  readonly warn: (line: string) => void;
}

/** What a card is given: frames pass only while the machine runs, and leave their copies in dumps. */
class CardPort implements NetworkPort {
  onReceive: PacketBackend['onReceive'] = null;
  onWritable: PacketBackend['onWritable'] = null;
  onLinkChange: NetworkPort['onLinkChange'] = null;
  linkUp = true;
  private readonly backend: PacketBackend;
  private readonly dumps: readonly FrameDump[];
  private running = false;

  constructor(backend: PacketBackend, dumps: readonly FrameDump[]) {
    this.backend = backend;
    this.dumps = dumps;
    backend.onReceive = (frame, offload) => this.receive(frame, offload);
    backend.onWritable = () => this.onWritable?.();
  }

  get offloads(): Offloads {
    return this.backend.offloads;
  }

  get accepts(): Offloads {
    return this.backend.accepts;
  }

  set accepts(offloads: Offloads) {
    this.backend.accepts = offloads;
  }

  send(frame: Uint8Array, offload: PacketOffload | null): boolean {
    if (this.linkUp && !this.backend.send(frame, offload)) return false;
    for (const dump of this.dumps) dump.add(frame);
    return true;
  }

  resume(): void {
    if (this.running) this.backend.resume();
  }

  setRunning(running: boolean): void {
    this.running = running;
    if (running) this.backend.resume();
  }

  setLink(up: boolean): void {
    if (up === this.linkUp) return;
    this.linkUp = up;
    this.onLinkChange?.(up);
  }

  close(): void {
    this.backend.close();
  }

  private receive(frame: Uint8Array, offload: PacketOffload | null): boolean {
    // Nothing may change in a machine that stands still.
    if (!this.running) return false;
    if (!this.linkUp) return true;
    if (this.onReceive !== null && !this.onReceive(frame, offload)) return false;
    for (const dump of this.dumps) dump.add(frame);
    return true;
  }
}

/** Of a machine's state, addresses that guests have leased belong to networks; connections end with the host's sockets. */
export class Networks implements StateOwner {
  readonly id = 'machine/networks';
  /** Settles when all sockets that must be there are there; rejects with one line otherwise. */
  readonly ready: Promise<void>;
  private readonly parts: NetworkParts;
  private readonly backends = new Map<string, PacketBackend>();
  private readonly ports = new Map<string, CardPort>();
  private readonly dumps: { netdev: string; dump: FrameDump }[] = [];
  private readonly hubs = new Map<number, Hub>();
  private running = false;
  private readonly waits: Promise<void>[] = [];

  /** @throws Error, one line that names the network */
  constructor({ netdevs, dumps }: NetworkConfig, parts: NetworkParts) {
    this.parts = parts;
    try {
      for (const netdev of netdevs) this.named(netdev, () => this.backends.set(netdev.id, this.open(netdev)));
      for (const dump of dumps) this.openDump(dump);
      for (const netdev of netdevs) this.plug(netdev);
    } catch (error) {
      this.close();
      throw error;
    }
    this.ready = Promise.all(this.waits).then(() => undefined);
    // Whoever does not wait need not be told twice.
    this.ready.catch(() => undefined);
  }

  /** The network that a card is on. @throws Error when there is none of that name */
  port(netdev: string): NetworkPort {
    const known = this.ports.get(netdev);
    if (known !== undefined) return known;
    const backend = this.backends.get(netdev);
    if (backend === undefined) throw new Error(`there is no network "${netdev}"`);
    const dumps = this.dumps.filter((one) => one.netdev === netdev).map(({ dump }) => dump);
    const port = new CardPort(backend, dumps);
    this.ports.set(netdev, port);
    port.setRunning(this.running);
    return port;
  }

  /** What is behind a netdev, for whoever manages it. */
  backend(netdev: string): PacketBackend | null {
    return this.backends.get(netdev) ?? null;
  }

  /** A network for a running machine (`netdev_add`). @throws Error, one line; also by the promise */
  async add(netdev: NetdevConfig): Promise<void> {
    if (this.backends.has(netdev.id)) throw new Error(`Duplicate ID '${netdev.id}' for netdev`);
    if (netdev.type === 'hubport' && netdev.netdev !== null && !this.backends.has(netdev.netdev)) {
      throw new Error(`netdev '${netdev.netdev}' not found`);
    }
    this.waits.length = 0;
    this.backends.set(netdev.id, this.open(netdev));
    this.plug(netdev);
    try {
      await Promise.all(this.waits.splice(0));
    } catch (error) {
      this.remove(netdev.id);
      throw error;
    }
  }

  /** A card that is still on it hears nothing any more (`netdev_del`). @throws Error when there is none */
  remove(id: string): void {
    const backend = this.backends.get(id);
    if (backend === undefined) throw new Error(`Device '${id}' not found`);
    backend.close();
    this.backends.delete(id);
    this.ports.delete(id);
  }

  /** Pulls a cable, or plugs it in (`set_link`). @throws Error when there is no such network */
  setLink(netdev: string, up: boolean): void {
    (this.port(netdev) as CardPort).setLink(up);
  }

  saveState(): DeviceState {
    const leases: { [id: string]: StateValue } = {};
    const cut: string[] = [];
    for (const [id, backend] of this.backends) {
      if (backend instanceof UserNetwork && backend.dhcp !== null) leases[id] = backend.dhcp.saveLeases();
    }
    for (const [id, { linkUp }] of this.ports) if (!linkUp) cut.push(id);
    return { version: 1, fields: { leases, cut } };
  }

  /** What is behind a card may be another network here: what there is none for is left. */
  loadState({ version, fields }: DeviceState): void {
    const { leases, cut } = fields;
    if (version !== 1) throw new Error(`networks: saved state has version ${version}, this machine has 1`);
    if (!Array.isArray(cut)) throw new Error('networks: field "cut" is not a list');
    if (typeof leases !== 'object' || Array.isArray(leases) || leases instanceof Uint8Array) {
      throw new Error('networks: field "leases" is not a record');
    }
    for (const [id, backend] of this.backends) {
      const saved = leases[id];
      if (!(backend instanceof UserNetwork) || backend.dhcp === null || saved === undefined) continue;
      if (!Array.isArray(saved) || !saved.every((mac) => mac instanceof Uint8Array)) {
        throw new Error(`networks: field "leases.${id}" is not a list of addresses`);
      }
      backend.dhcp.loadLeases(saved);
    }
    for (const [id, port] of this.ports) port.linkUp = !cut.includes(id);
  }

  /** Cards are given frames only while the machine runs. */
  setRunning(running: boolean): void {
    this.running = running;
    for (const port of this.ports.values()) port.setRunning(running);
  }

  close(): void {
    for (const backend of this.backends.values()) backend.close();
    for (const { dump } of this.dumps) dump.close();
    this.backends.clear();
    this.ports.clear();
    this.dumps.length = 0;
  }

  private named(netdev: NetdevConfig, act: () => void): void {
    try {
      act();
    } catch (error) {
      throw new Error(`network "${netdev.id}": ${(error as Error).message}`);
    }
  }

  private open(netdev: NetdevConfig): PacketBackend {
    const { host, clock } = this.parts;
    switch (netdev.type) {
      case 'user':
        return this.openUser(netdev);
      case 'tap':
        return new TapBackend(host, { ...netdev, name: netdev.ifname });
      case 'stream':
        return new StreamBackend(host, clock, netdev, this.streamOutcome(netdev));
      case 'dgram':
        return new DgramBackend(host, netdev, this.awaited(netdev.id));
      case 'hubport':
        return this.hub(netdev.hub).port();
    }
  }

  private openUser(netdev: NetdevConfig & { type: 'user' }): UserNetwork {
    const network = new UserNetwork({ ...this.parts, plan: netdev.plan });
    try {
      for (const forward of netdev.plan.hostForwards) {
        const rule = describe(forward);
        network.addForward(
          forward,
          this.awaited(netdev.id, (why) => `Could not set up host forwarding rule '${rule}' (${why})`),
        );
      }
    } catch (error) {
      network.close();
      throw error;
    }
    return network;
  }

  /** A server must listen before the machine starts; a client may find nobody, as when a cable is pulled. */
  private streamOutcome(netdev: NetdevConfig & { type: 'stream' }) {
    if (netdev.server) return this.awaited(netdev.id);
    return {
      onReady: () => undefined,
      onFailure: (error: Error) => this.parts.warn(`network "${netdev.id}": ${error.message}`),
    };
  }

  /** @param say what the user is told, given what the host says */
  private awaited(id: string, say = (why: string): string => why): { onReady(): void; onFailure(error: Error): void } {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.waits.push(promise);
    return {
      onReady: resolve,
      onFailure: (error) => reject(new Error(`network "${id}": ${say(error.message)}`)),
    };
  }

  private hub(number: number): Hub {
    const hub = this.hubs.get(number) ?? new Hub();
    this.hubs.set(number, hub);
    return hub;
  }

  /** A hub port that another network is plugged into has no room for a card. */
  private plug(netdev: NetdevConfig): void {
    if (netdev.type !== 'hubport' || netdev.netdev === null) return;
    const { id, hub, netdev: other } = netdev;
    const port = this.backends.get(id)!;
    this.named(netdev, () => this.hub(hub).connect(this.port(other)));
    port.close();
  }

  private openDump({ id, netdev, file, maxLength }: DumpConfig): void {
    try {
      this.dumps.push({ netdev, dump: new FrameDump(this.parts.host, file, maxLength) });
    } catch (error) {
      throw new Error(`filter "${id}": ${file}: ${(error as Error).message}`);
    }
  }
}

function describe({ protocol, at, guest, port }: HostForward): string {
  const address = 'path' in at || at.address === '0.0.0.0' ? '' : at.address;
  const where = 'path' in at ? `unix:${at.path}` : `${protocol}:${address}:${at.port}`;
  return `${where}-${guest === null ? '' : formatIp(guest)}:${port}`;
}
