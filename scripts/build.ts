/**
 * Makes what is published: JavaScript in few files, since Node.js does not strip types in packages, and loading hundreds
 * of modules takes longer than all that a machine does before its guest runs.
 *
 *     dist/app/NAME.js       the entry of a program or a thread, or the library (index.js)
 *     dist/app/part-*.js     what programs load when they need it
 *     dist/app/BUNDLE-*.cjs  scripts: a machine's process and its threads, and what they load when they need it
 *     dist/app/*.wasm        the translator's runtime modules, which would be made at each start else
 *
 * Threads share no modules with the program or each other, whatever files these lie in. So each is bundled by itself: what
 * a thread begins with is one file then, where a file for everything that it has in common with any other would be forty.
 * Scripts are modules in another form, whose functions the JavaScript engine need not compile anew at each start
 * (src/host/node/scripts.ts).
 */
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { type OutputOptions, type Plugin, rolldown } from 'rolldown';
import { MARK_BYTES } from '../src/host/node/scripts.ts';
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

/** As modules. */
const PROGRAMS: readonly Bundle[] = [
  {
    name: 'part',
    entries: ['src/index.ts', 'src/cli/virelay-main.ts', 'src/cli/start.ts'],
    whole: [['src/machine/thread.ts'], ['src/index.ts']],
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
/** A machine's process, and its threads: as scripts. */
const SYSTEM: Bundle = {
  name: 'system',
  entries: ['src/cli/system-main.ts'],
  whole: [['src/machine/thread.ts'], ['src/cli/system.ts']],
};
const THREADS: readonly Bundle[] = [
  {
    name: 'machine',
    entries: ['src/machine/worker.ts', 'src/machine/kvm-worker.ts'],
    whole: [
      ['src/jit/compiler-start.ts'],
      ['src/machine/machine-thread.ts'],
      ['src/kvm/open.ts'],
      // The translator in the parts that it is loaded in (machine/accelerators.ts).
      ['src/isa/x86/isa.ts'],
      ['src/jit/engine.ts'],
      ['src/isa/x86/system/cpu.ts'],
      ['src/machine/translating.ts'],
    ],
  },
  {
    name: 'compiler',
    entries: ['src/jit/compile-thread.ts', 'src/isa/x86/isa.ts'],
    whole: [['src/isa/x86/isa.ts'], ['src/jit/compile-thread.ts']],
  },
  { name: 'kicker', entries: ['src/kvm/kicker-thread.ts'], whole: [] },
  { name: 'events', entries: ['src/kvm/event-thread.ts'], whole: [] },
  { name: 'vcpu', entries: ['src/kvm/vcpu-worker.ts'], whole: [] },
  { name: 'tap', entries: ['src/host/node/tap-reader.ts'], whole: [] },
];
/** Modules that are named by their addresses, but are no entries of threads. */
const NAMED_SCRIPTS = ['src/isa/x86/isa.ts'];

const entryName = (bundle: string, module: string): string => `${bundle}-${basename(module, '.ts')}`;

const FILES_BY_ADDRESS = new Map(
  THREADS.flatMap(({ name, entries }) =>
    entries.map((module) => [module, `${entryName(name, module)}.${NAMED_SCRIPTS.includes(module) ? 'cjs' : 'js'}`]),
  ),
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
        const file = FILES_BY_ADDRESS.get(module);
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

/** The place of a script is an argument of it. */
function addressGiven(): Plugin {
  return { name: 'address given', transform: (code) => code.replaceAll('import.meta.url', 'scriptAddress') };
}

/** Of a module that is named while the program runs. */
const IMPORT = /(?<![.\w])import\(([^,()]+)\)/g;

/** @param code in the form of CommonJS  @returns it as `runScript` takes it */
function scriptOf(code: string): string {
  const body = code
    .replace(IMPORT, 'Promise.resolve().then(() => require($1))')
    .replace(/[\u0080-\uffff]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`);
  const script = `(function(exports,require,scriptAddress){${body}\n})`;
  return createHash('sha256').update(script).digest('hex').slice(0, MARK_BYTES) + script;
}

const SHAPE: OutputOptions = {
  minifyInternalExports: false,
  comments: false,
  minify: { compress: false, mangle: false, codegen: { removeWhitespace: true } },
};

/** @param plugins after those that all bundles have */
async function bundled({ name, entries, whole, atOnce }: Bundle, format: 'esm' | 'cjs', plugins: Plugin[]) {
  const kind = format === 'cjs' ? 'cjs' : 'js';
  const nameOf = (module: string): string => (FILES_BY_ADDRESS.has(module) ? entryName(name, module) : basename(module, '.ts'));
  const made = await rolldown({
    input: Object.fromEntries(entries.map((module) => [nameOf(module), join(ROOT, module)])),
    platform: 'node',
    // What is wanted at once is loaded at once, however it is asked for.
    checks: { ineffectiveDynamicImport: false },
    plugins: [modulesByAddress(), ...(atOnce ? [loadedAtOnce(whole.flat())] : []), ...plugins],
  });
  const { output } = await made.generate({
    ...SHAPE,
    format,
    entryFileNames: `[name].${kind}`,
    chunkFileNames: `${name}-[name].${kind}`,
    codeSplitting: {
      groups: whole.map((modules) => ({
        name: basename(modules[0]!, '.ts'),
        test: (id) => modules.includes(relative(ROOT, id)),
      })),
    },
  });
  await made.close();
  return output.filter((one) => one.type === 'chunk');
}

/** Text by file. */
type Files = Map<string, string>;

async function modulesOf(bundle: Bundle): Promise<Files> {
  const chunks = await bundled(bundle, 'esm', [hostModulesOnDemand()]);
  return new Map(chunks.map(({ fileName, code }) => [fileName, code]));
}

/** Scripts, and a module for each of them that something begins with. */
async function scriptsOf(bundle: Bundle): Promise<Files> {
  const chunks = await bundled(bundle, 'cjs', [addressGiven()]);
  const [loader] = await bundled({ name: 'loader', entries: ['src/host/node/scripts.ts'], whole: [] }, 'esm', [
    hostModulesOnDemand(),
  ]);
  const files: Files = new Map();
  for (const { fileName, isEntry, code, facadeModuleId } of chunks) {
    files.set(fileName, scriptOf(code));
    if (!isEntry || NAMED_SCRIPTS.includes(relative(ROOT, facadeModuleId!))) continue;
    files.set(fileName.replace('.cjs', '.js'), `${loader!.code}runScript('${fileName}', import.meta.url);\n`);
  }
  return files;
}

/**
 * @param folder where the files go, in place of what is there
 * @param programs beside which the threads' files are to lie
 * @returns how much was written, in a line
 */
export async function build(folder: string, programs: readonly Bundle[] = PROGRAMS): Promise<string> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  let [files, bytes] = [0, 0];
  for (const made of [...programs.map(modulesOf), ...[SYSTEM, ...THREADS].map(scriptsOf)]) {
    for (const [name, text] of await made) {
      writeFileSync(join(folder, name), text);
      files++;
      bytes += text.length;
    }
  }
  const { engine, isa } = makeCommonRuntime(x86Isa(() => true));
  writeFileSync(join(folder, 'engine.wasm'), engine);
  writeFileSync(join(folder, 'x86.wasm'), isa!);
  return `${folder}: ${files} files, ${Math.round(bytes / 1024)} KiB`;
}

if (import.meta.main) console.log(await build(OUTPUT));
