/**
 * Makes what is published: JavaScript in few files, since Node.js does not strip types in packages, and loading hundreds
 * of modules takes longer than all that a machine does before its guest runs.
 *
 *     dist/app/NAME.js      a program, or the library (index.js)
 *     dist/app/part-*.js    threads, and what is shared
 *     dist/app/*.wasm       the translator's runtime modules, which would be made at each start else
 */
import { rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type Plugin, rolldown } from 'rolldown';
import { X86_ISA } from '../src/isa/x86/isa.ts';
import { makeCommonRuntime } from '../src/jit/runtime.ts';

const ROOT = dirname(import.meta.dirname);
/** As deep below the package's folder as the sources' folders: files that are named by way of `import.meta.url` are found. */
const OUTPUT = join(ROOT, 'dist/app');
const ENTRIES = [
  'src/index.ts',
  ...['system', 'img', 'nbd', 'virelay'].map((name) => `src/cli/${name}-main.ts`),
  'src/cli/start.ts',
];

/** A module that is named by its address, for a thread to load: an entry of its own. */
const MODULE_URL = /new URL\('(\.[^']+\.ts)', import\.meta\.url\)/g;

function modulesByAddress(): Plugin {
  return {
    name: 'modules by address',
    transform(code, id) {
      if (!code.includes('import.meta.url')) return null;
      return code.replace(MODULE_URL, (_, path: string) => {
        const reference = this.emitFile({ type: 'chunk', id: join(dirname(id), path), name: basename(path, '.ts') });
        return `new URL(import.meta.ROLLUP_FILE_URL_${reference})`;
      });
    },
  };
}

/**
 * @param folder where the files go, in place of what is there
 * @param entries modules, as they lie in the package
 * @returns how much was written, in a line
 */
export async function build(folder: string, entries: readonly string[] = ENTRIES): Promise<string> {
  rmSync(folder, { recursive: true, force: true });
  const bundle = await rolldown({
    input: Object.fromEntries(entries.map((entry) => [basename(entry, '.ts'), join(ROOT, entry)])),
    platform: 'node',
    plugins: [modulesByAddress()],
  });
  const names = { entryFileNames: '[name].js', chunkFileNames: 'part-[name].js' };
  const { output } = await bundle.write({ dir: folder, format: 'esm', ...names });
  await bundle.close();
  const { engine, isa } = makeCommonRuntime(X86_ISA);
  writeFileSync(join(folder, 'engine.wasm'), engine);
  writeFileSync(join(folder, 'x86.wasm'), isa!);
  const bytes = output.reduce((sum, one) => sum + (one.type === 'chunk' ? one.code.length : one.source.length), 0);
  return `${folder}: ${output.length} files, ${Math.round(bytes / 1024)} KiB`;
}

if (import.meta.main) console.log(await build(OUTPUT));
