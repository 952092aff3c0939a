/** The default network card in a real guest: Debian's general kernel and its own e1000 driver. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { parseCommandLine } from '../src/cli/command-line.ts';
import { GET_ADDRESS, guestOrSkip, runGuest } from './virtio-guest.ts';

test('the card of `-nic user` gets an address, and moves files both ways', { timeout: 180_000 }, async (t) => {
  const guest = await guestOrSkip(t, 'general');
  if (guest === null) return;
  const body = Buffer.from('x'.repeat(1_000_001));
  const hash = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');
  const posted: Buffer[] = [];
  const server = createServer((request, response) => {
    request.on('data', (chunk: Buffer) => posted.push(chunk));
    request.on('end', () => response.end(request.method === 'POST' ? 'thanks' : body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const { network } = parseCommandLine(['-kernel', 'k', '-nic', 'user']);
  const text = await runGuest(
    guest,
    ['e1000'],
    `
cat /sys/class/net/eth0/address
${GET_ADDRESS}
cat /sys/class/net/eth0/speed
wget -q -O - http://10.0.2.2:${port}/ | sha256sum
seq 1 200000 >/tmp/numbers
sha256sum </tmp/numbers
(printf 'POST / HTTP/1.0\\r\\nContent-Length: %d\\r\\n\\r\\n' $(wc -c </tmp/numbers); cat /tmp/numbers) | nc 10.0.2.2 ${port}
echo
grep eth0 /proc/interrupts
cat /sys/class/net/eth0/statistics/rx_packets
`,
    { network },
  );
  const has = (line: RegExp): void => assert.match(text, line, text);
  has(/^52:54:00:12:34:56\r?$/m);
  has(/^10\.0\.2\.15 from 10\.0\.2\.2\r?$/m);
  has(/^1000\r?$/m);
  has(new RegExp(`^${hash(body)} `, 'm'));
  has(new RegExp(`^${hash(Buffer.concat(posted))} `, 'm'));
  has(/^.*thanks\r?$/m);
  has(/:\s+[1-9]\d* .*eth0/);
  assert.doesNotMatch(text, /Call Trace|BUG:|Oops|WARNING:|csum failure|Unit Hang/);
});
