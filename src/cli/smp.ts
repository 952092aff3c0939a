/** `-smp`: how many CPUs, and how they are arranged; what is left out follows from the rest as QEMU has it. */
import { type CpuTopology, topologyFault } from '../machine/cpu-topology.ts';

/** Levels that packages are not divided by here. */
const UNDIVIDED = ['dies', 'clusters'] as const;
export const SMP_KEYS = ['cpus', 'sockets', 'cores', 'threads', ...UNDIVIDED, 'maxcpus'];

/**
 * @param given numbers by their names
 * @throws Error, one line
 */
export function completeSmp(given: ReadonlyMap<string, number>): { cpus: number; topology: CpuTopology } {
  for (const level of UNDIVIDED) {
    if ((given.get(level) ?? 1) !== 1)
      throw new Error(`${level}=${given.get(level)}: sockets are made of cores, and cores of threads`);
  }
  const wanted = given.get('maxcpus') ?? given.get('cpus');
  let { sockets, cores, threads } = Object.fromEntries(given) as { sockets?: number; cores?: number; threads?: number };
  const share = (others: number): number => Math.max(1, Math.floor(wanted! / others));
  // What nobody has said anything about becomes cores first, then sockets, then threads.
  if (wanted !== undefined && cores === undefined) cores = share((sockets ?? 1) * (threads ?? 1));
  else if (wanted !== undefined && sockets === undefined) sockets = share(cores! * (threads ?? 1));
  else if (wanted !== undefined && threads === undefined) threads = share(sockets! * cores!);
  const topology = { sockets: sockets ?? 1, cores: cores ?? 1, threads: threads ?? 1 };
  const total = wanted ?? topology.sockets * topology.cores * topology.threads;
  const cpus = given.get('cpus') ?? total;
  const fault = topologyFault(total, topology);
  if (fault !== null) throw new Error(fault);
  if (cpus !== total)
    throw new Error(`maxcpus=${total}: a machine has all of its CPUs from the beginning, and cpus says ${cpus}`);
  return { cpus, topology };
}
