/** Joins a port of the machine with the host side of it. */
import { EscapeFilter, ESCAPE_HELP, type EscapeAction, Timestamps } from '../character/mux.ts';
import type { Channel } from '../host/host.ts';
import type { SerialPort } from '../index.ts';

/** What the escapes of a shared terminal can do. */
export interface MuxActions {
  readonly exit: () => void;
  readonly say: (text: string) => void;
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
      case 'exit': return actions.exit();
      case 'help': return note(ESCAPE_HELP);
      case 'break': return port.sendBreak();
      case 'monitor': return note('the monitor is not available yet');
      case 'save': return note('there are no disks whose data could be saved');
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
    readable: channel.readable.pipeThrough(input), output: port.readable.pipeThrough(output),
  };
}

/** @returns when the last output has been passed on */
export function connect(
  port: SerialPort, channel: Channel, mux: MuxActions | null,
): Promise<void> {
  const { readable, output } = mux === null
    ? { readable: channel.readable, output: port.readable }
    : muxed(port, channel, mux);
  // The end of the input is not the end of the machine.
  readable.pipeTo(port.writable, { preventClose: true }).catch(() => undefined);
  return output.pipeTo(channel.writable, { preventClose: true });
}
