import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Graph, HOW } from './graph.ts';
import { MemoryNode } from './memory.ts';
import { serveNbd } from './nbd-server.ts';
import { serveStreams } from '../host/node/byte-streams.ts';
import { needsQemu, qemuImg, qemuIo, readAll, temporaryFolder, torture, using, WRITABLE } from './test-kit.ts';

const folder = temporaryFolder();
const MIB = 2 ** 20;
const NBD_MAIN = fileURLToPath(new URL('../cli/nbd-main.ts', import.meta.url));

async function appears(path: string): Promise<void> {
  while (!existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 10));
}

const gone = (child: ChildProcess): Promise<unknown> =>
  child.exitCode !== null ? Promise.resolve() : new Promise((resolve) => child.once('exit', resolve));

test("QEMU's NBD server is a disk, many requests at a time", needsQemu, async () => {
  const image = join(folder, 'served.qcow2');
  const socket = join(folder, 'qemu.sock');
  qemuImg('create', '-q', '-f', 'qcow2', image, '8M');
  const server = spawn('qemu-nbd', ['-k', socket, '-f', 'qcow2', '--discard=unmap', image], { stdio: 'inherit' });
  await appears(socket);
  const model = new Uint8Array(8 * MIB);
  await using(`nbd+unix:///?socket=${socket}`, 'raw', WRITABLE, async (node) => {
    assert.equal(node.size, 8 * MIB);
    const extent = await node.status(0, 8 * MIB);
    assert.deepEqual([extent.zero, extent.length], [true, 8 * MIB]);
    await torture(node, model, 4, 30);
    await node.write(0, new Uint8Array(5 * MIB).fill(3));
    model.fill(3, 0, 5 * MIB);
    assert.ok(Buffer.compare(await readAll(node), model) === 0);
  });
  await gone(server);
  await using(image, 'qcow2', HOW, async (node) => assert.ok(Buffer.compare(await readAll(node), model) === 0));
  await assert.rejects(new Graph().openImage(`nbd:unix:${socket}:exportname=x`, 'raw', HOW), /Failed to connect to/);
});

test("QEMU's tools use our NBD server", needsQemu, async () => {
  const image = join(folder, 'ours.qcow2');
  const socket = join(folder, 'ours.sock');
  qemuImg('create', '-q', '-f', 'qcow2', image, '8M');
  const server = spawn(
    process.execPath,
    ['--no-warnings', NBD_MAIN, '-k', socket, '-t', '-e', '0', '-x', 'disk', '--discard=unmap', '-f', 'qcow2', image],
    {
      stdio: 'inherit',
    },
  );
  try {
    await appears(socket);
    const uri = `nbd+unix:///disk?socket=${socket}`;
    assert.match(
      qemuIo(uri, 'raw', 'write -P 5 1M 2M', 'write -z 2M 512k', 'discard 0 1M', 'flush', 'read -P 5 1M 1M', 'read -P 0 2M 512k'),
      /^(?!.*Pattern)/s,
    );
    const map = JSON.parse(qemuImg('map', '--output=json', uri)) as { start: number; length: number; zero: boolean }[];
    assert.deepEqual(
      map.map(({ start, length, zero }) => [start, length, zero]),
      [
        [0, MIB, true],
        [MIB, MIB, false],
        [2 * MIB, MIB / 2, true],
        [2.5 * MIB, MIB / 2, false],
        [3 * MIB, 5 * MIB, true],
      ],
    );
    assert.throws(() => qemuIo(`nbd+unix:///nope?socket=${socket}`, 'raw', 'read 0 512'), /export/);
    await using(uri, 'raw', HOW, async (node) => assert.equal((await readAll(node))[MIB], 5));
  } finally {
    server.kill('SIGTERM');
    await gone(server);
  }
  assert.match(qemuImg('check', image), /^No errors/);
  assert.match(qemuIo(image, 'qcow2', 'read -P 5 1M 1M'), /^(?!.*Pattern)/s);
});

test('a server that does not keep to the protocol costs an error', async () => {
  for (const noise of [new Uint8Array(100), new TextEncoder().encode('HTTP/1.1 400 Bad Request\r\n\r\n')]) {
    const server = await serveStreams({ host: '127.0.0.1', port: 0 }, (stream) => {
      stream.write(noise);
    });
    const { port } = server.address as { port: number };
    await assert.rejects(new Graph().openImage(`nbd://127.0.0.1:${port}/x`, 'raw', HOW), /does not speak NBD/);
    await server.close();
  }
});

test('a client that does not keep to the protocol is shown out', async () => {
  const exported = {
    name: '',
    description: '',
    node: new MemoryNode(new Uint8Array(MIB), false),
    readOnly: false,
    multiConn: false,
  };
  const { promise, resolve } = Promise.withResolvers<Error | null>();
  const server = await serveStreams({ host: '127.0.0.1', port: 0 }, (stream) => {
    serveNbd(stream, [exported]).then(() => resolve(null), resolve);
  });
  const { connectStream } = await import('../host/node/byte-streams.ts');
  const stream = await connectStream(server.address);
  stream.write(new Uint8Array(4), new Uint8Array(64).fill(0x41));
  assert.match(String(await promise), /does not speak NBD/);
  stream.close();
  await server.close();
});

