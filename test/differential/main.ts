/** `npm run fuzz:kvm [-- --seconds N --seed S --without MODES]`: machine states under KVM and under the translator. */
import { parseArgs } from 'node:util';
import { probeKvm } from '../../src/kvm/probe.ts';
import { MODES, type Mode, modesOf, runDifferential } from './fuzz.ts';

const USAGE = `fuzz:kvm [--seconds N] [--cases N] [--seed S] [--only MODES] [--without MODES]; modes are ${MODES.join(', ')}`;

function main(): number {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      cases: { type: 'string', default: 'Infinity' },
      seed: { type: 'string' },
      only: { type: 'string', default: '' },
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
  const complete = probe.missing === null;
  const modes = modesOf(complete).filter((mode) => (only.length === 0 || only.includes(mode)) && !without.includes(mode));
  console.log(`seed ${seed}, ${seconds} s${complete ? '' : `; ${probe.missing}`}`);
  const { counts, failures } = runDifferential({ seed, modes, cases, seconds, lenient: !complete });
  for (const line of failures) console.log(line);
  for (const [name, { compared, beyond }] of counts) console.log(`${name}: ${compared} compared, ${beyond} beyond this KVM`);
  console.log(`${failures.length} differences`);
  return failures.length === 0 ? 0 : 1;
}

process.exitCode = main();
