/** Entry of the emulator's process. */
import { machineThread } from '../machine/thread.ts';

machineThread.begin();
const { main } = await import('./system.ts');
await main(process.argv.slice(2));
machineThread.drop();
