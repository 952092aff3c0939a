/**
 * Makes what is published: JavaScript in few files, since Node.js does not strip types in packages, and loading hundreds
 * of modules takes longer than all that a machine does before its guest runs.
 *
 *     dist/app/NAME.js      a program, or the library (index.js)
 *     dist/app/part-*.js    what programs load when they need it
 *     dist/app/THREAD-*.js  threads, and what they load when they need it
 *     dist/app/*.wasm       the translator's runtime modules, which would be made at each start else
 *
 * Threads share no modules with the program or each other, whatever files these lie in. So each is bundled by itself: what
 * a thread begins with is one file then, where a file for everything that it has in common with any other would be forty.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { type Plugin, rolldown } from 'rolldown';
import { x86Isa } from '../src/isa/x86/isa.ts';
import { makeCommonRuntime } from '../src/jit/runtime.ts';

const ROOT = dirname(import.meta.dirname);
/** As deep below the package's folder as the sources' folders: files that are named by way of `import.meta.url` are found. */
const OUTPUT = join(ROOT, 'dist/app');

interface Bundle {
  /** What the names of its files begin with. */
  readonly name: string;
  readonly entries: readonly string[];
  /** Modules that lie in one file, with all that they import but for what is in one of those before. */
  readonly whole: readonly (readonly string[])[];
  /** What lies in one file is there from the start, for all that ask for it: no file is read for that. */
  readonly atOnce?: boolean;
}

const PROGRAMS: readonly Bundle[] = [
  {
    name: 'part',
    entries: ['src/index.ts', 'src/cli/system-main.ts', 'src/cli/virelay-main.ts', 'src/cli/start.ts'],
    whole: [['src/machine/thread.ts'], ['src/index.ts'], ['src/cli/system.ts']],
  },
  {
    name: 'img',
    entries: ['src/cli/img-main.ts', 'src/cli/nbd-main.ts'],
    // Code that is not used costs less than another file, of which each takes half a millisecond.
    atOnce: true,
    whole: [
      [
        ...['open', 'info', 'create', 'convert'].map((name) => `src/cli/img-${name}.ts`),
        ...['file', 'raw', 'raw-create', 'copy'].map((name) => `src/storage/${name}.ts`),
        ...['driver', 'creation', 'create', 'info', 'snapshots', 'resize'].map((name) => `src/storage/qcow2/${name}.ts`),
      ],
    ],
  },
];
/** Modules that are named by their addresses, for a thread to load. */
const THREADS: readonly Bundle[] = [
  {
    name: 'machine',
    entries: ['src/machine/worker.ts', 'src/machine/kvm-worker.ts'],
    whole: [
      ['src/jit/compiler-start.ts'],
      ['src/machine/machine-thread.ts'],
      ['src/kvm/open.ts'],
      ['src/machine/translating.ts'],
    ],
  },
  {
    name: 'compiler',
    entries: ['src/jit/compile-thread.ts', 'src/isa/x86/isa.ts'],
    whole: [['src/isa/x86/isa.ts'], ['src/jit/compile-thread.ts']],
  },
  { name: 'kicker', entries: ['src/kvm/kicker-thread.ts'], whole: [] },
  { name: 'vcpu', entries: ['src/kvm/vcpu-worker.ts'], whole: [] },
  { name: 'tap', entries: ['src/host/node/tap-reader.ts'], whole: [] },
];

const THREAD_FILES = new Map(
  THREADS.flatMap(({ name, entries }) => entries.map((module) => [module, `${name}-${basename(module, '.ts')}.js`])),
);
const MODULE_URL = /new URL\('(\.[^']+\.ts)', import\.meta\.url\)/g;

