/** Runs a guest on a machine in this thread. */
import { completeConfig } from '../../src/machine/config.ts';
import { createMachine } from '../../src/machine/create.ts';
import type { CharBackend } from '../../src/machine/interfaces.ts';
import { guestImage } from './image.ts';
import type { Recording } from './recorded.ts';

const DEBUG_EXIT = 0xf4;
const DEBUGCON = 0xe9;
const LIMIT_MS = 20_000;

function collector(into: (text: string) => void): CharBackend {
  return {
    write: (data) => (into(Buffer.from(data).toString('latin1')), true),
    onReceive: null,
    onDrain: null,
    resume: () => undefined,
    close: () => undefined,
  };
}

/** @returns the lines that the guest logged, and how it ended */
export async function runGuest(
  recording: Pick<Recording, 'program' | 'cpu' | 'passes'>,
  accel: 'jit' | 'interp',
  trace: readonly string[] = [],
  traced: (category: string, line: string) => void = (category, line) => console.error(`${category}: ${line}`),
): Promise<string[]> {
  const passes = accel === 'jit' ? recording.passes : 1;
  const data = guestImage(Buffer.from(recording.program, 'base64'), passes);
  const config = completeConfig({
    memory: 16 * 2 ** 20,
    accel,
    cpu: recording.cpu,
    bios: { name: 'guest', data },
    trace,
    serials: [],
    debugcon: { iobase: DEBUGCON },
    debugExit: { iobase: DEBUG_EXIT, iosize: 2 },
    noReboot: passes === 1,
  });
  let text = '';
  const { promise, resolve } = Promise.withResolvers<string[]>();
  const end = (how: string): void => {
    clearTimeout(timer);
    const lines = text.split('\n');
    if (lines.at(-1) === '') lines.pop();
    resolve([...lines, how]);
  };
  const machine = await createMachine(
    config,
    {
      onEnd: (event) => end(event === 'debug-exit' ? 'end' : event),
      trace: (category, line) => {
        if (trace.includes(category)) traced(category, line);
      },
    },
    { serials: [], debugcon: collector((more) => (text += more)), drives: [], chardevs: new Map() },
    { hotThreshold: 1, compileBeside: false },
  );
  const timer = setTimeout(() => {
    machine.quit();
    end('hung');
  }, LIMIT_MS);
  machine.start();
  return promise;
}
