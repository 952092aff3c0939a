/** The host's name servers. */
import { readFileSync } from 'node:fs';

const FILE = '/etc/resolv.conf';
/** The file may change while a machine runs: it is read again after so many milliseconds. */
const FRESH_MS = 1000;
const MAX_SERVERS = 3;

let servers: readonly string[] = [];
let readAt = -Infinity;

function read(): string[] {
  let text: string;
  try {
    text = readFileSync(FILE, 'utf8');
  } catch {
    return process
      .getBuiltinModule('node:dns')
      .getServers()
      .map((server) => server.replace(/^\[(.*)\]:\d+$/, '$1'));
  }
  const found = [...text.matchAll(/^[ \t]*nameserver[ \t]+(\S+)/gm)].map((match) => match[1]!);
  return found.slice(0, MAX_SERVERS);
}

/** @returns addresses as text; the local host when none is named (resolv.conf(5)) */
export function resolvers(): readonly string[] {
  const now = performance.now();
  if (now - readAt > FRESH_MS) {
    readAt = now;
    const found = read();
    servers = found.length === 0 ? ['127.0.0.1'] : found;
  }
  return servers;
}
