/** `check` and `snapshot`. */
import { skipFilters } from '../storage/chain.ts';
import type { CheckResult, Fix } from '../storage/node.ts';
import type { Qcow2Node } from '../storage/qcow2/node.ts';
import { CommandError, has, lastOf, parseArguments, usage } from './img-args.ts';
import { complain, Images, prettyJson, print, report, wantsJson } from './img-open.ts';

const STATUS = { ok: 0, failed: 1, errors: 2, leaks: 3, unsupported: 63 } as const;

export async function checkCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:qr:T:U', ['output=', 'repair=', 'force-share']);
  if (args.rest.length !== 1) throw usage('Expecting one image file name');
  const json = wantsJson(lastOf(args, 'output'));
  const wanted = lastOf(args, 'r') ?? lastOf(args, 'repair');
  if (wanted !== null && wanted !== 'leaks' && wanted !== 'all')
    throw usage(`Unknown option value for -r (expecting 'leaks' or 'all'): ${wanted}`);
  const fix: Fix = wanted ?? 'none';
  const quiet = has(args, 'q');
  const filename = args.rest[0]!;
  const images = new Images(args);
  try {
    const how = { writable: fix !== 'none', noBacking: true, repairing: true };
    const node = await images.open(filename, { format: lastOf(args, 'f'), imageOpts: has(args, 'image-opts'), how });
    const { driver } = skipFilters(node);
    const say = (line: string): void => {
      if (!quiet) (json ? complain : (text: string) => print(`${text}\n`))(line);
    };
    let result = await node.check(fix, say);
    if (result === null) {
      if (json) throw new CommandError('This image format does not support checks', STATUS.unsupported);
      if (!quiet) report('This image format does not support checks');
      return STATUS.unsupported;
    }
    const { errorsFixed, leaksFixed } = result;
    if (errorsFixed > 0 || leaksFixed > 0) {
      if (!json && !quiet) {
        print(
          `The following inconsistencies were found and repaired:\n\n    ${leaksFixed} leaked clusters\n    ${errorsFixed} corruptions\n\nDouble checking the fixed image now...\n`,
        );
      }
      result = { ...(await node.check('none', say))!, errorsFixed, leaksFixed };
    }
    if (!quiet) print(json ? prettyJson(jsonCheck(filename, driver, result)) : humanCheck(result));
    return result.errors > 0 ? STATUS.errors : result.leaks > 0 ? STATUS.leaks : STATUS.ok;
  } finally {
    await images.close();
  }
}

function jsonCheck(filename: string, format: string, result: CheckResult): Record<string, unknown> {
  const some = (key: string, value: number) => (value === 0 ? {} : { [key]: value });
  return {
    ...some('image-end-offset', result.imageEnd),
    ...some('total-clusters', result.totalClusters),
    'check-errors': 0,
    ...some('corruptions', result.errors),
    ...some('corruptions-fixed', result.errorsFixed),
    ...some('leaks', result.leaks),
    ...some('leaks-fixed', result.leaksFixed),
    ...some('allocated-clusters', result.allocatedClusters),
    filename,
    format,
    ...some('fragmented-clusters', result.fragmentedClusters),
    ...some('compressed-clusters', result.compressedClusters),
  };
}

function humanCheck(result: CheckResult): string {
  let out = '';
  if (result.errors === 0 && result.leaks === 0) out += 'No errors were found on the image.\n';
  if (result.errors > 0) {
    out += `\n${result.errors} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n`;
  }
  if (result.leaks > 0) {
    out += `\n${result.leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n`;
  }
  const { totalClusters: total, allocatedClusters: allocated } = result;
  if (total !== 0 && allocated !== 0) {
    const part = (value: number, of: number): string => twoPlaces((value * 100) / of);
    out +=
      `${allocated}/${total} = ${part(allocated, total)}% allocated, ` +
      `${part(result.fragmentedClusters, allocated)}% fragmented, ${part(result.compressedClusters, allocated)}% compressed clusters\n`;
  }
  if (result.imageEnd > 0) out += `Image end offset: ${result.imageEnd}\n`;
  return out;
}

/** As C prints it: what lies exactly between two goes to the even one. */
function twoPlaces(value: number): string {
  const hundredths = value * 100;
  const below = Math.floor(hundredths);
  const up = hundredths - below === 0.5 ? below % 2 === 1 : hundredths - below > 0.5;
  return ((below + (up ? 1 : 0)) / 100).toFixed(2);
}

export async function snapshotCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'la:c:d:qU', ['force-share']);
  const actions = ['l', 'a', 'c', 'd'].filter((name) => has(args, name));
  if (actions.length > 1) throw usage("Cannot mix '-l', '-a', '-c', '-d'");
  if (args.rest.length !== 1) throw usage('Expecting one image file name');
  const action = actions[0] ?? 'l';
  const images = new Images(args);
  try {
    const how = { writable: action !== 'l', unmap: true };
    const node = await images.open(args.rest[0]!, { format: null, imageOpts: has(args, 'image-opts'), how });
    const real = skipFilters(node);
    if (action === 'l') await listSnapshots(real);
    else if (real.driver !== 'qcow2') throw unsupported(action, lastOf(args, action)!);
    else await changeSnapshot(real as Qcow2Node, action, lastOf(args, action)!);
    await images.close();
  } catch (error) {
    await images.close().catch(() => undefined);
    throw error;
  }
  return 0;
}

async function listSnapshots(node: ReturnType<typeof skipFilters>): Promise<void> {
  const { snapshots } = await node.info();
  if (snapshots === undefined || snapshots.length === 0) return;
  const { snapshotTable } = await import('./img-info.ts');
  print(`Snapshot list:\n${snapshotTable(snapshots).join('\n')}\n`);
}

function unsupported(action: string, name: string): CommandError {
  const verb = { c: 'create', a: 'apply', d: 'delete' }[action]!;
  return new CommandError(`Could not ${verb} snapshot '${name}': -95 (Operation not supported)`);
}

async function changeSnapshot(node: Qcow2Node, action: string, name: string): Promise<void> {
  const { applySnapshot, createSnapshot, deleteSnapshot, findSnapshot, readSnapshots } = await import(
    '../storage/qcow2/snapshots.ts'
  );
  switch (action) {
    case 'c': {
      const now = Date.now();
      await createSnapshot(node, {
        name,
        seconds: Math.floor(now / 1000),
        nanoseconds: (now % 1000) * 1e6,
        vmStateSize: 0,
        vmClock: 0n,
        icount: 0n,
      });
      return;
    }
    case 'a':
      try {
        await applySnapshot(node, name);
      } catch (error) {
        throw new CommandError(`Could not apply snapshot '${name}': Failed to load snapshot: ${(error as Error).message}`);
      }
      return;
    default:
      try {
        findSnapshot(await readSnapshots(node.image), name);
      } catch {
        throw new CommandError(`Could not delete snapshot '${name}': snapshot not found`);
      }
      await deleteSnapshot(node, name);
  }
}
