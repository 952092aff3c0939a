/** Firmware in flash memory, as OVMF is: code in one chip, variables in another. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { drive, Machine } from 'virelay';
import { findFirmware } from '../../src/host/node/firmware.ts';
import { greeter } from './firmware.ts';

const LIMIT = { timeout: 120_000 };
const MIB = 2 ** 20;
const PROMPT = 'Shell> ';
const ESCAPES = new RegExp(`${String.fromCharCode(27)}\\[[0-9;=]*[A-Za-z]`, 'g');

/** Gives the UEFI shell one command. @returns what it printed, without its escape sequences */
async function shell(code: string, variables: string, command: string, smm: boolean): Promise<string> {
  await using machine = await Machine.create({
    smm,
    memory: 128 * MIB,
    drives: [
      drive({ interface: 'pflash', index: 0, file: code, readOnly: true }),
      drive({ interface: 'pflash', index: 1, file: variables }),
    ],
  });
  const { readable, writable } = machine.serial[0]!;
  const writer = writable.getWriter();
  const type = (text: string): Promise<void> => writer.write(new TextEncoder().encode(text));
  const steps: [wanted: string, then: string][] = [
    ['key to continue', '\r'],
    [PROMPT, `${command}\r`],
    [PROMPT, ''],
  ];
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of readable) {
    text = (text + decoder.decode(chunk, { stream: true })).replaceAll(ESCAPES, '');
    const [wanted, then] = steps[0]!;
    const at = text.indexOf(wanted);
    if (at < 0) continue;
    if (steps.length === 1) return text;
    text = text.slice(at + wanted.length);
    steps.shift();
    await type(then);
  }
  throw new Error('the machine has ended');
}

test('OVMF keeps a variable in flash memory across a restart, also on a board without system management', LIMIT, async (t) => {
  const code = findFirmware('OVMF_CODE_4M.fd')?.name;
  const pristine = findFirmware('OVMF_VARS_4M.fd')?.name;
  if (code === undefined || pristine === undefined) {
    t.skip('OVMF is not installed');
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), 'flash-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const variables = join(folder, 'vars');
  copyFileSync(pristine, variables);
  await shell(code, variables, 'set kept hello42', true);
  assert.match(await shell(code, variables, 'set kept', false), /kept = hello42/);
});

test('the first chip holds the reset vector, whatever its size', LIMIT, async () => {
  const image = new Uint8Array(0x21000).fill(0xf4);
  const program = greeter('from flash\n', 1);
  image.set(program, image.length - program.length);
  await using machine = await Machine.create({
    memory: 16 * MIB,
    vga: 'none',
    debugExit: { iobase: 0xf4, iosize: 4 },
    drives: [drive({ interface: 'pflash', file: { name: 'image', data: image }, readOnly: true })],
  });
  const text = new Response(machine.serial[0]!.readable).text();
  assert.equal((await machine.ended).status, 3);
  assert.equal(await text, 'from flash\n');
});

test('flash that cannot be had is refused', async () => {
  const file = { name: 'image', data: new Uint8Array(0x10000) };
  const flash = (index: number, data = file.data) => drive({ interface: 'pflash', index, file: { name: 'image', data } });
  const cases: [Parameters<typeof Machine.create>[0], RegExp][] = [
    [{ drives: [flash(1)] }, /unit 0, is missing/],
    [{ drives: [flash(0)], bios: file }, /in flash memory already/],
    [{ drives: [flash(0, new Uint8Array(5000))] }, /not a multiple of 4096/],
    [{ drives: [flash(0, new Uint8Array(2 ** 23)), flash(1)] }, /more than 8 MiB/],
    [{ drives: [drive({ interface: 'pflash' })] }, /needs an image/],
  ];
  for (const [config, why] of cases) await assert.rejects(Machine.create({ memory: MIB * 16, ...config }), why);
});
