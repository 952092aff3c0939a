/** Entry of the emulator's process. */
import { beginMachineThread, dropMachineThread } from '../machine/thread.ts';

beginMachineThread();
const { main } = await import('./system.ts');
await main(process.argv.slice(2));
dropMachineThread();
