/** `npm run fuzz:kvm [-- --seconds N --seed S --without MODES]`: machine states under KVM and under the translator. */
import { writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { probeKvm } from '../../src/kvm/probe.ts';
import { MODES, type Mode, modesOf, runDifferential, runRoundTrips } from './fuzz.ts';
import { hostKind } from './hosts.ts';

/** Of each mode, that are written and read. */
const STATES = 20;
const USAGE = `fuzz:kvm [--seconds N] [--cases N] [--seed S] [--only MODES] [--without MODES] [--verbose]; modes are ${MODES.join(', ')}`;

function main(): number {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      cases: { type: 'string', default: 'Infinity' },
      seed: { type: 'string' },
      only: { type: 'string', default: '' },
      verbose: { type: 'boolean', default: false },
      without: { type: 'string', default: '' },
    },
  });
  const [seconds, cases, seed] = [values.seconds, values.cases, values.seed ?? String(Date.now() & 0x7fffffff)].map(Number) as [
    number,
    number,
    number,
  ];
  const [only, without] = [values.only, values.without].map((text) => text.split(',').filter((name) => name !== '')) as [
    string[],
    string[],
  ];
  const unknown = [...only, ...without].some((name) => !MODES.includes(name as Mode));
  if (!(seconds > 0) || !(cases > 0) || !Number.isInteger(seed) || unknown) {
    console.error(USAGE);
    return 2;
  }
  const probe = probeKvm();
  if (!probe.available) {
    console.error(`fuzz:kvm: ${probe.reason}`);
    return 1;
  }
  const kind = hostKind(probe.missing === null);
  const modes = modesOf(kind).filter((mode) => (only.length === 0 || only.includes(mode)) && !without.includes(mode));
  console.log(`seed ${seed}, ${seconds} s, the KVM is ${kind.name}`);
  const tell = (name: string): void => void writeSync(1, `${name}\n`);
  const { counts, failures } = runDifferential({ seed, kind, modes, cases, seconds, ...(values.verbose ? { tell } : {}) });
  const lost = runRoundTrips(seed, modes, STATES);
  for (const line of lost) console.log(`written and read: ${line}`);
  for (const line of failures) console.log(line);
  for (const [name, { compared, beyond }] of counts) console.log(`${name}: ${compared} compared, ${beyond} beyond this KVM`);
  const differences = failures.length + lost.length;
  console.log(`${differences} differences`);
  return differences === 0 ? 0 : 1;
}

process.exitCode = main();
