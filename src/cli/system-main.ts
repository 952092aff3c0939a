/** Entry of the emulator's process. */
import { machineThreadFor } from '../machine/thread.ts';

// Before the command line is understood, as the launcher expects: a wrong guess costs time, no more.
const machineThread = machineThreadFor(process.env['VIRELAY_EXPECTS'] ?? 'jit');
machineThread.begin();
void import('./system.ts').then(async ({ main }) => {
  await main(process.argv.slice(2));
  machineThread.drop();
});
