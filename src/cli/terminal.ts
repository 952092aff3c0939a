/** Joins a port of the machine with the host side of it. */
import { EscapeFilter, ESCAPE_HELP, type EscapeAction, Timestamps } from '../character/mux.ts';
import type { Channel } from '../host/host.ts';
import type { SerialPort } from '../index.ts';

/** What the escapes of a shared terminal can do. */
export interface MuxActions {
  readonly exit: () => void;
  /** Saves the machine; null where nobody has said where to. */
  readonly save: (() => void) | null;
  readonly say: (text: string) => void;
}

export const HOW_TO_SAVE = '-save-state FILE says where the machine is saved to; -incoming file:FILE goes on from there';

/** Keeps input back. */
export interface Hold {
  /** Is shown all output. */
  see(data: Uint8Array): void;
  /** Input flows from then on. */
  readonly ready: Promise<void>;
}

/** Lets the guest's output go nowhere, without the guest noticing. */
export function drop(port: SerialPort): void {
  void port.readable.cancel();
}

function muxed(port: SerialPort, channel: Channel, actions: MuxActions) {
  const timestamps = new Timestamps();
  const note = (text: string): void => actions.say(`${text}\r`);
  const act = (action: EscapeAction): void => {
    switch (action) {
      case 'exit':
        return actions.exit();
      case 'help':
        return note(ESCAPE_HELP);
      case 'break':
        return port.sendBreak();
      case 'monitor':
        return note('the monitor is not available yet');
      case 'save':
        return actions.save === null ? note(HOW_TO_SAVE) : actions.save();
      case 'timestamps':
        timestamps.enabled = !timestamps.enabled;
        return undefined;
    }
  };
  const escapes = new EscapeFilter(act);
  const input = new TransformStream<Uint8Array, Uint8Array>({
    transform: (data, controller) => {
      const passed = escapes.filter(data);
      if (passed.length > 0) controller.enqueue(passed);
    },
  });
  const output = new TransformStream<Uint8Array, Uint8Array>({
    transform: (data, controller) => controller.enqueue(timestamps.mark(data)),
  });
  return {
    readable: channel.readable.pipeThrough(input),
    output: port.readable.pipeThrough(output),
  };
}

function held(readable: ReadableStream<Uint8Array>, hold: Hold): ReadableStream<Uint8Array> {
  return readable.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>(
      {
        transform: async (data, controller) => {
          await hold.ready;
          controller.enqueue(data);
        },
        // Room for what is typed ahead: the escapes before it must still be seen.
      },
      { highWaterMark: 1 << 16 },
    ),
  );
}

function seen(readable: ReadableStream<Uint8Array>, hold: Hold): ReadableStream<Uint8Array> {
  return readable.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform: (data, controller) => {
        hold.see(data);
        controller.enqueue(data);
      },
    }),
  );
}

/** @returns when the last output has been passed on */
export function connect(port: SerialPort, channel: Channel, mux: MuxActions | null, hold: Hold | null = null): Promise<void> {
  let { readable, output } = mux === null ? { readable: channel.readable, output: port.readable } : muxed(port, channel, mux);
  if (hold !== null) {
    readable = held(readable, hold);
    output = seen(output, hold);
  }
  // The end of the input is not the end of the machine.
  readable.pipeTo(port.writable, { preventClose: true }).catch(() => undefined);
  return output.pipeTo(channel.writable, { preventClose: true });
}
