// `npm run fuzz:x86`: x86 instructions here against the host's CPU.
import { ensureModules, findNode, run } from './setup.mjs';

ensureModules();
process.exitCode = run(findNode(), ['--no-warnings', 'test/native/fuzz-main.ts', ...process.argv.slice(2)]);
