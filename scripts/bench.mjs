// `npm run bench`.
import { ensureModules, findNode, run } from './setup.mjs';

ensureModules();
process.exitCode = run(findNode(), ['--no-warnings', 'bench/run.ts', ...process.argv.slice(2)]);
