/** Medians, ratios and their presentation. */
import type { Result, Run } from './emulators.ts';

export interface Row {
  readonly group: string;
  readonly name: string;
  /** Median microseconds by emulator. */
  readonly times: Record<string, number>;
  readonly ratio: number | null;
}

export interface Summary {
  readonly rows: readonly Row[];
  /** Geometric means of the ratios, ours / theirs. */
  readonly groups: Record<string, number>;
  readonly bootMs: Record<string, number>;
  readonly peakMiB: Record<string, number>;
  /** Results that differ from the host's own. */
  readonly wrong: readonly string[];
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
}

const keyOf = ({ group, name }: { group: string; name: string }): string => `${group} ${name}`;

function mismatches(native: readonly Result[], runs: ReadonlyMap<string, readonly Run[]>): string[] {
  const truth = new Map(native.map((one) => [keyOf(one), one.checksum]));
  const wrong = new Set<string>();
  for (const [emulator, list] of runs) {
    for (const { results } of list) {
      for (const result of results) {
        const right = truth.get(keyOf(result));
        if (right !== result.checksum) {
          wrong.add(`${emulator}: ${keyOf(result)}: ${result.checksum}, natively ${right ?? 'absent'}`);
        }
      }
      const missing = native.filter((one) => !results.some((other) => keyOf(other) === keyOf(one)));
      for (const one of missing) wrong.add(`${emulator}: ${keyOf(one)}: no result`);
    }
  }
  return [...wrong];
}

/** @param ours name of the emulator whose ratio to `theirs` is wanted */
export function summarize(
  native: readonly Result[],
  runs: ReadonlyMap<string, readonly Run[]>,
  ours: string,
  theirs: string,
): Summary {
  const medians = (of: (run: Run) => number | undefined): Record<string, number> =>
    Object.fromEntries(
      [...runs].map(([emulator, list]) => [emulator, median(list.map(of).filter((value) => value !== undefined))]),
    );
  const rows = native.map((one): Row => {
    const times = medians(({ results }) => results.find((other) => keyOf(other) === keyOf(one))?.microseconds);
    const ratio = times[ours]! / times[theirs]!;
    const { group, name, microseconds } = one;
    return {
      group,
      name,
      times: { native: microseconds, ...times },
      ratio: Number.isFinite(ratio) ? ratio : null,
    };
  });
  const ratios = Map.groupBy(
    rows.filter(({ ratio }) => ratio !== null),
    ({ group }) => group,
  );
  return {
    rows,
    groups: Object.fromEntries([...ratios].map(([group, list]) => [group, geometricMean(list.map(({ ratio }) => ratio!))])),
    bootMs: medians(({ bootMs }) => bootMs),
    peakMiB: medians(({ peakKiB }) => peakKiB / 1024),
    wrong: mismatches(native, runs),
  };
}

const cell = (value: number | undefined, digits: number): string =>
  (value === undefined || !Number.isFinite(value) ? '-' : value.toFixed(digits)).padStart(12);

export function formatTable(summary: Summary, emulators: readonly string[]): string {
  const columns = ['native', ...emulators];
  const label = (text: string): string => text.padEnd(26);
  const lines = [label('milliseconds') + columns.map((name) => name.padStart(12)).join('') + 'ratio'.padStart(12)];
  for (const { group, name, times, ratio } of summary.rows) {
    const cells = columns.map((column) => cell((times[column] ?? NaN) / 1000, 1)).join('');
    lines.push(label(`${group} ${name}`) + cells + cell(ratio ?? undefined, 2));
  }
  const ratioOf = (of: Record<string, number>): number => of[emulators[0]!]! / of[emulators[1] ?? '']!;
  const whole = (name: string, of: Record<string, number>): string =>
    label(name) +
    ['', ...emulators.map((one) => cell(of[one], 1))].map((text) => text.padStart(12)).join('') +
    cell(ratioOf(of), 2);
  lines.push(whole('power-on to /init', summary.bootMs), whole('peak memory, MiB', summary.peakMiB), '');
  for (const [group, ratio] of Object.entries(summary.groups)) {
    lines.push(label(`geometric mean, ${group}`) + ' '.repeat(12 * columns.length) + cell(ratio, 2));
  }
  for (const line of summary.wrong) lines.push(`WRONG ${line}`);
  return lines.join('\n');
}
