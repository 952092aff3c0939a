// `npm run fuzz:kvm`: states and instructions under the host's KVM and here.
import { ensureModules, findNode, run } from './setup.mjs';

ensureModules();
process.exitCode = run(findNode(), ['--no-warnings', 'test/differential/main.ts', ...process.argv.slice(2)]);
