/** The parts of one vCPU's system code, for the functions that need several of them. */
import type { Core } from './core.ts';
import type { Debug } from './debug.ts';
import type { Events } from './exceptions.ts';
import type { Mmu } from './mmu.ts';
import type { Segments } from './segments.ts';
import type { Stack } from './stack.ts';

export interface Parts {
  readonly core: Core;
  readonly debug: Debug;
  readonly mmu: Mmu;
  readonly segs: Segments;
  readonly stack: Stack;
  readonly events: Events;
}
