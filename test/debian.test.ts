/** A distribution as people run it: systemd on a qcow2 overlay, reached by ssh through the user network. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { type DebianImage, debianImage } from './debian-image.ts';
import { freePort } from './free-port.ts';

const BIN = join(import.meta.dirname, '..', 'bin');
const BOOT_LIMIT_MS = 400_000;
const run = promisify(execFile);

class Debian {
  console = '';
  readonly port: number;
  private readonly key: string;
  private readonly child: ChildProcess;
  readonly status: Promise<number | null>;

  constructor({ key }: DebianImage, disk: string, port: number) {
    this.key = key;
    this.port = port;
    const args = [
      ...['-m', '1G', '-nographic', '-drive', `file=${disk},if=virtio`],
      ...['-nic', `user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:${port}-:22`],
    ];
    this.child = spawn(join(BIN, 'virelay-system-x86_64'), args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.child.stdout!.on('data', (chunk: Buffer) => (this.console += chunk.toString('latin1')));
    this.child.stderr!.on('data', (chunk: Buffer) => (this.console += chunk.toString('latin1')));
    this.status = new Promise((resolve) => this.child.on('close', resolve));
  }

  async waitFor(wanted: RegExp): Promise<void> {
    for (const end = Date.now() + BOOT_LIMIT_MS; !wanted.test(this.console); ) {
      const { exitCode, signalCode } = this.child;
      if (exitCode !== null || signalCode !== null || Date.now() > end)
        throw new Error(`no ${wanted} (${signalCode}) in:\n${this.console}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  /** Runs a command by ssh. @returns what it printed */
  async ssh(command: string): Promise<string> {
    const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'LogLevel=ERROR', 'ConnectTimeout=120'];
    const { stdout } = await run('ssh', [
      ...options.flatMap((one) => ['-o', one]),
      ...['-i', this.key, '-p', String(this.port), 'root@127.0.0.1', command],
    ]);
    return stdout;
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }
}

test('Debian from GRUB to a login prompt, ssh, HTTP, power-off, and the same disk again', {
  timeout: 1_000_000,
}, async (t) => {
  const image = debianImage();
  if (typeof image === 'string') return t.skip(image);
  const folder = mkdtempSync(join(tmpdir(), 'debian-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const disk = join(folder, 'disk.qcow2');
  execFileSync(join(BIN, 'virelay-img'), ['create', '-q', '-f', 'qcow2', '-b', image.image, '-F', 'qcow2', disk]);
  const body = 'served '.repeat(50_000);
  const server = createServer((_request, response) => response.end(body));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;

  const first = new Debian(image, disk, await freePort());
  t.after(() => first.kill());
  await first.waitFor(/debian login:/);
  assert.match(await first.ssh('uname -sm; id -un'), /^Linux x86_64\nroot\n$/);
  assert.equal(await first.ssh(`wget -qO- http://host.test:${port}/ | wc -c`), `${body.length}\n`);
  const sum = await first.ssh('head -c 20000000 /dev/urandom >/root/data; sync; sha256sum </root/data');
  await first.ssh('systemctl poweroff').catch(() => undefined);
  assert.equal(await first.status, 0, first.console);

  const second = new Debian(image, disk, await freePort());
  t.after(() => second.kill());
  await second.waitFor(/debian login:/);
  assert.equal(await second.ssh('sha256sum </root/data'), sum);
  await second.ssh('systemctl poweroff').catch(() => undefined);
  assert.equal(await second.status, 0, second.console);
  assert.match(execFileSync(join(BIN, 'virelay-img'), ['check', disk], { encoding: 'utf8' }), /No errors were found/);
});
