/** What is published: that its parts find each other. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { build } from './build.ts';

let folder = '';
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'virelay-build-'));
  await build(join(folder, 'app'));
});
after(() => rmSync(folder, { recursive: true }));

test('every file that another names is there', () => {
  const app = join(folder, 'app');
  const files = new Set(readdirSync(app));
  const NAMED = /(?:from|import|import\(|new URL\(|require\(|runScript\()\s*["'`](?:\.\/)?([^"'`:]+\.c?js)["'`]/g;
  let found = 0;
  for (const file of [...files].filter((name) => /\.c?js$/.test(name))) {
    for (const [, named] of readFileSync(join(app, file), 'utf8').matchAll(NAMED)) {
      assert.ok(files.has(named!), `${file} names ${named}`);
      found++;
    }
  }
  assert.ok(found > files.size);
});

/** @returns what is printed by a program that loads the script with `runScript`, as an entry beside it would */
function runWith(script: string, env: NodeJS.ProcessEnv, program: string): string {
  const entry = join(folder, 'app', 'test-entry.mjs');
  const loader = join(import.meta.dirname, '../src/host/node/scripts.ts');
  writeFileSync(
    entry,
    `import { runScript } from ${JSON.stringify(pathToFileURL(loader).href)};
     const exported = runScript(${JSON.stringify(script)}, import.meta.url);
     ${program}`,
  );
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--no-warnings', entry], { encoding: 'utf8', env });
  assert.equal(status, 0, stderr);
  return stdout.trim();
}

test("a compiler's thread finds the instruction set by the name that it asks for", () => {
  const program = "const { module } = exported.makeIsa(['sse2']).origin; console.log(module);";
  const module = runWith('compiler-isa.cjs', process.env, program);
  assert.equal(module, pathToFileURL(join(folder, 'app', 'compiler-isa.cjs')).href);
});

test('what has been compiled is kept, and taken for the same script alone', () => {
  const cache = join(folder, 'cache');
  const env = { ...process.env, XDG_CACHE_HOME: cache };
  const kept = (): string[] =>
    readdirSync(cache, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.cjs'))
      .map((name) => join(cache, name));
  const used = 'console.log(JSON.stringify(exported.makeIsa([]).name));';
  runWith('compiler-isa.cjs', env, `${used} await new Promise((resolve) => setTimeout(resolve, 1500));`);
  const files = kept();
  assert.ok(files.length >= 2, 'nothing was kept');
  const before = files.map((name) => statSync(name).mtimeMs);
  // A start that has everything writes nothing, whatever options for translated code it sets.
  const tuned = "process.getBuiltinModule('node:v8').setFlagsFromString('--no-wasm-inlining');";
  runWith('compiler-isa.cjs', env, `${tuned} ${used} await new Promise((resolve) => setTimeout(resolve, 1500));`);
  assert.deepEqual(
    kept().map((name) => statSync(name).mtimeMs),
    before,
  );
  // Data of another script, or half of them, are not believed.
  const whole = files.map((name) => readFileSync(name));
  files.forEach((name, i) => writeFileSync(name, Buffer.concat([Buffer.from('0000'), whole[i]!.subarray(4)])));
  assert.equal(runWith('compiler-isa.cjs', env, used), '"x86"');
  files.forEach((name, i) => writeFileSync(name, whole[i]!.subarray(0, whole[i]!.length >> 1)));
  assert.equal(runWith('compiler-isa.cjs', env, used), '"x86"');
});

test('a disk image is made, converted and compared', () => {
  const image = (command: string, ...args: string[]): void => {
    const { status, stderr } = spawnSync(process.execPath, [join(folder, 'app', 'img-main.js'), command, ...args], {
      cwd: folder,
      encoding: 'utf8',
    });
    assert.equal(status, 0, `${command}: ${stderr}`);
  };
  image('create', '-f', 'qcow2', 'one.qcow2', '8M');
  for (const format of ['raw', 'vmdk', 'vdi', 'qed']) {
    image('convert', '-O', format, 'one.qcow2', `one.${format}`);
    image('compare', 'one.qcow2', `one.${format}`);
  }
});
