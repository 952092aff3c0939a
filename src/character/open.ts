/** Opens what a serial port's text names. */
import { openFile, openPty, openSocket, openStdio } from '#host';
import type { Channel } from '../host/host.ts';
import type { CharacterSpec } from './spec.ts';

export interface OpenCharacter {
  readonly channel: Channel;
  /** To be told to the user, e.g. the name of a pseudo-terminal. */
  readonly note: string | null;
}

function nothing(): Channel {
  return {
    readable: new ReadableStream({ start: (controller) => controller.close() }),
    writable: new WritableStream(),
    close: () => undefined,
  };
}

/**
 * @param onWait called when a server starts to wait for its first client
 * @throws Error, one line without the option's name
 */
export async function openCharacter(spec: CharacterSpec, onWait: (address: string) => void): Promise<OpenCharacter> {
  switch (spec.kind) {
    case 'none':
    case 'null':
      return { channel: nothing(), note: null };
    case 'stdio':
      return { channel: openStdio({ signals: !spec.mux }), note: null };
    case 'file':
      return { channel: openFile(spec.path), note: null };
    case 'pty': {
      const { channel, name } = await openPty();
      return { channel, note: `char device redirected to ${name}` };
    }
    case 'unix':
      return { channel: await openSocket({ path: spec.path }, spec, onWait), note: null };
    case 'tcp': {
      const { host, port } = spec;
      return { channel: await openSocket({ host, port }, spec, onWait), note: null };
    }
  }
}
