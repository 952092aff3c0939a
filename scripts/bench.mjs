// `npm run bench`: measures what is published, so that is made first.
import { ensureModules, findNode, run } from './setup.mjs';

ensureModules();
const node = findNode();
process.env.VIRELAY_BUILT = '1';
process.exitCode =
  run(node, ['--no-warnings', 'scripts/build.ts']) || run(node, ['--no-warnings', 'bench/run.ts', ...process.argv.slice(2)]);
