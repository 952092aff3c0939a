// `npm test`: sets up what is missing, then checks types, style and imports and runs the tests, in some ten minutes.
// `npm run test:long` (--long) runs what takes longer, *.long.test.ts: guests on emulated hosts, and what whole systems do with more
// kinds of devices. Other arguments, if any, name the test files to run instead.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureModules, findNode, ROOT, run } from './setup.mjs';

ensureModules();
const node = findNode();
const modules = join(ROOT, 'node_modules');
const args = process.argv.slice(2);
const long = args.includes('--long');
const chosen = args.filter((arg) => arg !== '--long');

const CHECKS = [
  ['types', [join(modules, 'typescript', 'bin', 'tsc')]],
  ['lint', [join(modules, '@biomejs', 'biome', 'bin', 'biome'), 'check', '--error-on-warnings']],
  ['imports', ['--no-warnings', 'scripts/check-imports.ts']],
];
const failed = [];
for (const [name, command] of long || chosen.length > 0 ? [] : CHECKS) {
  process.stderr.write(`check: ${name}\n`);
  if (run(node, command) !== 0) failed.push(name);
}
/**
 * What tests import of which one runs at a time: their guests' host is emulated, with two processors on the two that there are. Beside
 * other tests they are slow, and emulated processors fail now and then (test/kvm-host.ts, TRIPLE_FAULT).
 */
const ALONE = "from './kvm-host.ts'";
const isAlone = (name) => readFileSync(join(ROOT, name), 'utf8').includes(ALONE);
const files = ['src', 'test', 'scripts', 'bench']
  .flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true }).map((name) => `${folder}/${name.replaceAll('\\', '/')}`),
  )
  .filter((name) => name.endsWith('.test.ts') && name.endsWith('.long.test.ts') === long);
const alone = files.filter(isAlone);
const together = files.filter((name) => !alone.includes(name));
const test = (concurrency, names) =>
  run(node, ['--no-warnings', '--test', `--test-concurrency=${concurrency}`, '--test-reporter=spec', ...names]) === 0;

const runs =
  chosen.length > 0
    ? [[2, chosen]]
    : [
        [1, alone],
        [2, together],
      ];
const passed = runs
  .filter(([, names]) => names.length > 0)
  .map(([concurrency, names]) => test(concurrency, names))
  .every(Boolean);
// After the test runner's summary: the last words must not hide a failed check.
if (failed.length > 0) process.stderr.write(`failed checks: ${failed.join(', ')}\n`);
process.exitCode = passed && failed.length === 0 ? 0 : 1;
