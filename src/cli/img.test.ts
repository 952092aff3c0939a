import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CLOCK_TOO_COARSE, needsQemu, temporaryFolder, untilMeasured } from '../storage/test-kit.ts';

const MAIN = fileURLToPath(new URL('./img-main.ts', import.meta.url));
const QEMU_IO = 'qemu-io ';

type Outcome = { status: number | null; out: string };

/** What may differ from run to run. */
const blur = (text: string): string =>
  text
    .replaceAll('virelay-img', 'qemu-img')
    .replace(/"date-n?sec": \d+/g, 'DATE')
    .replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, 'DATE')
    .replace(/("cid": )\d+/g, '$1N')
    .replace(/(uuid"?: )\S+/g, '$1UUID')
    .replace(/(iters"?: )\d+/g, '$1N')
    .replace(/in [\d.]+ seconds/g, 'in N seconds');

/** Words of a command; quotes keep spaces. */
const words = (line: string): string[] => [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);

function runIn(folder: string, program: string, args: readonly string[]): Outcome {
  const { status, stdout, stderr } = untilMeasured(
    () => spawnSync(program, args, { cwd: folder, encoding: 'utf8', timeout: 60_000 }),
    (result) => CLOCK_TOO_COARSE.test(result.stderr),
  );
  return { status, out: blur(stdout + stderr) };
}

/** Runs the same commands with both tools, each in a folder of its own, and compares all they print and return. */
function sameAsQemu(lines: readonly string[]): void {
  const [theirs, ours] = [temporaryFolder(), temporaryFolder()];
  for (const line of lines) {
    if (line.startsWith(QEMU_IO)) {
      for (const folder of [theirs, ours]) runIn(folder, 'qemu-io', words(line.slice(QEMU_IO.length)));
      continue;
    }
    const expected = runIn(theirs, 'qemu-img', words(line));
    assert.deepEqual(runIn(ours, process.execPath, ['--no-warnings', MAIN, ...words(line)]), expected, line);
  }
}

test('new images, and what is said of them', needsQemu, () =>
  sameAsQemu([
    'create -f qcow2 a.qcow2 1G',
    'info a.qcow2',
    'info --output=json a.qcow2',
    'create -f raw a.raw 10M',
    'info --output=json a.raw',
    'create -f qcow2 -o preallocation=metadata,cluster_size=4k,refcount_bits=8,compression_type=zstd c.qcow2 10M',
    'check c.qcow2',
    'create -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 10M',
    'info d.qcow2',
    'check d.qcow2',
    'create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 e.qcow2 1M',
    'info e.qcow2',
    'create -f qcow2 -o help',
  ]),
);

test('what cannot be done is said in the same words', needsQemu, () =>
  sameAsQemu([
    'create a.raw',
    'create -f nope a.raw 1M',
    'create -f qcow2 -o cluster_size=3k b.qcow2 1M',
    'create -f qcow2 -o foo=3k b.qcow2 1M',
    'create -f qcow2 -o compat=0.10,lazy_refcounts=on b.qcow2 1M',
    'create -f qcow2 b.qcow2 1Q',
    'create -f qcow2 -b nope -F qcow2 b.qcow2',
    'info nope.qcow2',
    'info --foo x',
    'nope',
    'create -f raw a.raw 1M',
    'info -f qcow2 a.raw',
    'check a.raw',
    'resize -f raw a.raw 512k',
    'convert -O nope a.raw b',
    'compare nope a.raw',
    'create -f qcow2 -o size=1M b.qcow2 2M',
    'create -f qcow2 b.qcow2 100P',
    'create -f qcow2 -o compression_type=lz4 b.qcow2 1M',
    'create -f qcow2 -o extended_l2=on,cluster_size=4k b.qcow2 1M',
    'create -f raw -b a.raw -F raw b.raw',
    'create -f qcow2 c.qcow2 1M',
    'info --image-opts driver=qcow2,file.filename=c.qcow2',
    'info --image-opts driver=qcow2,file.filename=c.qcow2,bogus=1',
    'info foo:bar',
    'amend -o backing_file=a.raw c.qcow2',
    'dd if=c.qcow2 of=d.raw bs=0',
    'measure',
    'check -r foo c.qcow2',
  ]),
);

test('chains: map, compare, measure, commit, rebase', needsQemu, () =>
  sameAsQemu([
    'create -f qcow2 m.qcow2 100M',
    "qemu-io -c 'write -P 1 0 1M' -c 'write -z 2M 1M' -c 'write -P 2 50M 64k' m.qcow2",
    'create -f qcow2 -b m.qcow2 -F qcow2 n.qcow2',
    "qemu-io -c 'write -P 3 1M 128k' n.qcow2",
    'map n.qcow2',
    'map --output=json n.qcow2',
    'map --output=json --start-offset=1M --max-length=2M n.qcow2',
    'info --backing-chain --output=json n.qcow2',
    'convert -O raw n.qcow2 n.raw',
    'compare n.qcow2 n.raw',
    'compare m.qcow2 n.raw',
    'measure -O qcow2 n.qcow2',
    'measure -O qcow2 --output=json --size 10G',
    'commit n.qcow2',
    'check n.qcow2',
    'compare m.qcow2 n.raw',
    'create -f qcow2 a.qcow2 100M',
    'rebase -b a.qcow2 -F qcow2 n.qcow2',
    'compare n.qcow2 n.raw',
    "rebase -b '' n.qcow2",
  ]),
);

test('snapshots, sizes, features and bitmaps of an image', needsQemu, () =>
  sameAsQemu([
    'create -f qcow2 a.qcow2 10M',
    "qemu-io -c 'write -P 1 0 1M' a.qcow2",
    'snapshot -c one a.qcow2',
    "qemu-io -c 'write -P 2 0 2M' a.qcow2",
    'snapshot -l a.qcow2',
    'convert -l one -O raw a.qcow2 one.raw',
    'snapshot -a one a.qcow2',
    'check a.qcow2',
    'compare a.qcow2 one.raw',
    'snapshot -d one a.qcow2',
    'snapshot -d one a.qcow2',
    'check a.qcow2',
    'resize a.qcow2 +5M',
    'resize --shrink a.qcow2 8M',
    'check a.qcow2',
    'amend -o compat=0.10 a.qcow2',
    'amend -o compat=1.1,refcount_bits=8 a.qcow2',
    'check a.qcow2',
    'amend -o cluster_size=4k a.qcow2',
    'bitmap --add a.qcow2 b0',
    'bitmap --add a.qcow2 b0',
    'bitmap --add -g 1M a.qcow2 b1',
    'bitmap --remove a.qcow2 b0',
    'check a.qcow2',
    'convert --bitmaps -c -O qcow2 a.qcow2 c.qcow2',
    'dd if=a.qcow2 of=d.raw bs=1M count=3 skip=1',
    'bench -c 100 a.qcow2',
  ]),
);

test('images of other programs: what they are made with, what is said of them, and conversions', needsQemu, () =>
  sameAsQemu([
    ...['vmdk', 'vdi', 'vpc', 'parallels', 'qed'].flatMap((format) => [
      `create -f ${format} a.${format} 10M`,
      `info --output=json a.${format}`,
      `check a.${format}`,
      `map --output=json a.${format}`,
      `create -f ${format} -o help`,
    ]),
    'create -f vhdx a.vhdx 10M',
    'check a.vhdx',
    'create -f vmdk -o subformat=twoGbMaxExtentSparse t.vmdk 5G',
    'create -f vpc -o subformat=bogus q.vpc 1M',
    'create -f raw r.raw 4M',
    "qemu-io -f raw -c 'write -P 1 0 1M' -c 'write -P 2 3M 4k' r.raw",
    'convert -O vmdk -o subformat=streamOptimized r.raw s.vmdk',
    'map s.vmdk',
    ...['vdi', 'vhdx', 'qed', 'parallels'].flatMap((format) => [
      `convert -O ${format} r.raw c.${format}`,
      `compare r.raw c.${format}`,
    ]),
    'compare r.raw s.vmdk',
    'map --output=json c.vdi',
    'resize c.vdi 8M',
    'resize c.qed 8M',
    'convert -c -O vdi r.raw d.vdi',
  ]),
);

test('damage is found and repaired', needsQemu, () => {
  const folder = temporaryFolder();
  const path = join(folder, 'a.qcow2');
  const img = (...args: string[]): Outcome => runIn(folder, process.execPath, ['--no-warnings', MAIN, ...args]);
  runIn(folder, 'qemu-img', ['create', '-q', '-f', 'qcow2', 'a.qcow2', '10M']);
  runIn(folder, 'qemu-io', ['-c', 'write 0 1M', 'a.qcow2']);
  // A cluster that is free by its count (in the first block, which is the third cluster), and one that nobody uses.
  runIn(folder, 'qemu-io', ['-f', 'raw', '-c', 'write -P 0 131084 2', '-c', 'write -P 1 131184 2', path]);
  const expected = runIn(folder, 'qemu-img', ['check', 'a.qcow2']);
  assert.deepEqual(img('check', 'a.qcow2').status, expected.status);
  assert.match(img('check', 'a.qcow2').out, /ERROR cluster 6 refcount=0 reference=1\nLeaked cluster 56 refcount=257 reference=0/);
  assert.equal(img('check', '-r', 'all', 'a.qcow2').status, 0);
  assert.match(runIn(folder, 'qemu-img', ['check', 'a.qcow2']).out, /^No errors/);
});

const IN_USE: Record<string, string[]> = {
  qcow2: ['info a.qcow2', 'check a.qcow2', 'resize a.qcow2 20M', 'info -U --output=json a.qcow2', 'create -f qcow2 a.qcow2 1M'],
  raw: ['info -f raw a.raw', 'map -f raw a.raw', 'create -f raw a.raw 1M'],
};

for (const [format, lines] of Object.entries(IN_USE)) {
  test(`a ${format} image that another process writes to is left alone as QEMU leaves it alone`, needsQemu, async () => {
    const folder = temporaryFolder();
    const path = `a.${format}`;
    runIn(folder, 'qemu-img', ['create', '-q', '-f', format, path, '10M']);
    const other = spawn('qemu-io', ['-f', format, path], { cwd: folder, stdio: ['pipe', 'pipe', 'ignore'] });
    try {
      other.stdin.write('read 0 512\n');
      await new Promise((resolve) => other.stdout.once('data', resolve));
      for (const line of lines) {
        const expected = runIn(folder, 'qemu-img', words(line));
        assert.deepEqual(runIn(folder, process.execPath, ['--no-warnings', MAIN, ...words(line)]), expected, line);
      }
    } finally {
      const ended = new Promise((resolve) => other.once('exit', resolve));
      other.stdin.end('quit\n');
      await ended;
    }
  });
}
