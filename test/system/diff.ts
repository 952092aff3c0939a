/** Shows where a guest's log differs from the recorded one: `node --no-warnings test/system/diff.ts NAME [jit|interp] [-d CATEGORY...]`. */
import { readRecording } from './recorded.ts';
import { runGuest } from './run.ts';

const [name, accel, , ...trace] = process.argv.slice(2);
const recording = readRecording(name!);
const log = await runGuest(recording, accel === 'jit' ? 'jit' : 'interp', trace);
// Lines are told apart by their first word, which no two lines of a guest share.
const nameOf = (line: string): string => line.split(' ')[0]!;
const ours = new Map(log.map((line) => [nameOf(line), line]));
const wanted = new Map(recording.log.map((line) => [nameOf(line), line]));
for (const line of recording.log)
  if (ours.get(nameOf(line)) !== line) console.log(`- ${line}\n+ ${ours.get(nameOf(line)) ?? ''}`);
for (const line of log) if (!wanted.has(nameOf(line))) console.log(`+ ${line}`);
process.exit();
