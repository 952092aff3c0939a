/** The command line as a process: serial ports, signals, terminals, bad input. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { findFirmware, openPty } from '#host';
import { collect, ended } from './child.ts';
import { echo, greeter, resetter, sleeper } from './firmware.ts';

const PROGRAM = join(import.meta.dirname, '..', '..', 'bin', 'virelay-system-x86_64');
const folder = mkdtempSync(join(tmpdir(), 'virelay-test-'));
after(() => rmSync(folder, { recursive: true }));

const place = (name: string): string => join(folder, name);

function bios(name: string, data: Uint8Array): string[] {
  writeFileSync(place(name), data);
  return ['-m', '16', '-bios', place(name), '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-display', 'none'];
}

const run = (args: readonly string[], input = '') => spawnSync(PROGRAM, args, { input, encoding: 'utf8', timeout: 60_000 });

test('bad input: one line, status 1, nothing half started', () => {
  writeFileSync(place('text'), 'no kernel\n');
  const untouched = place('untouched');
  const cases: [string[], RegExp][] = [
    [['-foo'], /-foo: unknown option/],
    [['-kernel', place('absent')], /-kernel \S+absent: no such file or directory/],
    [['-kernel', folder], /-kernel \S+: .*directory/],
    [['-kernel', place('text')], /-kernel \S+text: not a Linux bzImage or PVH ELF/],
    [['-kernel', place('text'), '-initrd', place('absent')], /-initrd \S+absent: no such file/],
    [['-bios', place('text')], /-bios \S+text: size is not a multiple of 64 KiB/],
    [['-bios', 'absent.bin'], /-bios absent.bin: no such file/],
    [
      [...bios('z', sleeper('')), '-hda', place('absent')],
      /-hda \S+absent: Could not open '\S+absent': No such file or directory/,
    ],
    [[...bios('z', sleeper('')), '-cdrom', folder], /-cdrom \S+: Could not open '\S+': not a regular file or block device/],
    [
      [...bios('z', sleeper('')), '-drive', `file=${place('text')},readonly=on`],
      /-drive file=\S+: an IDE disk cannot be read-only/,
    ],
    [[...bios('z', sleeper('')), '-m', '100T'], /-m 104857600M: .*more than/],
    [[...bios('z', sleeper('')), '-m', '12Q'], /-m 12Q: "12Q" is not a size/],
    [[...bios('z', sleeper('')), '-cpu', 'none'], /-cpu none: unknown model/],
    [[...bios('z', sleeper('')), '-serial', 'file:/absent/x'], /-serial file:\/absent\/x: no such file/],
    [[...bios('z', sleeper('')), '-serial', 'tcp:127.0.0.1:1'], /-serial tcp:127.0.0.1:1: connection refused/],
    [['-kernel', place('text'), '-serial', `file:${untouched}`], /-kernel/],
  ];
  for (const [args, expected] of cases) {
    const { status, stdout, stderr } = run(args);
    assert.match(stderr, /^virelay-system-x86_64: [^\n]+\n$/, args.join(' '));
    assert.match(stderr, expected);
    assert.equal(stdout, '');
    assert.equal(status, 1);
  }
  assert.equal(existsSync(untouched), false);
});

test('help and version go to standard output', () => {
  for (const args of [['-version'], ['-help'], ['-M', 'help'], ['-cpu', 'help'], ['-d', 'help']]) {
    const { status, stdout, stderr } = run(args);
    assert.equal(status, 0);
    assert.equal(stderr, '');
    assert.ok(stdout.length > 20);
  }
});

test('standard output, exit status, -no-reboot, trace', () => {
  const done = run([...bios('greeter', greeter('hi\n', 20)), '-serial', 'stdio']);
  assert.deepEqual([done.stdout, done.status], ['hi\n', 41]);
  const log = place('log');
  const reset = run([...bios('resetter', resetter('r')), '-no-reboot', '-serial', 'stdio', '-d', 'machine', '-D', log]);
  assert.deepEqual([reset.stdout, reset.status], ['r', 0]);
  assert.match(readFileSync(log, 'utf8'), /^machine: power event: reset after \d+ instructions$/m);
});

test('-d exec names the places at which translated code is entered', () => {
  const log = place('exec');
  run([...bios('greeter', greeter('hi', 20)), '-serial', 'null', '-d', 'exec', '-D', log]);
  const lines = readFileSync(log, 'utf8').trimEnd().split('\n');
  assert.match(lines[0]!, /^exec: 000000000000fff0 flags [0-9a-f]{8}$/);
  // Each OUT leaves the translated code: one entry for each instruction after one, and no more.
  const places = lines.map((line) => parseInt(line.split(' ')[1]!, 16));
  assert.deepEqual(places, [0xfff0, 0xf006, 0xf009]);
});

test("input from a pipe; its end is not the machine's", async () => {
  const child = spawn(PROGRAM, [...bios('echo', echo()), '-nographic']);
  const output = collect(child.stdout);
  await output.until('ready');
  child.stdin.write('abc');
  await output.until('abc');
  child.stdin.end('q');
  assert.equal(await ended(child), 3);
  assert.equal(output.seen.text, 'ready\nabcq');
});

test('a signal ends the machine in good order', async () => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    const pidFile = place('pid');
    const child = spawn(PROGRAM, [...bios('s', sleeper('zzz')), '-serial', 'stdio', '-pidfile', pidFile]);
    await collect(child.stdout).until('zzz');
    assert.equal(Number(readFileSync(pidFile, 'utf8')), child.pid);
    child.kill(signal);
    assert.equal(await ended(child), 0);
    assert.equal(existsSync(pidFile), false);
  }
});

test('signals that come together are one wish to end, not a wish not to wait for it', async () => {
  const child = spawn(PROGRAM, [...bios('s', sleeper('zzz')), '-serial', 'stdio']);
  const errors = collect(child.stderr);
  await collect(child.stdout).until('zzz');
  for (const signal of ['SIGTERM', 'SIGINT'] as const) child.kill(signal);
  assert.equal(await ended(child), 0);
  assert.equal(errors.seen.text.match(/terminating on/g)?.length, 1);
});

test('serial ports to files, sockets and nowhere', async () => {
  const file = place('out');
  assert.equal(run([...bios('g', greeter('to file', 0)), '-serial', `file:${file}`]).status, 1);
  assert.equal(readFileSync(file, 'utf8'), 'to file');
  assert.equal(run([...bios('g', greeter('lost', 0)), '-serial', 'null']).status, 1);

  const path = place('socket');
  const child = spawn(PROGRAM, [...bios('echo', echo()), '-serial', `unix:${path},server=on`]);
  await collect(child.stderr).until('waiting for a connection');
  const client = connect(path);
  const answer = collect(client);
  await answer.until('ready');
  client.write('12q');
  assert.equal(await ended(child), 3);
  await answer.until('12q');
});

test('a serial port as the client of a TCP server', async () => {
  const server = createServer();
  const connected = new Promise<Socket>((resolve) => server.once('connection', resolve));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const child = spawn(PROGRAM, [...bios('echo', echo()), '-serial', `tcp:127.0.0.1:${port}`]);
  const socket = await connected;
  const answer = collect(socket);
  await answer.until('ready');
  socket.write('q');
  assert.equal(await ended(child), 3);
  server.close();
});

/** A terminal of our own: its name, and a reader and writer at its other end. */
async function terminal() {
  const { channel, name } = await openPty();
  // Our pseudo-terminals start raw; a user's terminal does not.
  spawnSync('stty', ['-F', name, 'sane']);
  const fd = openSync(name, 'r+');
  const seen = { text: '' };
  void channel.readable.pipeTo(
    new WritableStream<Uint8Array>({
      write: (data) => {
        seen.text += new TextDecoder().decode(data);
      },
    }),
  );
  const writer = channel.writable.getWriter();
  const mode = (): string => spawnSync('stty', ['-F', name, '-a'], { encoding: 'utf8' }).stdout;
  const until = async (wanted: string): Promise<void> => {
    while (!seen.text.includes(wanted)) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  return {
    fd,
    seen,
    until,
    mode,
    close: () => channel.close(),
    type: (text: string) => writer.write(new TextEncoder().encode(text)),
  };
}

const onTerminal = { skip: process.platform !== 'linux' && 'pseudo-terminals by the Linux C library' };

test('a terminal is raw while the machine runs, and restored however it ends', onTerminal, async () => {
  const endings: [string, (child: ChildProcess, type: (text: string) => void) => void, number | string][] = [
    ['Ctrl-A X', (_child, type) => type('\x01x'), 0],
    ['guest', (_child, type) => type('q'), 3],
    ['SIGTERM', (child) => child.kill('SIGTERM'), 0],
  ];
  for (const [name, end, status] of endings) {
    const tty = await terminal();
    const before = tty.mode();
    const child = spawn(PROGRAM, [...bios('echo', echo()), '-nographic'], {
      stdio: [tty.fd, tty.fd, 'pipe'],
    });
    await tty.until('ready');
    assert.match(tty.mode(), /-icanon/);
    assert.match(tty.mode(), /-isig/);
    await tty.type('a\x03b');
    await tty.until('a\x03b');
    end(child, (text) => void tty.type(text));
    assert.equal(await ended(child), status, name);
    assert.equal(tty.mode(), before, name);
    tty.close();
  }
});

test('Ctrl-A H helps, Ctrl-A C is kept for the monitor, -serial stdio heeds Ctrl-C', onTerminal, async () => {
  const tty = await terminal();
  const child = spawn(PROGRAM, [...bios('echo', echo()), '-nographic'], { stdio: [tty.fd, tty.fd, 'pipe'] });
  const errors = collect(child.stderr!);
  await tty.until('ready');
  await tty.type('\x01h\x01c');
  await errors.until('C-a x    exit emulator');
  await errors.until('monitor is not available');
  await tty.type('\x01x');
  assert.equal(await ended(child), 0);
  const plain = spawn(PROGRAM, [...bios('echo', echo()), '-serial', 'stdio'], {
    stdio: [tty.fd, tty.fd, 'pipe'],
  });
  await tty.until('ready\r\nready');
  await tty.type('\x03');
  assert.equal(await ended(plain), 0);
  tty.close();
});

test('a pseudo-terminal as serial port', onTerminal, async () => {
  const child = spawn(PROGRAM, [...bios('echo', echo()), '-serial', 'pty', '-S']);
  const errors = collect(child.stderr);
  await errors.until('redirected to /dev/pts/');
  child.kill('SIGTERM');
  assert.equal(await ended(child), 0);
});

test('-display curses: the display on the terminal, which is restored however it ends', onTerminal, async (t) => {
  if (findFirmware('bios-256k.bin') === null) return t.skip('SeaBIOS is not installed');
  const endings: [string, (child: ChildProcess, type: (text: string) => void) => void][] = [
    ['Ctrl-A X', (_child, type) => type('\x01x')],
    ['SIGTERM', (child) => void child.kill('SIGTERM')],
  ];
  for (const [what, end] of endings) {
    const screen = await terminal();
    const before = screen.mode();
    const child = spawn(PROGRAM, ['-m', '16', '-display', 'curses', '-boot', 'c'], { stdio: [screen.fd, screen.fd, 'pipe'] });
    await screen.until('No bootable device.');
    assert.ok(screen.seen.text.startsWith('\x1b[?1049h'));
    assert.notEqual(screen.mode(), before);
    end(child, screen.type);
    assert.equal(await ended(child), 0, what);
    await screen.until('\x1b[?1049l');
    assert.equal(screen.mode(), before, what);
    await screen.close();
  }
});

test('-display curses needs the terminal for itself', () => {
  assert.match(run(['-display', 'curses']).stderr, /-display curses: needs a terminal/);
  assert.match(run(['-display', 'curses', '-nographic']).stderr, /-display curses: cannot be used together with -nographic/);
  assert.match(run(['-display', 'curses', '-serial', 'stdio']).stderr, /-serial stdio: the display is on standard input/);
  assert.match(run(['-display', 'gtk']).stderr, /-display gtk: not available \(only none, curses so far\)/);
});
