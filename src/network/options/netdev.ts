/** Networks by QEMU's names: the keys of each kind, and what they mean. */
import type { NetdevConfig } from '../../machine/network-config.ts';
import {
  DGRAM_KEYS,
  HUB_KEYS,
  parseDgram,
  parseHubPort,
  parseSocket,
  parseStream,
  parseTap,
  SOCKET_KEYS,
  STREAM_KEYS,
  TAP_KEYS,
  type Unnamed,
} from './other.ts';
import type { Pairs } from './pairs.ts';
import { parseUser, USER_KEYS } from './user.ts';

export type Kind = { readonly keys: readonly string[]; readonly parse: (pairs: Pairs) => Unnamed };

const KINDS: Record<string, Kind> = {
  dgram: { keys: DGRAM_KEYS, parse: parseDgram },
  hubport: { keys: HUB_KEYS, parse: parseHubPort },
  socket: { keys: SOCKET_KEYS, parse: parseSocket },
  stream: { keys: STREAM_KEYS, parse: parseStream },
  tap: { keys: TAP_KEYS, parse: parseTap },
  user: { keys: USER_KEYS, parse: (pairs) => ({ type: 'user', plan: parseUser(pairs) }) },
};
/** Names of all kinds of networks. */
export const NETDEV_KINDS: readonly string[] = Object.keys(KINDS);

/** @throws Error for a kind that there is not */
export function kindOf(pairs: Pairs): Kind {
  const type = pairs.get('type') ?? '';
  if (!Object.hasOwn(KINDS, type)) throw new Error(`Parameter 'type' does not accept value '${type}'`);
  return KINDS[type]!;
}

/** What `-netdev` and `netdev_add` are given. @throws Error, one line in QEMU's words */
export function parseNetdevConfig(pairs: Pairs): NetdevConfig {
  const kind = kindOf(pairs);
  const id = pairs.identifier();
  if (id === null) throw new Error("Parameter 'id' is missing");
  pairs.only(['type', 'id', ...kind.keys]);
  return { id, ...kind.parse(pairs) } as NetdevConfig;
}
