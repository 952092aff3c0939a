/** What a user network is carrying just now, as `info usernet` shows it. */

export interface NetworkFlow {
  readonly protocol: 'TCP' | 'UDP';
  /** TCP's states in capitals, seconds that are left for UDP, or HOST_FORWARD. */
  readonly state: string;
  /** Where it begins and where it leads: address and port as text, `*` for any. */
  readonly source: readonly [address: string, port: number];
  readonly destination: readonly [address: string, port: number];
  /** Bytes that wait for the host, and for the guest. */
  readonly toHost: number;
  readonly toGuest: number;
}

const HEADING = '  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ';

/** @param id name of the network @returns lines in QEMU's form; there are no file descriptors to tell of */
export function flowsText(id: string, flows: readonly NetworkFlow[]): string[] {
  const row = ({ protocol, state, source, destination, toHost, toGuest }: NetworkFlow): string => {
    const ends = [source, destination].map(([address, port]) => `${address.padStart(15)} ${String(port).padStart(5)}`);
    const queues = [toHost, toGuest].map((bytes) => String(bytes).padStart(5));
    return `  ${`${protocol}[${state}]`.padEnd(17)} ${'0'.padStart(3)} ${[...ends, ...queues].join(' ')}`;
  };
  return [`Hub -1 (${id}):`, HEADING, ...flows.map(row)];
}
