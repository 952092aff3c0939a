/** A short fixed run of the fuzzer: every form of the table once in each mode, and sequences. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fuzz } from './fuzz.ts';
import { unavailable } from './native.ts';

test('every form that user mode can run does what the host CPU does', { skip: unavailable() ?? false }, () => {
  const { coverage, failures } = new Fuzz({ seed: 4, seconds: 600, only: /./, rounds: 2, compileOneIn: 30 }).run();
  assert.equal(failures.length, 0, failures.join('\n'));
  const missing = coverage.filter((c) => c.cases[0] + c.cases[1] === 0 && c.excluded.includes(null));
  assert.deepEqual(
    missing.map((c) => c.row.encoding),
    [],
  );
});
