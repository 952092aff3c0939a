/** Categories of `-d`: QEMU's names where they fit, and what the machine's parts call their own. */
import { ValueError } from './values.ts';

type Category = { readonly text: string; readonly covers: readonly string[] };

export const TRACE_CATEGORIES: Record<string, Category> = {
  int: { text: 'interrupts and exceptions', covers: ['int', 'smi'] },
  cpu: { text: 'registers at each interrupt and exception', covers: ['int', 'cpu'] },
  pcall: { text: 'far transfers, returns and system calls', covers: ['pcall'] },
  mmu: { text: 'page faults and changes of the address space', covers: ['mmu'] },
  in_asm: { text: 'guest code, as bytes, when it is translated', covers: ['in_asm'] },
  op: { text: 'the intermediate code of each block', covers: ['op'] },
  out_asm: { text: 'the size of what it becomes', covers: ['out_asm'] },
  exec: { text: 'entries into translated code, which goes on from block to block by itself', covers: ['exec'] },
  cpu_reset: { text: 'resets and triple faults', covers: ['cpu_reset', 'triple-fault'] },
  guest_errors: {
    text: 'what no correct guest does: unknown MSRs, writes to ROM, code outside memory',
    covers: ['unknown-msr', 'rom-write', 'fetch'],
  },
  unimp: { text: 'what is not there: unassigned ports and memory', covers: ['unassigned-io', 'unassigned-mmio'] },
  jit: { text: 'what the translator does', covers: ['jit'] },
  machine: { text: 'power events', covers: ['machine'] },
  'unassigned-io': { text: 'ports that nothing answers at', covers: ['unassigned-io'] },
  'unassigned-mmio': { text: 'addresses that nothing answers at', covers: ['unassigned-mmio'] },
  'unknown-msr': { text: 'model-specific registers that are not known', covers: ['unknown-msr'] },
};

/** @returns the machine's own names of what is to be traced */
export function parseTrace(names: readonly string[]): string[] {
  const all = Object.values(TRACE_CATEGORIES);
  return names.flatMap((name) => {
    if (name === 'all') return all.flatMap(({ covers }) => covers);
    if (Object.hasOwn(TRACE_CATEGORIES, name)) return [...TRACE_CATEGORIES[name]!.covers];
    throw new ValueError(`"${name}" is not a category (-d help lists them)`);
  });
}
