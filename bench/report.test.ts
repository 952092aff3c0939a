import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseResults } from './emulators.ts';
import { formatTable, geometricMean, median, summarize } from './report.ts';

test('medians and geometric means', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.ok(Math.abs(geometricMean([2, 8]) - 4) < 1e-12);
});

test('results are read from between other lines', () => {
  const text = '[ 1.0] boot\r\nRESULT integer crc 00000000000000ff 1200\r\nRESULT broken\r\n';
  assert.deepEqual(parseResults(text), [{ group: 'integer', name: 'crc', checksum: '00000000000000ff', microseconds: 1200 }]);
});

test('ratios, groups and what is wrong', () => {
  const result = (name: string, checksum: string, microseconds: number) => ({ group: 'g', name, checksum, microseconds });
  const run = (...results: ReturnType<typeof result>[]) => ({ results, bootMs: 10, peakKiB: 2048 });
  const native = [result('a', '1', 10), result('b', '2', 20)];
  const runs = new Map([
    ['ours', [run(result('a', '1', 100), result('b', '2', 100))]],
    ['qemu', [run(result('a', '1', 200), result('b', 'x', 50))]],
  ]);
  const summary = summarize(native, runs, 'ours', 'qemu');
  assert.deepEqual(
    summary.rows.map(({ ratio }) => ratio),
    [0.5, 2],
  );
  assert.ok(Math.abs(summary.groups['g']! - 1) < 1e-12);
  assert.deepEqual(summary.wrong, ['qemu: g b: x, natively 2']);
  assert.match(formatTable(summary, ['ours', 'qemu']), /^power-on to \/init .* 10\.0 +10\.0 +1\.00$/m);
});
