/**
 * Throughput of user networks without a guest in the way: this host's kernel talks through a TAP interface to
 * ours, and to QEMU's. To be run in a network namespace of its own, with iperf3 and QEMU installed:
 *
 *     unshare --net node --no-warnings bench/network/run.ts
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

const SECONDS = 4;
const run = (...command: string[]): string => execFileSync(command[0]!, command.slice(1), { encoding: 'utf8' });

const NETWORKS: Record<string, () => ChildProcess> = {
  'virelay, whole segments': () => virelay('offloads'),
  'virelay, frames of 1514 bytes': () => virelay('plain'),
  qemu: () =>
    spawn(
      'qemu-system-x86_64',
      [
        ...['-M', 'none', '-nographic', '-monitor', 'none', '-serial', 'none'],
        ...['-netdev', 'user,id=u', '-netdev', 'hubport,id=h0,hubid=0,netdev=u'],
        ...['-netdev', 'tap,id=t,ifname=tap0,script=no,downscript=no', '-netdev', 'hubport,id=h1,hubid=0,netdev=t'],
      ],
      { stdio: 'ignore' },
    ),
};

const virelay = (mode: string): ChildProcess =>
  spawn(process.execPath, ['--no-warnings', join(import.meta.dirname, 'bridge.ts'), mode], { stdio: 'inherit' });

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function configure(): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      run('ip', 'address', 'add', '10.0.2.15/24', 'dev', 'tap0');
      break;
    } catch (error) {
      if (tries > 50) throw error;
      await wait(100);
    }
  }
  run('ip', 'link', 'set', 'tap0', 'up');
}

function measure(...more: string[]): number {
  const args = ['-c', '10.0.2.2', '-p', '5201', '-t', String(SECONDS), '-J', ...more];
  const { end } = JSON.parse(run('iperf3', ...args)) as { end: { sum_received: { bits_per_second: number } } };
  return end.sum_received.bits_per_second / 8e6;
}

run('ip', 'link', 'set', 'lo', 'up');
const server = spawn('iperf3', ['-s', '-B', '127.0.0.1', '-p', '5201'], { stdio: 'ignore' });
await wait(300);
for (const [name, start] of Object.entries(NETWORKS)) {
  const child = start();
  await configure();
  await wait(500);
  const [out, into] = [measure(), measure('-R')];
  console.log(`${name.padEnd(30)} guest to host ${out.toFixed(0)} MB/s, host to guest ${into.toFixed(0)} MB/s`);
  child.kill();
  await once(child, 'exit');
}
server.kill();