test('a web server that has ranges is a disk; one that has none is not', async () => {
  const data = new Uint8Array(3 * MIB + 512).map((_, i) => (i >> 9) % 251);
  let asked = 0;
  const server = createServer((request, response) => {
    if (request.url === '/plain') return response.setHeader('Content-Length', data.length).end();
    if (request.url !== '/disk') return response.writeHead(404).end();
    response.setHeader('Accept-Ranges', 'bytes');
    if (request.method === 'HEAD') return response.setHeader('Content-Length', data.length).end();
    asked++;
    const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range!)!;
    response.writeHead(206).end(data.subarray(Number(start), Number(end) + 1));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    await using(`${base}/disk`, 'raw', HOW, async (node) => {
      assert.equal(node.size, data.length);
      assert.ok(Buffer.compare(await readAll(node), data) === 0);
      const before = asked;
      const again = new Uint8Array(65536);
      await node.read(MIB, again);
      assert.ok(Buffer.compare(again, data.subarray(MIB, MIB + 65536)) === 0);
      assert.equal(asked, before, 'what was fetched is kept');
    });
    await assert.rejects(
      using(`${base}/plain`, 'raw', HOW, async () => undefined),
      /does not support 'range'/,
    );
    await assert.rejects(
      using(`${base}/none`, 'raw', HOW, async () => undefined),
      /answers 404/,
    );
    await assert.rejects(
      using(`${base}/disk`, 'raw', WRITABLE, async () => undefined),
      /only be read/,
    );
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('copy-on-read keeps what was read', needsQemu, async () => {
  const [base, top] = [join(folder, 'cor-base.raw'), join(folder, 'cor.qcow2')];
  writeFileSync(base, new Uint8Array(4 * MIB).fill(6));
  qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', top);
  const graph = new Graph();
  const node = await graph.open(
    { driver: 'copy-on-read', file: { driver: 'qcow2', file: { driver: 'file', filename: top } } },
    WRITABLE,
  );
  const part = new Uint8Array(512);
  await node.read(MIB, part);
  assert.equal(part[0], 6);
  await Promise.all([node.write(2 * MIB, new Uint8Array(512).fill(1)), node.read(2 * MIB + 512, part)]);
  await graph.close(node);
  const map = JSON.parse(qemuImg('map', '--output=json', top)) as { start: number; length: number; depth: number }[];
  assert.deepEqual(
    map.filter(({ depth }) => depth === 0).map(({ start, length }) => [start, length]),
    [
      [MIB, 65536],
      [2 * MIB, 65536],
    ],
  );
  assert.match(qemuIo(top, 'qcow2', 'read -P 1 2M 512', 'read -P 6 2098k 512', 'read -P 6 1M 64k'), /^(?!.*Pattern)/s);
});

test('errors come where the rules of blkdebug say, once or always', async () => {
  const image = join(folder, 'debug.raw');
  writeFileSync(image, new Uint8Array(MIB));
  const graph = new Graph();
  const node = await graph.open(
    {
      driver: 'raw',
      file: {
        driver: 'blkdebug',
        image: { driver: 'file', filename: image },
        'inject-error': [
          { event: 'read_aio', sector: '3', once: 'on', errno: '5' },
          { event: 'write_aio', errno: 28, state: 2 },
        ],
        'set-state': [{ event: 'flush_to_disk', new_state: 2 }],
      },
    },
    WRITABLE,
  );
  await node.read(0, new Uint8Array(512));
  await assert.rejects(async () => node.read(1024, new Uint8Array(1024)), /Input\/output error/);
  await node.read(1024, new Uint8Array(1024));
  await node.write(0, new Uint8Array(512).fill(1));
  await node.flush();
  await assert.rejects(async () => node.write(0, new Uint8Array(512)), /No space left on device/);
  await graph.close(node);
  assert.equal(readFileSync(image)[0], 1);
});

test('a throttled disk lets a little through at once, and makes the rest wait in order', async () => {
  const { groupOf, THROTTLING, ThrottleNode } = await import('./throttle.ts');
  const { readOptions } = await import('./schema.ts');
  const group = groupOf(readOptions(THROTTLING, { 'iops-total': '50' }));
  const node = new ThrottleNode(new MemoryNode(new Uint8Array(MIB), false), group);
  const order: number[] = [];
  const pending = Array.from({ length: 12 }, (_, i) =>
    Promise.resolve(node.read(0, new Uint8Array(512))).then(() => order.push(i)),
  );
  await Promise.resolve();
  assert.ok(order.length < 12);
  await Promise.all(pending);
  assert.deepEqual(
    order,
    [...order].sort((a, b) => a - b),
  );
  assert.throws(
    () => groupOf(readOptions(THROTTLING, { 'iops-total': '50', 'iops-read': 1 })),
    /cannot be used at the same time/,
  );
});
