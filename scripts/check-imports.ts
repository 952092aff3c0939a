/** Checks what the layout of the source promises: who may import whom, and how long a file may be. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const MAX_LINES = 800;

/** Rooms of `src` and what each may import besides itself. A missing room may import nothing. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  ir: [],
  wasm: ['ir'],
  isa: ['ir', 'machine', 'wasm'],
  jit: ['host', 'ir', 'isa', 'machine', 'wasm'],
  guest: [],
  host: [],
  character: ['host', 'machine'],
  devices: ['host', 'machine'],
  machine: ['devices', 'display', 'host', 'ir', 'isa', 'jit', 'kvm', 'migration', 'network', 'storage', 'wasm'],
  kvm: ['devices', 'host', 'isa', 'machine'],
  storage: ['host', 'machine'],
  network: ['host', 'machine'],
  display: ['host', 'machine'],
  control: ['character', 'devices', 'host', 'machine', 'migration'],
  migration: ['host', 'machine'],
  user: ['host', 'ir', 'isa', 'jit', 'machine'],
  manager: ['cli', 'control', 'host', 'machine'],
  cli: [
    'character',
    'control',
    'devices',
    'display',
    'guest',
    'host',
    'isa',
    'kvm',
    'machine',
    'migration',
    'network',
    'storage',
  ],
  '.': ['control', 'guest', 'machine'],
};
/** Lower rooms that see of the room above no more than its contracts. */
const CONTRACTS: Record<string, readonly string[]> = {
  machine: [
    'src/machine/interfaces.ts',
    'src/machine/accelerator.ts',
    'src/machine/address-space.ts',
    'src/machine/loader/cpu-state.ts',
    'src/machine/config.ts',
    'src/machine/cpu-topology.ts',
    'src/machine/network-config.ts',
  ],
  isa: ['src/isa/isa.ts', 'src/isa/float-stack.ts'],
  host: [
    'src/host/host.ts',
    'src/host/early-thread.ts',
    'src/host/file-tree.ts',
    'src/host/network.ts',
    'src/host/pieces.ts',
    'src/host/node/threads.ts',
  ],
};
const UNDER_CONTRACT: readonly (readonly [room: string, target: string, more?: readonly string[]])[] = [
  ['devices', 'machine'],
  ['devices', 'host'],
  ['isa', 'machine'],
  ['jit', 'machine'],
  ['character', 'machine'],
  ['jit', 'isa'],
  ['jit', 'host'],
  ['storage', 'machine'],
  ['network', 'machine'],
  ['display', 'machine'],
  ['kvm', 'machine'],
  // KVM's registers and chips are one form of a state that is defined elsewhere.
  [
    'kvm',
    'isa',
    [
      'src/isa/x86/state.ts',
      'src/isa/x86/system/saved-state.ts',
      'src/isa/x86/system/xsave-layout.ts',
      'src/isa/x86/system/cpuid-leaves.ts',
      'src/isa/x86/system/hyperv.ts',
      'src/isa/x86/system/models.ts',
      'src/isa/x86/system/machine-check.ts',
      'src/isa/x86/system/power-on.ts',
    ],
  ],
  ['kvm', 'devices', ['src/devices/intc/apic-timer.ts', 'src/devices/intc/i8259.ts', 'src/devices/timer/i8254.ts']],
  ['migration', 'machine'],
];
/** Rooms that only some files of another room know. */
const KNOWN_TO: Record<string, Record<string, readonly string[]>> = {
  machine: { kvm: ['src/machine/create.ts'] },
};
const HOST_MODULES_IN = ['src/host/node/', 'src/cli/', 'src/kvm/', 'src/manager/'];

export type Source = { readonly path: string; readonly text: string };

const isTest = (path: string): boolean => /\.test\.ts$|^test\/|\/mocks\.ts$|\/test-[^/]*$/.test(path);

