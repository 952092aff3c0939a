/**
 * Socket device: virtio 1.2, section 5.10. The host's side are Unix sockets: a guest that connects to port P of CID 2 reaches
 * the socket PATH_P; a program of the host's connects to PATH, sends "CONNECT P\n" and is answered "OK PORT\n" once the
 * guest has accepted.
 */
import type { Accepted, HostNetwork, HostStream, Listener } from '../../host/network.ts';
import type { DeviceState } from '../../machine/interfaces.ts';
import type { Chain } from './chain.ts';
import { put64, readBytes } from './config-space.ts';
import { VirtioDevice, type VirtioParts } from './device.ts';
import { DEVICE } from './features.ts';
import type { Virtqueue } from './queue.ts';
import { Connection, type ConnectionOwner, OUR_BUFFER } from './vsock-connection.ts';
import { HOST_CID, OP, type Packet, PACKET_HEADER, packetBytes, parsePacket, STREAM } from './vsock-packet.ts';

const QUEUE_SIZE = 128;
const RECEIVE = 0;
const SEND = 1;
const EVENTS = 2;
const CONFIG_SIZE = 8;
const EVENT_RESET = new Uint8Array(4);
const MAX_CONNECTIONS = 1024;
/** Answers that wait for buffers; a guest that provides none is not listened to any longer. */
const MAX_BACKLOG = 512;
const FIRST_HOST_PORT = 2 ** 30;
const LONGEST_GREETING = 32;

export type VsockOptions = { cid: number; path: string | null; host: HostNetwork | null };

type Control = { sourcePort: number; targetPort: number; op: number; flags: number; consumed: number };

export class VirtioVsock extends VirtioDevice implements ConnectionOwner {
  readonly deviceType = DEVICE.socket;
  readonly configSize = CONFIG_SIZE;
  private readonly options: VsockOptions;
  private readonly connections = new Map<string, Connection>();
  private readonly backlog: Control[] = [];
  private readonly listener: Listener | null;
  private nextPort = FIRST_HOST_PORT;
  /** A state was loaded that had connections. */
  private lost = false;
  private sending = false;

  /** @throws Error when the socket cannot be had */
  constructor(parts: VirtioParts, options: VsockOptions) {
    super(parts, [QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE]);
    this.options = options;
    const { path, host } = options;
    const onFailure = (error: Error): void => parts.trace?.('guest_errors', `${parts.id}: ${path}: ${error.message}`);
    this.listener =
      path === null || host === null ? null : host.listen({ path }, (stream) => this.accepted(stream), { onFailure });
  }

  override close(): void {
    this.listener?.close();
    this.forgetAll();
  }

  override readConfig(offset: number, size: number): number {
    const bytes = new Uint8Array(CONFIG_SIZE);
    put64(bytes, 0, this.options.cid);
    return readBytes(bytes, offset, size);
  }

  protected deviceFeatures(): bigint {
    return 0n;
  }

  protected override onReset(): void {
    this.forgetAll();
  }

  protected override deviceState() {
    return {
      save: (): DeviceState => ({ version: 1, fields: { connected: this.connections.size > 0 } }),
      load: ({ fields }: DeviceState): void => {
        const { connected } = fields;
        if (typeof connected !== 'boolean') throw new Error(`${this.id}: field "connected" is not true or false`);
        this.lost = connected;
      },
    };
  }

  /** Connections do not come along: the guest is told that they are over. */
  protected override onLoad(): void {
    this.forgetAll();
  }

  override afterLoad(): void {
    if (!this.running || !this.lost) return;
    this.lost = false;
    const chain = this.queues[EVENTS]!.pop();
    if (chain === null) return;
    this.queues[EVENTS]!.push(chain, chain.write(0, EVENT_RESET));
    this.queues[EVENTS]!.flush();
  }

  protected queueNotified(queue: Virtqueue): void {
    if (queue.index === RECEIVE) this.wake();
    if (queue.index !== EVENTS) this.takePackets();
  }

  // --- From the guest.

  private takePackets(): void {
    const queue = this.queues[SEND]!;
    while (this.backlog.length < MAX_BACKLOG) {
      const chain = queue.pop();
      if (chain === null) break;
      this.takePacket(chain);
      queue.push(chain, 0);
    }
    queue.flush();
    this.wake();
  }

  private takePacket(chain: Chain): void {
    const header = new Uint8Array(PACKET_HEADER);
    if (chain.read(0, header) < PACKET_HEADER) return;
    const packet = parsePacket(header);
    if (packet.sourceCid !== this.options.cid) return;
    const known = this.connections.get(key(packet.targetPort, packet.sourcePort));
    if (packet.targetCid !== HOST_CID || packet.type !== STREAM || packet.length > chain.readable - PACKET_HEADER) {
      if (packet.op !== OP.reset) this.refuse(packet);
      return;
    }
    if (packet.op === OP.request && known === undefined) return this.connect(packet);
    if (known === undefined) {
      if (packet.op !== OP.reset) this.refuse(packet);
      return;
    }
    known.takeCredit(packet);
    this.act(known, packet, chain);
  }

