/** What a machine's state consists of, as sections of a stream: nothing in it goes by its place. */
import type { DeviceState, StateOwner } from '../machine/interfaces.ts';
import { difference } from './configuration.ts';
import { type MemoryBlock, PageLoader, savePages } from './ram.ts';
import { endSection, fieldsOf, fieldsSection, SECTION, type Section, StreamReader, streamHeader } from './stream.ts';
import type { Fields } from './values.ts';

export interface StateParts {
  /** What the guest sees of the configuration: a machine with another one cannot go on from the state. */
  readonly configuration: Fields;
  readonly memory: readonly MemoryBlock[];
  /** In the order in which they are loaded. */
  readonly owners: readonly StateOwner[];
}

const CONFIGURATION = 'configuration';
/** Bytes of all sections of fields together. */
const MAX_FIELDS = 2 ** 26;

/**
 * @param parts of a machine that stands still until the stream has ended
 * @returns the stream, in pieces, each of which holds until the next is asked for
 */
export async function* saveMachine(parts: StateParts, compress: boolean): AsyncGenerator<Uint8Array> {
  // Whatever may refuse to be saved does so before anything has been written.
  const states = saveOwners(parts.owners);
  yield streamHeader();
  yield* fieldsSection(CONFIGURATION, 1, parts.configuration);
  for (const block of parts.memory) yield* savePages(block, compress);
  for (const [id, state] of states) yield* fieldsSection(id, state.version, state.fields);
  yield* endSection();
}

/**
 * @param parts of a machine that has not begun to run
 * @throws Error, one line that says where the stream does not fit; the machine is of no use afterwards
 */
export async function loadMachine(parts: StateParts, source: AsyncIterable<Uint8Array>): Promise<void> {
  const reader = new StreamReader(source);
  await reader.begin();
  checkConfiguration(parts.configuration, await reader.next());
  const pages = new PageLoader(parts.memory);
  const states = new Map<string, DeviceState>();
  let size = 0;
  for (;;) {
    const section = await reader.next();
    if (section.type === SECTION.end) break;
    if (section.type === SECTION.pages) await pages.load(section);
    else if (section.type === SECTION.fields) {
      size += section.body.length;
      if (size > MAX_FIELDS) throw bad(section, 'the sections of fields are too large together');
      states.set(section.id, stateIn(section, parts.owners, states));
    } else throw bad(section, `has type ${section.type}, which is not known`);
  }
  await reader.end();
  pages.finish();
  loadOwners(parts.owners, states);
}

const bad = ({ id }: Section, why: string): Error => new Error(`saved state: section "${id}": ${why}`);

function checkConfiguration(mine: Fields, section: Section): void {
  if (section.type !== SECTION.fields || section.id !== CONFIGURATION) {
    throw new Error(`saved state: section "${section.id}" comes first instead of "${CONFIGURATION}"`);
  }
  if (section.version !== 1) throw bad(section, `has version ${section.version}, of which only 1 can be read`);
  const found = difference(fieldsOf(section), mine);
  if (found !== null) throw new Error(`saved state: ${found}`);
}

function stateIn(section: Section, owners: readonly StateOwner[], before: ReadonlyMap<string, DeviceState>): DeviceState {
  if (!owners.some(({ id }) => id === section.id)) throw bad(section, 'this machine has no such device');
  if (before.has(section.id)) throw bad(section, 'is there twice');
  return { version: section.version, fields: fieldsOf(section) };
}

/** @returns every owner's state by its id, in their order @throws Error when one cannot be saved */
export function saveOwners(owners: readonly StateOwner[]): Map<string, DeviceState> {
  return new Map(owners.map((owner) => [owner.id, owner.saveState()]));
}

/** @throws Error naming the owner whose state is missing or does not fit */
export function loadOwners(owners: readonly StateOwner[], states: ReadonlyMap<string, DeviceState>): void {
  for (const { id } of owners) if (!states.has(id)) throw new Error(`saved state: section "${id}" is missing`);
  for (const owner of owners) {
    try {
      owner.loadState(states.get(owner.id)!);
    } catch (error) {
      throw new Error(`saved state: section "${owner.id}": ${(error as Error).message}`);
    }
  }
  for (const owner of owners) owner.afterLoad?.();
}
