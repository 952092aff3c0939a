/**
 * Records what the guests should log, from QEMU: `node --no-warnings test/system/record.ts [NAME...]`.
 * Needs nasm and qemu-system-x86_64. Comments of the form
 *
 *     ;= the line as the manual has it ## why QEMU's differs
 *
 * in a guest replace QEMU's line with the same first word. `; cpu: MODEL` chooses another CPU model.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { guestImage } from './image.ts';
import { GUESTS, RECORDED, sourceHash } from './recorded.ts';
import type { Recording } from './recorded.ts';

const CPU = 'max';
const scratch = mkdtempSync(join(tmpdir(), 'guests-'));

/** @param forQemu leaves out what QEMU would not survive */
function assemble(name: string, forQemu: boolean): Uint8Array {
  const out = join(scratch, name);
  const source = join(GUESTS, `${name}.asm`);
  const define = forQemu ? ['-DQEMU'] : [];
  execFileSync('nasm', ['-w-number-overflow', '-f', 'bin', '-I', GUESTS, ...define, '-o', out, source], { stdio: 'inherit' });
  return readFileSync(out);
}

function runQemu(program: Uint8Array, cpu: string): string[] {
  const image = join(scratch, 'image');
  const log = join(scratch, 'log');
  writeFileSync(image, guestImage(program, 1));
  const { status } = spawnSync(
    'qemu-system-x86_64',
    [
      '-accel',
      'tcg',
      '-cpu',
      cpu,
      '-m',
      '16',
      '-bios',
      image,
      '-debugcon',
      `file:${log}`,
      '-display',
      'none',
      '-device',
      'isa-debug-exit,iobase=0xf4',
      '-no-reboot',
      '-nodefaults',
    ],
    { stdio: ['ignore', 'ignore', 'inherit'], timeout: 20_000 },
  );
  const lines = readFileSync(log, 'latin1').split('\n');
  if (lines.at(-1) === '') lines.pop();
  return [...lines, status === 1 ? 'end' : status === 0 ? 'reset' : 'hung'];
}

function fromManual(text: string): { line: string; why: string }[] {
  return [...text.matchAll(/^\s*;= (.*?)\s*## (.*)$/gm)].map(([, line, why]) => ({ line: line!, why: why! }));
}

function record(name: string): void {
  const text = readFileSync(join(GUESTS, `${name}.asm`), 'utf8');
  const cpu = /^; cpu: (\S+)/m.exec(text)?.[1] ?? CPU;
  const program = assemble(name, false);
  const log = runQemu(assemble(name, true), cpu);
  const manual = fromManual(text);
  for (const { line } of manual) {
    const at = log.findIndex((other) => other.split(' ')[0] === line.split(' ')[0]);
    if (at < 0) throw new Error(`${name}: no line "${line.split(' ')[0]}" among\n${log.join('\n').slice(0, 5000)}`);
    if (log[at] === line) console.error(`${name}: QEMU agrees: ${line}`);
    log[at] = line;
  }
  const recording: Recording = {
    source: sourceHash(name),
    cpu,
    passes: /^; passes: (\d+)/m.exec(text)?.[1] === '1' ? 1 : 3,
    log,
    program: Buffer.from(program).toString('base64'),
  };
  writeFileSync(join(RECORDED, `${name}.json`), `${JSON.stringify(recording, null, 1)}\n`);
}

const names = readdirSync(GUESTS)
  .filter((file) => file.endsWith('.asm'))
  .map((file) => file.slice(0, -4));
try {
  for (const name of process.argv.length > 2 ? process.argv.slice(2) : names) record(name);
} finally {
  rmSync(scratch, { recursive: true });
}