/** The modules that a file names, and whether only types are taken from them. */
export function importsOf(text: string): { target: string; typeOnly: boolean }[] {
  const found = text.matchAll(/^\s*(?:import|export)\s+(type\s)?(?:[^;'"]*?\sfrom\s+)?['"]([^'"]+)['"]/gm);
  return [...found].map(([, type, target]) => ({ target: target!, typeOnly: type !== undefined }));
}

function resolve(from: string, target: string): string | null {
  if (target === '#host' || target === '#threads') return `src/host/node/${target.slice(1)}.ts`;
  if (target.startsWith('#host/')) return `src/host/node/${target.slice('#host/'.length)}.ts`;
  return target.startsWith('.') ? join(dirname(from), target) : null;
}

const roomOf = (path: string): string => /^src\/([^/]+)\//.exec(path)?.[1] ?? '.';

/** A folder below `devices` is one family; files in the room itself are common to all. */
const familyOf = (path: string): string | null => /^src\/devices\/([^/]+)\//.exec(path)?.[1] ?? null;

function checkImport(path: string, target: string): string | null {
  if (target.startsWith('node:')) {
    return HOST_MODULES_IN.some((place) => path.startsWith(place))
      ? null
      : `${path}: host module ${target} outside ${HOST_MODULES_IN.join(', ')}`;
  }
  const to = resolve(path, target);
  if (to === null) return `${path}: package ${target} (the emulator has no dependencies)`;
  const from = roomOf(path);
  const room = roomOf(to);
  if (from !== room) return checkRooms(path, to, from, room);
  const families = [familyOf(path), familyOf(to)];
  if (from === 'devices' && families[0] !== families[1] && families[1] !== null) {
    return `${path}: imports its sibling ${to}`;
  }
  return null;
}

function checkRooms(path: string, to: string, from: string, room: string): string | null {
  // Only src/index.ts lies outside all rooms.
  if (room === '.' && from === 'cli') return null;
  if (!(MAY_IMPORT[from] ?? []).includes(room)) return `${path}: ${from} may not import ${to}`;
  const knowing = KNOWN_TO[from]?.[room];
  if (knowing !== undefined && !knowing.includes(path)) return `${path}: of ${from} only ${knowing.join(', ')} may import ${to}`;
  const contract = UNDER_CONTRACT.find(([a, b]) => a === from && b === room);
  if (contract !== undefined && ![...(CONTRACTS[room] ?? []), ...(contract[2] ?? [])].includes(to)) {
    return `${path}: ${from} sees of ${room} only its contracts, not ${to}`;
  }
  return null;
}

/** Import cycles at run time; types may refer to each other freely. */
export function findCycle(sources: readonly Source[]): string | null {
  const edges = new Map(
    sources.map(({ path, text }) => [
      path,
      importsOf(text)
        .filter(({ typeOnly }) => !typeOnly)
        .map(({ target }) => resolve(path, target))
        .filter((to) => to !== null),
    ]),
  );
  const finished = new Set<string>();
  const visit = (path: string, trail: readonly string[]): string | null => {
    if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path].join(' -> ');
    if (finished.has(path)) return null;
    for (const to of edges.get(path) ?? []) {
      const cycle = visit(to, [...trail, path]);
      if (cycle !== null) return cycle;
    }
    finished.add(path);
    return null;
  };
  for (const path of edges.keys()) {
    const cycle = visit(path, []);
    if (cycle !== null) return cycle;
  }
  return null;
}

function checkLength({ path, text }: Source): string[] {
  const lines = text.split('\n').length - 1;
  const limited = !/table|rows|^src\/isa\/.*\/decode/.test(path);
  return limited && lines > MAX_LINES ? [`${path}: ${lines} lines, more than ${MAX_LINES}`] : [];
}

/** @returns one line for each breach */
export function check(sources: readonly Source[]): string[] {
  const product = sources.filter(({ path }) => path.startsWith('src/') && !isTest(path));
  const imports = product.flatMap(({ path, text }) =>
    importsOf(text)
      .map(({ target }) => checkImport(path, target))
      .filter((line) => line !== null),
  );
  const cycle = findCycle(product);
  return [...imports, ...(cycle === null ? [] : [`import cycle: ${cycle}`]), ...sources.flatMap(checkLength)];
}

function readSources(): Source[] {
  return ['src', 'test', 'bench', 'scripts'].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => ({ path: relative(ROOT, path), text: readFileSync(path, 'utf8') })),
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const breaches = check(readSources());
  for (const line of breaches) console.error(line);
  process.exitCode = breaches.length === 0 ? 0 : 1;
}
