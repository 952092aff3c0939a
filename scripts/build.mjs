// `npm run build`: makes what is published (scripts/build.ts).
import { ensureModules, findNode, run } from './setup.mjs';

ensureModules();
process.exitCode = run(findNode(), ['--no-warnings', 'scripts/build.ts']);
