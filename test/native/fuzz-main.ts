/** `npm run fuzz:x86 [-- --seconds N --seed S --only NAMES --coverage]`: see fuzz.ts. */
import { parseArgs } from 'node:util';
import { Fuzz } from './fuzz.ts';
import type { Coverage } from './fuzz.ts';
import { unavailable } from './native.ts';

const USAGE = 'fuzz:x86 [--seconds N] [--seed S] [--only REGULAR-EXPRESSION] [--coverage]';

function table(coverage: readonly Coverage[]): string[] {
  const lines = ['instruction                form                         64-bit 32-bit register memory faults compiled differ'];
  for (const c of coverage) {
    const counts = [c.cases[0], c.cases[1], c.register, c.memory, c.faults, c.compiled, c.differences];
    const widths = [7, 7, 9, 7, 7, 9, 7];
    const reasons =
      c.excluded[0] !== null && c.excluded[1] !== null
        ? `   ${[...new Set(c.excluded)].filter((text) => text !== 'not in this mode').join(', ')}`
        : '';
    lines.push(
      `${c.row.name.padEnd(18)} ${c.row.operands
        .map((o) => o.text)
        .join(',')
        .padEnd(14)} ${c.row.encoding.padEnd(20)}` + (reasons || counts.map((n, i) => String(n).padStart(widths[i]!)).join('')),
    );
  }
  return lines;
}

function summary(coverage: readonly Coverage[]): string {
  const judged = coverage.filter((c) => c.cases[0] + c.cases[1] > 0).length;
  const compiled = coverage.filter((c) => c.compiled > 0).length;
  const excluded = coverage.filter((c) => c.excluded[0] !== null && c.excluded[1] !== null).length;
  return `${judged} of ${coverage.length} forms judged (${compiled} compiled, too), ${excluded} cannot be in user mode`;
}

function main(): number {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      seed: { type: 'string' },
      only: { type: 'string', default: '.' },
      coverage: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const seconds = Number(values.seconds);
  const seed = Number(values.seed ?? Date.now() & 0x7fffffff);
  if (!(seconds > 0) || !Number.isInteger(seed)) {
    console.error(USAGE);
    return 2;
  }
  const reason = unavailable();
  if (reason !== null) {
    console.error(`fuzz:x86: the host cannot judge: ${reason}`);
    return 1;
  }
  console.log(`seed ${seed}, ${seconds} s`);
  const options = { seed, seconds, only: new RegExp(`^(${values.only})`), rounds: Infinity, compileOneIn: 12 };
  const { coverage, failures, cases, rounds } = new Fuzz(options).run();
  if (values.coverage) console.log(table(coverage).join('\n'));
  for (const line of failures) console.log(line);
  console.log(`${rounds} rounds, ${cases} cases, ${failures.length} differences; ${summary(coverage)}`);
  return failures.length === 0 ? 0 : 1;
}

process.exitCode = main();
