/** Machines with several CPUs, for a host with a whole KVM (test/kvm-smp.long.test.ts): an unmodified Linux finds and uses them. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { drive, Machine, type MachineConfig } from 'virelay';
import { savedAndEnded, streamOf } from '../saved-machine.ts';
import { Conversation } from '../virtio-guest.ts';

const MIB = 2 ** 20;
const named = (name: string) => ({ name, data: readFileSync(`/guest/${name}`) });

/** Without a wait for the loops-per-jiffy, and without self-tests, which take their time here. */
const APPEND = 'console=ttyS0 panic=-1 quiet cryptomgr.notests lpj=4000000 tsc=reliable no_timer_check';
const config = (cpus: number, more: Partial<MachineConfig> = {}): Partial<MachineConfig> => ({
  accel: 'kvm',
  memory: 192 * MIB,
  cpus,
  append: APPEND,
  noReboot: true,
  trace: ['cpu_reset'],
  kernel: named('kernel'),
  initrd: named('initrd'),
  ...more,
});

async function start(cpus: number, more: Partial<MachineConfig> = {}): Promise<Conversation> {
  const talk = new Conversation(await Machine.create(config(cpus, more)));
  await talk.until(/^listening/m);
  return talk;
}

/** Sum of a line of /proc/interrupts over all CPUs. */
const countOf = async (talk: Conversation, name: string): Promise<number> =>
  Number(
    await talk.run(
      `awk '/^ *${name}:/ { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }' /proc/interrupts`,
    ),
  );

/** Each CPU counts by itself; a process of each says which CPU it has run on. */
const LOAD = (cpus: number): string =>
  `for cpu in $(seq 0 ${cpus - 1}); do (taskset $((1 << cpu)) sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; ` +
  `echo "done on $(cut -d " " -f 39 /proc/self/stat)"') & done; wait`;

/** A file is empty while it is being written. */
const READ_COUNTS = 'for cpu in 0 1; do count=; while [ -z "$count" ]; do count=$(cat /tmp/count$cpu); done; echo $count; done';

/** Reads without an end, past all caches, and says how often. */
const READING =
  'i=0; while dd if=/dev/vda of=/dev/null bs=4k 2>/dev/null; do echo 3 >/proc/sys/vm/drop_caches; echo $((i += 1)) >/tmp/reads; done';

const COUNT_READS = 'count=; while [ -z "$count" ]; do count=$(cat /tmp/reads); done; echo $count';

test('two CPUs: Linux brings both up, both work, and go on where they were saved, and after a reboot', async () => {
  // A disk whose queues and vectors are the kernel's to answer for.
  const withDisk = {
    drives: [drive({ interface: 'none', id: 'd', file: { name: 'disk', data: new Uint8Array(MIB / 16).fill(1) } })],
    devices: [{ driver: 'virtio-blk-pci', drive: 'd', ioeventfd: 'on' }],
  };
  const talk = await start(2, withDisk);
  assert.equal((await talk.run('nproc')).trim(), '2');
  assert.equal((await talk.run('cat /sys/devices/system/cpu/online')).trim(), '0-1');
  const load = await talk.run(LOAD(2));
  assert.deepEqual(load.trim().split('\n').sort(), ['done on 0', 'done on 1']);
  const [calls, wakes] = [await countOf(talk, 'CAL'), await countOf(talk, 'RES')];
  assert.ok(calls + wakes > 0, `${calls} calls and ${wakes} wake-ups from one CPU to the other`);
  // A device is used by either.
  const said = await talk.run(
    `for cpu in 0 1; do taskset $((1 << cpu)) sh -c 'echo said on $(cut -d " " -f 39 /proc/self/stat)'; done`,
  );
  assert.deepEqual(said.trim().split('\n'), ['said on 0', 'said on 1']);
  assert.equal((await talk.run('dmesg | grep -ci "tsc.*unsync\\|skew"')).trim(), '0');

  const count = `i=0; while :; do i=$((i + 1)); echo $i >/tmp/count$0; done`;
  await talk.run(`for cpu in 0 1; do (taskset $((1 << cpu)) sh -c '${count}' $cpu) & done; (${READING}) & sleep 0.3`);
  const pieces = await savedAndEnded(talk.machine);
  const again = new Conversation(await Machine.restore(streamOf(pieces), config(2, { ...withDisk, noReboot: false })));
  const readsBefore = Number(await again.run(COUNT_READS));
  const read = async (): Promise<number[]> => (await again.run(READ_COUNTS)).trim().split('\n').map(Number);
  const before = await read();
  await again.run('sleep 0.3');
  const after = await read();
  assert.ok(after[0]! > before[0]! && after[1]! > before[1]!, `${before} and then ${after}`);
  const readsAfter = Number(
    await again.run(
      `n=0; while [ $((n += 1)) -lt 100 ] && [ "$(cat /tmp/reads)" = ${readsBefore} ]; do sleep 0.1; done; ${COUNT_READS}`,
    ),
  );
  assert.ok(readsAfter > readsBefore, `the disk was read ${readsBefore} times, and then ${readsAfter} times`);
  await again.until(/^listening/m, await again.tell('reboot -f'));
  assert.equal((await again.run('nproc')).trim(), '2', 'also after a reset');
  assert.equal((await again.run('dd if=/dev/vda bs=4k 2>/dev/null | wc -c')).trim(), String(MIB / 16));
  await again.machine.quit();
});

