/** The library, by guests of a few instructions. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, Machine, type MachineConfig } from 'virelay';
import { DEBUG_EXIT_PORT, echo, greeter, resetter, sleeper } from './firmware.ts';

const MEMORY = 16 * 2 ** 20;

function config(data: Uint8Array, more: Partial<MachineConfig> = {}): Partial<MachineConfig> {
  return {
    memory: MEMORY,
    bios: { name: 'firmware', data },
    debugExit: { iobase: DEBUG_EXIT_PORT, iosize: 4 },
    ...more,
  };
}

async function readAll(stream: ReadableStream<Uint8Array>): Promise<string> {
  return new Response(stream).text();
}

test('several CPUs are more than the translator runs, and it says so', async () => {
  const wanted = config(greeter('hello\n', 5), { accel: ['jit', 'interp'], cpus: 2 });
  await assert.rejects(Machine.create(wanted), (error: Error) => {
    assert.match(error.message, /interp: it runs one CPU, and this machine has 2, which needs kvm$/);
    return true;
  });
  await assert.rejects(Machine.create({ ...wanted, cpus: 0 }), /cpus=0 is not a number from 1 to 255/);
  const topology = { sockets: 1, cores: 1, threads: 1 };
  await assert.rejects(
    Machine.create({ ...wanted, topology }),
    /topology: sockets \(1\) \* cores \(1\) \* threads \(1\) is not 2/,
  );
});

for (const accel of ['jit', 'interp'] as const) {
  test(`a guest prints and ends the machine (${accel})`, async () => {
    const machine = await Machine.create(config(greeter('hello\n', 5), { accel }));
    const text = readAll(machine.serial[0]!.readable);
    assert.deepEqual(await machine.ended, { event: 'debug-exit', status: 11 });
    assert.equal(await text, 'hello\n');
    assert.equal(machine.state, 'shutdown');
  });
}

test('a conversation by streams', async () => {
  const machine = await Machine.create(config(echo()));
  const reader = machine.serial[0]!.readable.getReader();
  const decoder = new TextDecoder();
  const writer = machine.serial[0]!.writable.getWriter();
  let text = '';
  const until = async (wanted: string): Promise<void> => {
    while (!text.includes(wanted)) text += decoder.decode((await reader.read()).value);
  };
  await until('ready\n');
  // More than all windows and FIFOs on the way together.
  const long = 'x'.repeat(20_000);
  await writer.write(new TextEncoder().encode(`${long}.q`));
  await until('.q');
  assert.equal(text, `ready\n${long}.q`);
  assert.equal((await machine.ended).status, 3);
});

test('pause, go on, quit; commands after the end do no harm', async () => {
  const machine = await Machine.create(config(sleeper('zzz'), { startPaused: true }));
  const states: string[] = [];
  machine.on('state', (state) => states.push(state));
  assert.equal(machine.state, 'prelaunch');
  await machine.start();
  await machine.pause();
  assert.equal(machine.state, 'paused');
  await machine.start();
  await machine.quit();
  await machine.start();
  assert.deepEqual(states, ['running', 'paused', 'running', 'shutdown']);
});

test('a reset is announced, or ends the machine', async () => {
  const once = await Machine.create(config(resetter('r'), { noReboot: true }));
  assert.equal((await once.ended).event, 'reset');
  const again = await Machine.create(config(resetter('r')));
  let resets = 0;
  const enough = new Promise<void>((resolve) => {
    again.on('reset', () => {
      if (++resets === 3) resolve();
    });
  });
  await enough;
  await again.quit();
});

test('output of a port that nobody reads is kept, and holds nothing up', async () => {
  const machine = await Machine.create(config(greeter('late', 0)));
  await machine.ended;
  assert.equal(await readAll(machine.serial[0]!.readable), 'late');
});

test('what cannot be created is refused in one line', async () => {
  await assert.rejects(Machine.create({ memory: 5 }), ConfigError);
  await assert.rejects(Machine.create(config(sleeper(''), { cpu: '8086' })), /unknown model "8086"/);
  await assert.rejects(
    Machine.create({ memory: MEMORY, kernel: { name: 'k', data: new Uint8Array(4096) } }),
    /^Error: kernel: not a Linux bzImage/,
  );
  await assert.rejects(Machine.create(config(sleeper(''), { memory: 2 ** 40 })), ConfigError);
});

test('counted instructions make two runs the same', async () => {
  const run = async (): Promise<string> => {
    const machine = await Machine.create(
      config(greeter('same\n', 0), {
        icount: { shift: 3, sleep: false },
        rtc: { base: 0, clock: 'vm' },
      }),
    );
    return readAll(machine.serial[0]!.readable);
  };
  assert.equal(await run(), await run());
});

test('what the machine warns of reaches its user', async () => {
  const machine = await Machine.create(config(greeter('x', 1), { cpu: 'max,+avx512f', serials: ['none'] }));
  assert.equal((await machine.ended).status, 3);
  assert.match(machine.warnings.join('\n'), /avx512f/);
});
