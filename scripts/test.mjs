// `npm test`: sets up what is missing, then checks types, style and imports and runs the tests.
// Arguments, if any, name the test files to run instead of all.
import { join } from 'node:path';
import { ensureModules, findNode, ROOT, run } from './setup.mjs';

ensureModules();
const node = findNode();
const modules = join(ROOT, 'node_modules');
const chosen = process.argv.slice(2);

const CHECKS = [
  ['types', [join(modules, 'typescript', 'bin', 'tsc')]],
  ['lint', [join(modules, '@biomejs', 'biome', 'bin', 'biome'), 'check', '--error-on-warnings']],
  ['imports', ['--no-warnings', 'scripts/check-imports.ts']],
];
const failed = [];
for (const [name, args] of chosen.length > 0 ? [] : CHECKS) {
  process.stderr.write(`check: ${name}\n`);
  if (run(node, args) !== 0) failed.push(name);
}
const all = ['src', 'test', 'scripts', 'bench'].map((folder) => `${folder}/**/*.test.ts`);
const status = run(node, [
  '--no-warnings',
  '--test',
  '--test-concurrency=2',
  '--test-reporter=spec',
  ...(chosen.length > 0 ? chosen : all),
]);
// After the test runner's summary: the last words must not hide a failed check.
if (failed.length > 0) process.stderr.write(`failed checks: ${failed.join(', ')}\n`);
process.exitCode = status === 0 && failed.length === 0 ? 0 : 1;
