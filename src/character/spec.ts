/** Where the host side of a serial port leads: QEMU's texts for it. */

export type CharacterSpec =
  | { readonly kind: 'null' | 'pty' }
  /** No port at all. */
  | { readonly kind: 'none' }
  /** @property mux the monitor and the escape character Ctrl-A share the terminal */
  | { readonly kind: 'stdio'; readonly mux: boolean }
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'unix'; readonly path: string; readonly server: boolean; readonly wait: boolean }
  | {
      readonly kind: 'tcp';
      readonly host: string;
      readonly port: number;
      readonly server: boolean;
      readonly wait: boolean;
    };

export const CHARACTER_KINDS =
  'stdio, mon:stdio, file:PATH, null, none, pty, vc, ' +
  'unix:PATH[,server=on|off][,wait=on|off], tcp:[HOST]:PORT[,server=on|off][,wait=on|off]';

/** @throws Error, one line without the option's name */
export function parseCharacter(text: string): CharacterSpec {
  const mux = text.startsWith('mon:');
  const plain = mux ? text.slice(4) : text;
  if (plain === 'stdio') return { kind: 'stdio', mux };
  if (mux) throw new Error('only mon:stdio is available');
  if (plain === 'null' || plain === 'vc' || plain.startsWith('vc:')) return { kind: 'null' };
  if (plain === 'none' || plain === 'pty') return { kind: plain };
  const colon = plain.indexOf(':');
  const rest = plain.slice(colon + 1);
  switch (plain.slice(0, Math.max(0, colon))) {
    case 'file':
      return { kind: 'file', path: nonEmpty(rest, 'path') };
    case 'unix':
      return unixSpec(rest);
    case 'tcp':
      return tcpSpec(rest);
    default:
      throw new Error(`not one of ${CHARACTER_KINDS}`);
  }
}

function nonEmpty(text: string, what: string): string {
  if (text === '') throw new Error(`the ${what} is empty`);
  return text;
}

function unixSpec(text: string): CharacterSpec {
  const [path, ...options] = text.split(',');
  return { kind: 'unix', path: nonEmpty(path!, 'path'), ...socketOptions(options) };
}

function tcpSpec(text: string): CharacterSpec {
  const [address, ...options] = text.split(',');
  const colon = address!.lastIndexOf(':');
  const host = address!.slice(0, Math.max(0, colon)).replace(/^\[(.*)\]$/, '$1');
  const portText = address!.slice(colon + 1);
  const port = /^\d+$/.test(portText) ? Number(portText) : NaN;
  if (colon < 0 || !(port <= 65535)) throw new Error(`"${address}" is not HOST:PORT`);
  return { kind: 'tcp', host, port, ...socketOptions(options) };
}

/** A server waits for its first client before the machine starts, unless told not to. */
function socketOptions(options: readonly string[]): { server: boolean; wait: boolean } {
  const set = { server: false, wait: true };
  for (const option of options) {
    const [key, value = key!.startsWith('no') ? 'off' : 'on'] = option.split('=');
    const name = value === 'off' && key!.startsWith('no') ? key!.slice(2) : key!;
    // Delays are a matter of the network's; telnet negotiation is not offered.
    if (name === 'delay' || name === 'nodelay') continue;
    if ((name !== 'server' && name !== 'wait') || (value !== 'on' && value !== 'off')) {
      throw new Error(`"${option}" is not one of server=on|off, wait=on|off`);
    }
    set[name] = value === 'on';
  }
  return set;
}
