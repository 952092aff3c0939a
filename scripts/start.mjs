// `npm start`: a guest at a shell.
import { ensureModules, findNode, machineOptions, run } from './setup.mjs';

// Signals of the terminal reach the machine as well, which then ends in good order.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => undefined);
ensureModules();
process.exitCode = run(findNode(), [...machineOptions(), 'src/cli/start.ts']);
