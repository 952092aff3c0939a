import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { KvmProbe } from '../kvm/probe.ts';
import { type Examination, examine, type Finding, formatExamination, type Host } from './doctor.ts';

const LAUNCHER = fileURLToPath(new URL('../../bin/virelay', import.meta.url));

const FILES: Record<string, string> = {
  '/sys/kernel/mm/transparent_hugepage/enabled': 'always [madvise] never\n',
  '/proc/meminfo': 'HugePages_Total:       3\n',
  '/proc/self/status': 'CapEff:\t000001ffffffffff\n',
};
const RUNS = {
  realMode: true,
  protectedMode: true,
  paging32: true,
  longMode: true,
  userMode: true,
  fastCalls: true,
  floatingPoint: true,
};
const GOOD: Host = {
  version: '26.1.0',
  validate: () => true,
  loadLibc: () => undefined,
  probeKvm: () => ({ available: true, runs: RUNS, failures: {}, missing: null }),
  facts: () => ({ extension: 'vmx', virtual: false, modules: ['kvm', 'kvm_intel'], nested: true }),
  read: (path) => FILES[path] ?? null,
  access: () => undefined,
};

const find = (subject: string, host: Partial<Host>): Finding =>
  examine({ ...GOOD, ...host }).findings.find((finding) => finding.subject === subject)!;
const failing = (code: string) => () => {
  throw Object.assign(new Error(code), { code });
};

test('a host that lacks nothing is told nothing to do', () => {
  const examination = examine(GOOD);
  assert.deepEqual(
    examination.findings.filter(({ status, advice }) => status !== 'ok' || advice !== null),
    [],
  );
  assert.equal(examination.runs, true);
  assert.equal(find('KVM', {}).detail, 'kvm_intel, vmx, nested');
  assert.match(formatExamination(examination), /\nok {7}KVM {10}kvm_intel, vmx, nested\n/);
});

test('what is missing comes with what to do', () => {
  const none: KvmProbe = { available: false, reason: 'there is no /dev/kvm: load its module (modprobe kvm_intel)' };
  const kvm = find('KVM', { probeKvm: () => none });
  assert.deepEqual([kvm.status, kvm.detail], ['limited', none.reason]);
  assert.match(kvm.advice!, /-accel jit/);
  const partial: KvmProbe = {
    available: true,
    runs: { ...RUNS, paging32: false },
    failures: { paging32: 'KVM_EXIT_SHUTDOWN' },
    missing: 'this KVM does not run 32-bit paging',
  };
  const facts = { extension: null, virtual: true, modules: ['kvm', 'kvm_pvm'], nested: null };
  const pvm = find('KVM', { probeKvm: () => partial, facts: () => facts });
  assert.equal(pvm.detail, 'kvm_pvm, no help of the processor; this KVM does not run 32-bit paging');
  assert.equal(pvm.status, 'limited');
  assert.match(find('TAP', { access: failing('ENOENT') }).advice!, /^modprobe tun;/);
  assert.match(find('TAP', { access: failing('EACCES') }).advice!, /^chmod 666/);
  assert.match(find('TAP', { read: () => 'CapEff:\t0000000000000000\n' }).advice!, /ip tuntap add/);
  assert.match(find('huge pages', { read: () => 'always madvise [never]\n' }).advice!, /echo madvise/);
  assert.equal(find('FFI', { loadLibc: failing('no FFI') }).detail, 'no FFI');
});

test('only what the translator needs is fatal', () => {
  assert.equal(examine({ ...GOOD, version: '24.9.0' }).runs, false);
  const without = (test: (module: Uint8Array) => boolean): Partial<Host> => ({ validate: (module) => !test(module) });
  const noTailCalls = find(
    'WebAssembly',
    without((module) => module.includes(0x12)),
  );
  assert.deepEqual([noTailCalls.status, noTailCalls.detail], ['fails', 'threads, SIMD, memory64, relaxed SIMD, no tail calls']);
  const noMemory64 = find(
    'WebAssembly',
    without((module) => module[8] === 5 && module[11] === 7),
  );
  assert.deepEqual([noMemory64.status, noMemory64.detail], ['limited', 'threads, SIMD, tail calls, relaxed SIMD, no memory64']);
  assert.match(noMemory64.advice!, /less than 4 GiB/);
});

test('the command looks at this host', () => {
  const { status, stdout, stderr } = spawnSync(LAUNCHER, ['doctor', '--json'], { encoding: 'utf8' });
  assert.equal(stderr, '');
  const examination = JSON.parse(stdout) as Examination;
  assert.equal(status, 0);
  assert.equal(examination.runs, true);
  const webAssembly = examination.findings.find(({ subject }) => subject === 'WebAssembly')!;
  assert.deepEqual([webAssembly.status, webAssembly.detail], ['ok', 'threads, SIMD, tail calls, memory64, relaxed SIMD']);
  assert.equal(typeof examination.kvm.available, 'boolean');
  const text = spawnSync(LAUNCHER, ['doctor'], { encoding: 'utf8' });
  assert.match(text.stdout, /\nGuests can be run\.\n$/);
});

test('what is not understood is one line, and status 2', () => {
  const run = (...args: string[]) => spawnSync(LAUNCHER, args, { encoding: 'utf8' });
  assert.deepEqual(
    [run('fly').status, run('fly').stderr],
    [2, "virelay: there is no command 'fly'; virelay --help lists them\n"],
  );
  assert.deepEqual(
    [run('doctor', '-x').status, run('doctor', '-x').stderr],
    [2, "virelay: doctor: unknown argument '-x'; it takes --json\n"],
  );
  assert.match(run('--help').stdout, /doctor/);
  assert.match(run('--version').stdout, /^virelay version \d/);
  assert.equal(run().status, 2);
});