test('four CPUs: two sockets of two cores each, whose local APICs alone are in the kernel', async () => {
  const data = new Uint8Array(MIB).map((_, at) => at * 7);
  const talk = await start(4, {
    topology: { sockets: 2, cores: 2, threads: 1 },
    kernelIrqchip: 'split',
    drives: ['d', 'e'].map((id) => drive({ interface: 'none', id, file: { name: 'disk', data } })),
    devices: [
      // By a level-triggered pin of the I/O APIC, whose interrupts' ends the kernel tells of.
      { driver: 'virtio-blk-pci', drive: 'd', vectors: 0 },
      // By messages, which the kernel takes from eventfds.
      { driver: 'virtio-blk-pci', drive: 'e', ioeventfd: 'on' },
    ],
  });
  const interrupts = await countOf(talk, '[0-9]+');
  for (let cpu = 0; cpu < 4; cpu++) {
    const sum = await talk.run(
      `echo 3 >/proc/sys/vm/drop_caches; taskset ${1 << cpu} dd if=/dev/vda bs=64k 2>/dev/null | md5sum`,
    );
    assert.equal(sum.trim().slice(0, 32), createHash('md5').update(data).digest('hex'));
  }
  assert.match(await talk.run('grep virtio /proc/interrupts'), /IO-APIC +\d+-fasteoi/);
  const other = await talk.run('taskset 4 dd if=/dev/vdb bs=64k 2>/dev/null | md5sum');
  assert.equal(other.trim().slice(0, 32), createHash('md5').update(data).digest('hex'));
  assert.ok((await countOf(talk, '[0-9]+')) > interrupts);
  assert.equal((await talk.run('nproc')).trim(), '4');
  const packages = await talk.run('cat /sys/devices/system/cpu/cpu*/topology/physical_package_id');
  assert.deepEqual(packages.trim().split('\n'), ['0', '0', '1', '1']);
  const cores = await talk.run('cat /sys/devices/system/cpu/cpu*/topology/core_id');
  assert.deepEqual(cores.trim().split('\n'), ['0', '1', '0', '1']);
  // A CPU goes, and comes again.
  await talk.run('echo 0 >/sys/devices/system/cpu/cpu3/online');
  assert.equal((await talk.run('cat /sys/devices/system/cpu/online')).trim(), '0-2');
  await talk.run('echo 1 >/sys/devices/system/cpu/cpu3/online');
  assert.equal((await talk.run('nproc')).trim(), '4');
  await talk.machine.quit();
});

test("two CPUs: a microvm, whose disk either reads, and whose CPUs have Hyper-V's interface beside KVM's", async () => {
  const data = new Uint8Array(MIB).map((_, at) => at * 11);
  const talk = await start(2, {
    machine: 'microvm',
    cpu: 'max,hv-relaxed,hv-vpindex,hv-time,hv-synic,hv-stimer,hv-frequencies,hv-runtime',
    drives: [drive({ interface: 'none', id: 'd', file: { name: 'disk', data } })],
    devices: [{ driver: 'virtio-blk-device', drive: 'd', ioeventfd: 'on' }],
  });
  assert.match(await talk.run('dmesg | grep Hypervisor'), /detected: KVM/);
  for (let cpu = 0; cpu < 2; cpu++) {
    const sum = await talk.run(
      `echo 3 >/proc/sys/vm/drop_caches; taskset ${1 << cpu} dd if=/dev/vda bs=64k 2>/dev/null | md5sum`,
    );
    assert.equal(sum.trim().slice(0, 32), createHash('md5').update(data).digest('hex'));
  }
  await talk.machine.quit();
});