/** @throws Error where a module is named by its address that is in no bundle */
function modulesByAddress(): Plugin {
  return {
    name: 'modules by address',
    transform(code, id) {
      if (!code.includes('import.meta.url')) return null;
      return code.replace(MODULE_URL, (_, path: string) => {
        const module = relative(ROOT, join(dirname(id), path));
        const file = THREAD_FILES.get(module);
        if (file === undefined) throw new Error(`${id}: ${module} is in no bundle of THREADS`);
        return `new URL('./${file}', import.meta.url)`;
      });
    },
  };
}

const LOADED_LATER = /\bimport\('(\.[^']+)'\)/g;

/** Modules that are asked for by `import()` are there from the start. */
function loadedAtOnce(modules: readonly string[]): Plugin {
  return {
    name: 'loaded at once',
    transform(code, id) {
      const imports: string[] = [];
      const changed = code.replace(LOADED_LATER, (whole, path: string) => {
        if (!modules.includes(relative(ROOT, join(dirname(id), path)))) return whole;
        imports.push(`import * as loaded${imports.length} from '${path}';\n`);
        return `Promise.resolve(loaded${imports.length - 1})`;
      });
      return imports.length === 0 ? null : imports.join('') + changed;
    },
  };
}

const HOST_IMPORT = /^import \{([^}]*)\} from "(node:[^"]+)";$/gm;

/**
 * Node.js makes all that a module of its own exports when it is imported by name, and for node:fs that is most of its library:
 * promises, streams, web streams. This takes only what is named: 3 ms of each thread's start.
 */
function hostModulesOnDemand(): Plugin {
  return {
    name: 'host modules on demand',
    renderChunk: (code) =>
      code.replace(
        HOST_IMPORT,
        (_, names: string, module: string) =>
          `const {${names.replaceAll(' as ', ': ')}} = process.getBuiltinModule("${module}");`,
      ),
  };
}

/** @returns bytes and files written */
async function write(folder: string, { name, entries, whole, atOnce }: Bundle): Promise<[bytes: number, files: number]> {
  const nameOf = (module: string): string => THREAD_FILES.get(module) ?? `${basename(module, '.ts')}.js`;
  const made = await rolldown({
    input: Object.fromEntries(entries.map((module) => [basename(nameOf(module), '.js'), join(ROOT, module)])),
    platform: 'node',
    // What is wanted at once is loaded at once, however it is asked for.
    checks: { ineffectiveDynamicImport: false },
    plugins: [modulesByAddress(), ...(atOnce ? [loadedAtOnce(whole.flat())] : []), hostModulesOnDemand()],
  });
  const { output } = await made.write({
    dir: folder,
    format: 'esm',
    entryFileNames: '[name].js',
    chunkFileNames: `${name}-[name].js`,
    minifyInternalExports: false,
    comments: false,
    minify: { compress: false, mangle: false, codegen: { removeWhitespace: true } },
    codeSplitting: {
      groups: whole.map((modules) => ({
        name: basename(modules[0]!, '.ts'),
        test: (id) => modules.includes(relative(ROOT, id)),
      })),
    },
  });
  await made.close();
  return [output.reduce((sum, one) => sum + (one.type === 'chunk' ? one.code.length : one.source.length), 0), output.length];
}

/**
 * @param folder where the files go, in place of what is there
 * @param programs beside which the threads' files are to lie
 * @returns how much was written, in a line
 */
export async function build(folder: string, programs: readonly Bundle[] = PROGRAMS): Promise<string> {
  rmSync(folder, { recursive: true, force: true });
  const sizes: [number, number][] = [];
  for (const bundle of [...programs, ...THREADS]) sizes.push(await write(folder, bundle));
  const { engine, isa } = makeCommonRuntime(x86Isa(() => true));
  writeFileSync(join(folder, 'engine.wasm'), engine);
  writeFileSync(join(folder, 'x86.wasm'), isa!);
  const [bytes, files] = [0, 1].map((place) => sizes.reduce((sum, one) => sum + one[place]!, 0));
  return `${folder}: ${files} files, ${Math.round(bytes! / 1024)} KiB`;
}

if (import.meta.main) console.log(await build(OUTPUT));
