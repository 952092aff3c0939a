/** `-chardev`: byte streams by name, which `-serial chardev:ID` and devices use. */
import type { CharacterSpec } from '../character/spec.ts';
import { onlyKeys, parseList, parseNumber, parseSwitch, ValueError } from './values.ts';

export interface ChardevOption {
  readonly id: string;
  readonly text: string;
  readonly spec: CharacterSpec;
}

export const CHARDEV_BACKENDS = ['null', 'stdio', 'file', 'pty', 'socket'] as const;
const IDENTIFIER = /^[a-z][-a-z0-9._]*$/i;
/** What every backend takes; a log is not kept. */
const COMMON = ['backend', 'id'];

/** @throws ValueError */
export function parseChardev(text: string): ChardevOption {
  const values = parseList(text, 'backend');
  const id = values.get('id');
  if (id === undefined) throw new ValueError('chardev: no id specified');
  if (!IDENTIFIER.test(id)) throw new ValueError("Parameter 'id' expects an identifier");
  return { id, text, spec: specOf(values) };
}

function specOf(values: ReadonlyMap<string, string>): CharacterSpec {
  const backend = values.get('backend') ?? '';
  const on = (key: string, otherwise: boolean): boolean => (values.has(key) ? parseSwitch(key, values.get(key)!) : otherwise);
  switch (backend) {
    case 'null':
    case 'pty':
      onlyKeys(values, COMMON);
      return { kind: backend };
    case 'stdio':
      onlyKeys(values, [...COMMON, 'mux', 'signal']);
      return { kind: 'stdio', mux: on('mux', false) };
    case 'file':
      onlyKeys(values, [...COMMON, 'path', 'append']);
      return { kind: 'file', path: needed(values, 'path') };
    case 'socket':
      return socketOf(values, on);
    default:
      throw new ValueError(`'${backend}' is not a valid char driver name (known: ${CHARDEV_BACKENDS.join(', ')})`);
  }
}

function socketOf(values: ReadonlyMap<string, string>, on: (key: string, otherwise: boolean) => boolean): CharacterSpec {
  onlyKeys(values, [...COMMON, 'path', 'host', 'port', 'server', 'wait', 'nodelay', 'ipv4', 'ipv6']);
  const server = on('server', false);
  // A server waits for its first client unless told not to.
  const options = { server, wait: on('wait', server) };
  const path = values.get('path');
  if (path !== undefined) return { kind: 'unix', path, ...options };
  const port = parseNumber(needed(values, 'port'), 0, 65535);
  return { kind: 'tcp', host: values.get('host') ?? '', port, ...options };
}

function needed(values: ReadonlyMap<string, string>, key: string): string {
  const value = values.get(key);
  if (value === undefined || value === '') throw new ValueError(`chardev: ${values.get('backend')!}: no ${key} given`);
  return value;
}
