/** Entry of the emulator's process. */
import { main } from './system.ts';

await main(process.argv.slice(2));
