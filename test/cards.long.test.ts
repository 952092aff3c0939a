/** Network cards in a real guest: Debian's general kernel and its own drivers. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { parseCommandLine } from '../src/cli/command-line.ts';
import { GET_ADDRESS, guestOrSkip, runGuest } from './virtio-guest.ts';

const CARDS: readonly { name: string; nic: string; modules: readonly string[]; speed: RegExp; append?: string }[] = [
  { name: 'the card of `-nic user`', nic: 'user', modules: ['e1000'], speed: /^1000\r?$/m },
  { name: 'e1000e', nic: 'user,model=e1000e', modules: ['e1000e'], speed: /^1000\r?$/m },
  { name: 'e1000e without messages', nic: 'user,model=e1000e', modules: ['e1000e'], speed: /^1000\r?$/m, append: ' pci=nomsi' },
  { name: 'ne2k_pci', nic: 'user,model=ne2k_pci', modules: ['ne2k-pci'], speed: /^cat: read error/m },
  { name: 'rtl8139', nic: 'user,model=rtl8139', modules: ['8139cp'], speed: /^100\r?$/m },
];

for (const { name, nic, modules, speed, append = '' } of CARDS)
  test(`${name} gets an address, and moves files both ways`, { timeout: 180_000 }, async (t) => {
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
    const { network } = parseCommandLine(['-kernel', 'k', '-nic', nic]);
    const text = await runGuest(
      guest,
      modules,
      `
cat /sys/class/net/eth0/address
${GET_ADDRESS}
cat /sys/class/net/eth0/speed 2>&1
ping -c 3 -i 0.2 10.0.2.2
wget -q -O - http://10.0.2.2:${port}/ | sha256sum
seq 1 200000 >/tmp/numbers
sha256sum </tmp/numbers
(printf 'POST / HTTP/1.0\\r\\nContent-Length: %d\\r\\n\\r\\n' $(wc -c </tmp/numbers); cat /tmp/numbers) | nc 10.0.2.2 ${port}
echo
grep eth0 /proc/interrupts
cat /sys/class/net/eth0/statistics/rx_packets
`,
      { network, append: `console=ttyS0 panic=-1${append}` },
    );
    const has = (line: RegExp): void => assert.match(text, line, text);
    has(/^52:54:00:12:34:56\r?$/m);
    has(/^10\.0\.2\.15 from 10\.0\.2\.2\r?$/m);
    has(speed);
    has(/^3 packets transmitted, 3 packets received/m);
    has(new RegExp(`^${hash(body)} `, 'm'));
    has(new RegExp(`^${hash(Buffer.concat(posted))} `, 'm'));
    has(/^.*thanks\r?$/m);
    has(/:\s+[1-9]\d* .*eth0/);
    assert.doesNotMatch(text, /Call Trace|BUG:|Oops|WARNING:|csum failure|Unit Hang/);
  });
