/** What is published: that its parts find each other. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
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
  const NAMED = /(?:from|import|import\(|new URL\()\s*["'`]\.\/([^"'`]+)["'`]/g;
  let found = 0;
  for (const file of [...files].filter((name) => name.endsWith('.js'))) {
    for (const [, named] of readFileSync(join(app, file), 'utf8').matchAll(NAMED)) {
      assert.ok(files.has(named!), `${file} names ${named}`);
      found++;
    }
  }
  assert.ok(found > files.size);
});

test("a compiler's thread finds the instruction set by the name that it asks for", async () => {
  const { makeIsa } = (await import(pathToFileURL(join(folder, 'app', 'compiler-isa.js')).href)) as {
    makeIsa(features: readonly string[]): { origin: { module: string } };
  };
  const { module } = makeIsa(['sse2']).origin;
  assert.equal(typeof ((await import(module)) as { makeIsa: unknown }).makeIsa, 'function', module);
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
