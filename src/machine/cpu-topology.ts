/** How a machine's CPUs are arranged: packages (sockets) of cores of threads, and the APIC IDs that follow from it. */

export interface CpuTopology {
  readonly sockets: number;
  /** Of a socket. */
  readonly cores: number;
  /** Of a core. */
  readonly threads: number;
}

export const ONE_CPU: CpuTopology = { sockets: 1, cores: 1, threads: 1 };
/** 255 is a broadcast; further APICs could not be reached by interrupt messages of 8 bits. */
const HIGHEST_APIC_ID = 254;

export const cpuCount = ({ sockets, cores, threads }: CpuTopology): number => sockets * cores * threads;

/** So many CPUs where nothing else is said: cores of one package. */
export const coresOnly = (cpus: number): CpuTopology => ({ sockets: 1, cores: cpus, threads: 1 });

const bitsFor = (count: number): number => Math.ceil(Math.log2(count));

/** Bits of an APIC ID that tell the threads of a core apart. */
export const threadBits = ({ threads }: CpuTopology): number => bitsFor(threads);

/** Bits of an APIC ID that tell the threads of a package apart. */
export const packageBits = (topology: CpuTopology): number => threadBits(topology) + bitsFor(topology.cores);

/**
 * Thread, core and package have bits of their own in it (SDM vol. 3, 10.9.1), so IDs may have gaps.
 * @param index of the CPU, from 0
 */
export function apicIdOf(topology: CpuTopology, index: number): number {
  const { cores, threads } = topology;
  const thread = index % threads;
  const core = Math.floor(index / threads) % cores;
  const socket = Math.floor(index / (threads * cores));
  return (socket << packageBits(topology)) | (core << threadBits(topology)) | thread;
}

/** Of all CPUs, in order. */
export const apicIdsOf = (topology: CpuTopology): number[] =>
  Array.from({ length: cpuCount(topology) }, (_, index) => apicIdOf(topology, index));

/** One more than the highest APIC ID. */
export const apicIdLimit = (topology: CpuTopology): number => apicIdOf(topology, cpuCount(topology) - 1) + 1;

/** @returns why a machine cannot have such CPUs, null when it can */
export function topologyFault(cpus: number, topology: CpuTopology): string | null {
  const { sockets, cores, threads } = topology;
  const counts = Object.entries({ cpus, sockets, cores, threads });
  const bad = counts.find(([, count]) => !Number.isInteger(count) || count < 1 || count > HIGHEST_APIC_ID + 1);
  if (bad !== undefined) return `${bad[0]}=${bad[1]} is not a number from 1 to ${HIGHEST_APIC_ID + 1}`;
  if (cpuCount(topology) !== cpus) return `sockets (${sockets}) * cores (${cores}) * threads (${threads}) is not ${cpus}`;
  const highest = apicIdOf(topology, cpus - 1);
  return highest > HIGHEST_APIC_ID ? `APIC IDs go up to ${highest}, and ${HIGHEST_APIC_ID} is the highest there is` : null;
}
