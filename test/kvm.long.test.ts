/** Our side of KVM against a whole one, and not only what this host's is. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { KvmProbe } from '../src/kvm/probe.ts';
import { runOnKvmHost } from './kvm-host.ts';

/** QEMU's SVM does not load a guest's debug registers. */
const UNLIKE_SVM = 'breakpoints of the processor';
/** A thousand machines take their time there, and there is no compiler. */
const ELSEWHERE = ['lifecycle.test.ts', 'layouts.test.ts'];
/** Of each mode. */
const CASES = 8;
const PROBE = `import('/virelay/src/kvm/probe.ts').then(({ probeKvm }) => console.log('probe=' + JSON.stringify(probeKvm())))`;

test('a processor with SVM runs every kind of guest, KVM on it does all that we ask, and the translator the same', {
  timeout: 1_200_000,
}, async (t) => {
  const files = readdirSync(join(import.meta.dirname, '../src/kvm'))
    .filter((name) => name.endsWith('.test.ts') && !ELSEWHERE.includes(name))
    .map((name) => `src/kvm/${name}`)
    .concat('test/machine/kvm-hyperv.test.ts');
  const ran = await runOnKvmHost(
    t,
    ['src', 'test/differential', 'test/native'],
    [
      'export NODE_OPTIONS=--no-warnings',
      `node -e "${PROBE}"`,
      `node test/differential/main.ts --seed 1 --cases ${CASES} --seconds 90; echo "differential=$?"`,
      `node --test --test-isolation=none --test-reporter=tap --test-skip-pattern='${UNLIKE_SVM}' ${files.join(' ')}`,
    ].join('\n'),
    {
      files: new Map(
        ['last-words.ts', 'saved-machine.ts', 'machine/kvm-kit.ts', 'machine/kvm-hyperv.test.ts'].map((name) => [
          `virelay/test/${name}`,
          join(import.meta.dirname, name),
        ]),
      ),
    },
  );
  if (ran === null) return;
  const probe = JSON.parse(/probe=(.*)/.exec(ran.output)?.[1] ?? 'null') as KvmProbe | null;
  assert.ok(probe?.available, ran.output);
  assert.equal(probe.missing, null);
  assert.match(ran.output, /^differential=0$/m, ran.output);
  assert.equal(ran.status, 0, ran.output);
  assert.match(ran.output, /^ok \d+ - a guest finds Hyper-V's interface[^#\n]*$/m, 'it has that interface');
  assert.ok(Number(/^# pass (\d+)/m.exec(ran.output)?.[1]) > 30, ran.output);
});