  private act(connection: Connection, packet: Packet, chain: Chain): void {
    switch (packet.op) {
      case OP.response:
        return this.guestAccepted(connection);
      case OP.data: {
        const data = new Uint8Array(packet.length);
        chain.read(PACKET_HEADER, data);
        if (!connection.takeData(data)) this.drop(connection, packet);
        return;
      }
      case OP.shutdown:
        return connection.takeShutdown(packet.flags);
      case OP.creditRequest:
        return this.control(connection, OP.creditUpdate);
      case OP.creditUpdate:
        return;
      case OP.reset:
        connection.abort();
        return this.forget(connection);
      default:
        this.drop(connection, packet);
    }
  }

  private drop(connection: Connection, packet: Packet): void {
    connection.abort();
    this.forget(connection);
    this.refuse(packet);
  }

  private connect(packet: Packet): void {
    const { path, host } = this.options;
    if (path === null || host === null || this.connections.size >= MAX_CONNECTIONS) return this.refuse(packet);
    const connection = new Connection(this, packet.targetPort, packet.sourcePort);
    this.connections.set(key(packet.targetPort, packet.sourcePort), connection);
    connection.takeCredit(packet);
    connection.stream = host.connect({ path: `${path}_${packet.targetPort}` }, null, connection);
  }

  // --- From the host.

  /** A program of the host's says first which port it wants. */
  private accepted(incoming: Accepted): void {
    if (!this.running || this.connections.size >= MAX_CONNECTIONS) return incoming.refuse();
    let greeting = '';
    let connection: Connection | null = null;
    const stream: HostStream = incoming.start({
      onData: (data) => {
        if (connection !== null) return connection.onData(data);
        const end = data.indexOf(10);
        const line = end < 0 ? data : data.subarray(0, end);
        greeting += String.fromCharCode(...line.subarray(0, LONGEST_GREETING));
        if (end < 0 && greeting.length < LONGEST_GREETING) return;
        const port = /^CONNECT (\d{1,10})\r?$/.exec(greeting)?.[1];
        if (port === undefined || Number(port) >= 2 ** 32) return stream.reset();
        connection = this.request(stream, Number(port));
        if (end + 1 < data.length) connection.onData(data.subarray(end + 1));
      },
      onEnd: () => connection?.onEnd(),
      onDrain: () => connection?.onDrain(),
      onClose: () => connection?.onClose(),
    });
  }

  private request(stream: HostStream, port: number): Connection {
    const hostPort = this.nextPort++;
    const connection = new Connection(this, hostPort, port);
    connection.stream = stream;
    this.connections.set(key(hostPort, port), connection);
    this.control(connection, OP.request);
    return connection;
  }

  private guestAccepted(connection: Connection): void {
    if (connection.established) return;
    connection.established = true;
    connection.writeToHost(new TextEncoder().encode(`OK ${connection.hostPort}\n`));
    this.wake();
  }

  // --- For connections.

  control(connection: Connection, op: number, flags = 0): void {
    const { hostPort: sourcePort, guestPort: targetPort } = connection;
    // What is over has nothing to say any more.
    if (this.connections.get(key(sourcePort, targetPort)) !== connection) return;
    this.backlog.push({ sourcePort, targetPort, op, flags, consumed: connection.tell() });
    this.wake();
  }

  forget(connection: Connection): void {
    this.connections.delete(key(connection.hostPort, connection.guestPort));
  }

  /** Sends what can be sent: answers first, then data, a packet of each connection in turn. */
  wake(): void {
    if (!this.running || this.sending) return;
    this.sending = true;
    const queue = this.queues[RECEIVE]!;
    do {
      if (!this.sendBacklog(queue)) break;
      this.sendData(queue);
    } while (this.backlog.length > 0);
    queue.flush();
    this.sending = false;
  }

  /** @returns false when the driver has no more buffers */
  private sendBacklog(queue: Virtqueue): boolean {
    while (this.backlog.length > 0) {
      const chain = queue.pop();
      if (chain === null) return false;
      queue.push(chain, chain.write(0, this.header(this.backlog.shift()!, 0)));
    }
    return true;
  }

  private sendData(queue: Virtqueue): void {
    for (let moved = true; moved && this.backlog.length === 0; ) {
      moved = false;
      for (const connection of this.connections.values()) {
        const chain = queue.pop();
        if (chain === null) return;
        const data = connection.next(chain.writable - PACKET_HEADER);
        if (data === null) {
          queue.unpop(chain);
          continue;
        }
        const { hostPort: sourcePort, guestPort: targetPort } = connection;
        chain.write(0, this.header({ sourcePort, targetPort, op: OP.data, flags: 0, consumed: connection.tell() }, data.length));
        queue.push(chain, PACKET_HEADER + chain.write(PACKET_HEADER, data));
        moved = true;
      }
    }
  }

  private header({ sourcePort, targetPort, op, flags, consumed }: Control, length: number): Uint8Array {
    const ends = { sourceCid: HOST_CID, targetCid: this.options.cid, sourcePort, targetPort };
    return packetBytes({ ...ends, length, type: STREAM, op, flags, bufferSize: OUR_BUFFER, consumed });
  }

  private refuse({ sourcePort, targetPort }: Packet): void {
    this.backlog.push({ sourcePort: targetPort, targetPort: sourcePort, op: OP.reset, flags: 0, consumed: 0 });
  }

  private forgetAll(): void {
    for (const connection of this.connections.values()) connection.abort();
    this.connections.clear();
    this.backlog.length = 0;
  }
}

const key = (hostPort: number, guestPort: number): string => `${hostPort} ${guestPort}`;
