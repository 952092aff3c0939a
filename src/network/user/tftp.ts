/** A TFTP server (RFC 1350) that only lets files of one folder be read; block size and size options (RFC 2347-2349). */
import type { ServedFile, ServedFolder } from '../../host/network.ts';
import type { Timer, VirtualClock } from '../../machine/interfaces.ts';
import { sameAddress, type IpAddress } from '../address.ts';
import { get16, put16 } from '../layout.ts';
import type { IpLayer, Packet } from './packet.ts';
import type { Udp } from './udp.ts';

const PORT = 69;
const READ = 1;
const WRITE = 2;
const DATA = 3;
const ACK = 4;
const ERROR = 5;
const OPTIONS_ACK = 6;

const NOT_FOUND = 1;
const ACCESS_VIOLATION = 2;
const ILLEGAL = 4;

const HEADER = 4;
const DEFAULT_BLOCK = 512;
const LEAST_BLOCK = 8;
/** What fits a frame of 1500 bytes with the headers of either IP. */
const LARGEST_BLOCK = 1428;
const MAX_TRANSFERS = 20;
const MAX_REQUEST = 512;
/** Nanoseconds: an unanswered packet is sent again, five times. */
const RETRY = 1e9;
const MAX_RETRIES = 5;

type Transfer = {
  readonly ip: IpLayer;
  readonly server: IpAddress;
  readonly client: IpAddress;
  readonly port: number;
  readonly file: ServedFile;
  readonly blockSize: number;
  /** Number of the block that was sent last, counted without wrapping; 0 for the options. */
  block: number;
  last: Uint8Array;
  done: boolean;
  retries: number;
};

export class TftpServer {
  private readonly folder: ServedFolder;
  private readonly udp: Udp;
  private readonly clock: VirtualClock;
  private readonly transfers = new Map<string, Transfer>();
  private readonly timer: Timer;

  constructor(folder: ServedFolder, udp: Udp, clock: VirtualClock) {
    this.folder = folder;
    this.udp = udp;
    this.clock = clock;
    this.timer = clock.timer((now) => this.retry(now));
    udp.serve((packet, from, port, data) => {
      if (port !== PORT || !sameAddress(packet.destination, packet.ip.self)) return false;
      this.input(packet, from, data);
      return true;
    });
  }

  close(): void {
    for (const { file } of this.transfers.values()) file.close();
    this.transfers.clear();
    this.timer.cancel();
  }

  private input(packet: Packet, port: number, data: Uint8Array): void {
    if (data.length < 2 || data.length > MAX_REQUEST) return;
    const key = `${packet.source.join()},${port}`;
    switch (get16(data, 0)) {
      case READ:
        return this.begin(key, packet, port, data);
      case WRITE:
        return this.refuse(packet, port, ACCESS_VIOLATION, 'Access violation');
      case ACK:
        return this.acknowledged(key, data);
      case ERROR:
        return this.end(key);
    }
  }

  private begin(key: string, packet: Packet, port: number, data: Uint8Array): void {
    this.end(key);
    // A copy: decoders take no memory that others may write to.
    const words = new TextDecoder('latin1').decode(new Uint8Array(data.subarray(2))).split('\0');
    const [name, mode, ...options] = words.slice(0, -1);
    if (name === undefined || mode?.toLowerCase() !== 'octet') {
      return this.refuse(packet, port, ILLEGAL, 'Only octet mode is served');
    }
    let file: ServedFile | null;
    try {
      file = this.folder.open(name);
    } catch {
      return this.refuse(packet, port, ACCESS_VIOLATION, 'Access violation');
    }
    if (file === null) return this.refuse(packet, port, NOT_FOUND, 'File not found');
    if (this.transfers.size >= MAX_TRANSFERS) this.end(this.transfers.keys().next().value!);
    const { accepted, blockSize } = negotiate(options, file.size);
    const transfer: Transfer = {
      ip: packet.ip,
      server: packet.destination,
      client: packet.source,
      port,
      file,
      blockSize,
      block: 0,
      last: accepted,
      done: false,
      retries: 0,
    };
    this.transfers.set(key, transfer);
    if (this.timer.deadline === Infinity) this.timer.arm(this.clock.now() + RETRY);
    if (accepted.length > 2) this.send(transfer, accepted);
    else this.next(key, transfer);
  }

  private acknowledged(key: string, data: Uint8Array): void {
    const transfer = this.transfers.get(key);
    // Late acknowledgements are passed over: answering them would double everything (RFC 1123, 4.2.3.1).
    if (transfer === undefined || data.length < HEADER || get16(data, 2) !== (transfer.block & 0xffff)) return;
    if (transfer.done) this.end(key);
    else this.next(key, transfer);
  }

  private next(key: string, transfer: Transfer): void {
    const packet = new Uint8Array(HEADER + transfer.blockSize);
    let count: number;
    try {
      count = transfer.file.read(transfer.block * transfer.blockSize, packet.subarray(HEADER));
    } catch {
      return this.end(key);
    }
    transfer.block++;
    transfer.retries = 0;
    put16(packet, 0, DATA);
    put16(packet, 2, transfer.block & 0xffff);
    transfer.last = packet.subarray(0, HEADER + count);
    transfer.done = count < transfer.blockSize;
    this.send(transfer, transfer.last);
  }

  private send({ ip, server, client, port }: Transfer, packet: Uint8Array): void {
    this.udp.send(ip, server, PORT, client, port, packet);
  }

  private refuse(packet: Packet, port: number, code: number, why: string): void {
    const message = new Uint8Array(HEADER + why.length + 1);
    put16(message, 0, ERROR);
    put16(message, 2, code);
    message.set(new TextEncoder().encode(why), HEADER);
    this.udp.send(packet.ip, packet.destination, PORT, packet.source, port, message);
  }

  private retry(now: number): void {
    for (const [key, transfer] of this.transfers) {
      if (++transfer.retries > MAX_RETRIES) this.end(key);
      else if (transfer.retries > 1) this.send(transfer, transfer.last);
    }
    if (this.transfers.size > 0) this.timer.arm(now + RETRY);
  }

  private end(key: string): void {
    this.transfers.get(key)?.file.close();
    this.transfers.delete(key);
  }
}

/** @returns the answer to the options that are known, two bytes when there are none */
function negotiate(options: readonly string[], size: number): { accepted: Uint8Array; blockSize: number } {
  let blockSize = DEFAULT_BLOCK;
  const answers: string[] = [];
  for (let i = 0; i + 1 < options.length; i += 2) {
    const name = options[i]!.toLowerCase();
    const value = Number(options[i + 1]);
    if (name === 'blksize' && value >= LEAST_BLOCK) {
      blockSize = Math.min(Math.floor(value), LARGEST_BLOCK);
      answers.push(name, String(blockSize));
    } else if (name === 'tsize') answers.push(name, String(size));
  }
  const body = new TextEncoder().encode(answers.map((word) => `${word}\0`).join(''));
  const accepted = new Uint8Array(2 + body.length);
  put16(accepted, 0, OPTIONS_ACK);
  accepted.set(body, 2);
  return { accepted, blockSize };
}
