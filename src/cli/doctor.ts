/** `virelay doctor`: what this host lets Virelay do, and what to do about the rest. */
import { accessSync, constants, readFileSync } from 'node:fs';
import { arch, availableParallelism, release, totalmem, type as systemType } from 'node:os';
import { type HostFacts, readHostFacts } from '../kvm/availability.ts';
import { loadLibc } from '../kvm/libc.ts';
import { type KvmProbe, probeKvm } from '../kvm/probe.ts';

/** `fails`: nothing runs without it. `limited`: there is something to gain. */
type Status = 'ok' | 'limited' | 'fails';

export interface Finding {
  readonly subject: string;
  readonly status: Status;
  /** What there is. */
  readonly detail: string;
  /** What to do, where something is missing. */
  readonly advice: string | null;
}

export interface Examination {
  readonly host: string;
  /** Guests can be run, if only by translation. */
  readonly runs: boolean;
  readonly findings: readonly Finding[];
  readonly kvm: KvmProbe & { readonly host: HostFacts };
}

/** What of the host is looked at; tests have others. */
export interface Host {
  readonly version: string;
  readonly validate: (module: Uint8Array<ArrayBuffer>) => boolean;
  /** @throws Error, one line, where functions of the system cannot be called */
  readonly loadLibc: () => unknown;
  readonly probeKvm: () => KvmProbe;
  readonly facts: () => HostFacts;
  /** null where there is none. */
  readonly read: (path: string) => string | null;
  /** @throws Error with a code where the file cannot be opened for reading and writing */
  readonly access: (path: string) => void;
}

export const thisHost: Host = {
  version: process.versions.node,
  validate: (module) => WebAssembly.validate(module),
  loadLibc,
  probeKvm,
  facts: readHostFacts,
  read: (path) => {
    try {
      return readFileSync(path, 'latin1');
    } catch {
      return null;
    }
  },
  access: (path) => accessSync(path, constants.R_OK | constants.W_OK),
};

const OLDEST_NODE = 26;

export function examine(host: Host): Examination {
  const probe = host.probeKvm();
  const facts = host.facts();
  const findings = [
    examineNode(host),
    examineWebAssembly(host),
    examineFfi(host),
    examineKvm(probe, facts),
    examineHugePages(host),
    examineTap(host),
  ];
  return {
    host: `${systemType()} ${release()}, ${arch()}, ${availableParallelism()} CPUs, ${(totalmem() / 2 ** 30).toFixed(1)} GiB of memory`,
    runs: findings.every(({ status }) => status !== 'fails'),
    findings,
    kvm: { ...probe, host: facts },
  };
}

function examineNode({ version }: Host): Finding {
  const good = Number.parseInt(version, 10) >= OLDEST_NODE;
  return {
    subject: 'Node.js',
    status: good ? 'ok' : 'fails',
    detail: version,
    advice: good ? null : `install Node.js ${OLDEST_NODE} or newer`,
  };
}

const MAGIC = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
const TYPE = 1;
const FUNCTION = 3;
const MEMORY = 5;
const CODE = 10;
const section = (id: number, ...bytes: number[]): number[] => [id, bytes.length, ...bytes];
/** A module with one function that has no parameters and leaves nothing. */
const withFunction = (...body: number[]): number[] => [
  ...section(TYPE, 1, 0x60, 0, 0),
  ...section(FUNCTION, 1, 0),
  ...section(CODE, 1, body.length + 2, 0, ...body, 0x0b),
];
/** i32.const 0; i8x16.splat */
const VECTOR = [0x41, 0, 0xfd, 0x0f];
const DROP = 0x1a;

/** What is made use of, and the smallest module that needs it. */
const FEATURES: readonly {
  readonly name: string;
  readonly needed: boolean;
  readonly module: readonly number[];
  readonly loss: string;
}[] = [
  { name: 'threads', needed: true, module: section(MEMORY, 1, 3, 1, 1), loss: '' },
  { name: 'SIMD', needed: true, module: withFunction(...VECTOR, DROP), loss: '' },
  { name: 'tail calls', needed: true, module: withFunction(0x12, 0), loss: '' },
  { name: 'memory64', needed: false, module: section(MEMORY, 1, 7, 1, 1), loss: 'guests have less than 4 GiB' },
  {
    name: 'relaxed SIMD',
    needed: false,
    module: withFunction(...VECTOR, ...VECTOR, 0xfd, 0x80, 0x02, DROP),
    loss: "guests' AES and byte shuffles are slower",
  },
];

function examineWebAssembly({ validate }: Host): Finding {
  const missing = FEATURES.filter(({ module }) => !validate(Uint8Array.of(...MAGIC, ...module)));
  const present = FEATURES.filter((feature) => !missing.includes(feature)).map(({ name }) => name);
  const losses = missing.filter(({ loss }) => loss !== '').map(({ loss }) => loss);
  return {
    subject: 'WebAssembly',
    status: missing.some(({ needed }) => needed) ? 'fails' : missing.length > 0 ? 'limited' : 'ok',
    detail: [present.join(', '), ...missing.map(({ name }) => `no ${name}`)].filter((part) => part !== '').join(', '),
    advice: missing.length === 0 ? null : [...losses, 'use a newer Node.js'].join('; '),
  };
}

function examineFfi(host: Host): Finding {
  try {
    host.loadLibc();
    return { subject: 'FFI', status: 'ok', detail: 'functions of the system can be called', advice: null };
  } catch (error) {
    const advice = 'no KVM, no TAP interfaces, no locks on images without it';
    return { subject: 'FFI', status: 'limited', detail: (error as Error).message, advice };
  }
}

function examineKvm(probe: KvmProbe, facts: HostFacts): Finding {
  const subject = 'KVM';
  if (!probe.available) {
    const advice = 'until then, guests run by translation (-accel jit)';
    return { subject, status: 'limited', detail: probe.reason, advice };
  }
  const vendor = facts.modules.filter((name) => name !== 'kvm').join(', ') || 'a module of unknown name';
  const parts = [
    vendor,
    facts.extension ?? 'no help of the processor',
    ...(facts.nested === null ? [] : [facts.nested ? 'nested' : 'not nested']),
  ];
  if (probe.missing === null) return { subject, status: 'ok', detail: parts.join(', '), advice: null };
  const advice = 'guests that need these run by translation (-accel jit); all of them run on a host with vmx or svm';
  return { subject, status: 'limited', detail: `${parts.join(', ')}; ${probe.missing}`, advice };
}

const HUGE_PAGES = '/sys/kernel/mm/transparent_hugepage/enabled';

function examineHugePages({ read }: Host): Finding {
  const mode = /\[(\w+)\]/.exec(read(HUGE_PAGES) ?? '')?.[1];
  const reserved = Number(/^HugePages_Total:\s*(\d+)/m.exec(read('/proc/meminfo') ?? '')?.[1] ?? 0);
  const subject = 'huge pages';
  const detail = `transparent: ${mode ?? 'not in this kernel'}; reserved: ${reserved}`;
  if (mode !== 'never') return { subject, status: 'ok', detail, advice: null };
  return {
    subject,
    status: 'limited',
    detail,
    advice: `guests with much memory are faster with them: echo madvise > ${HUGE_PAGES}`,
  };
}

const TUN = '/dev/net/tun';
/** CAP_NET_ADMIN, <linux/capability.h>. */
const NET_ADMIN = 1n << 12n;

function examineTap({ read, access }: Host): Finding {
  const subject = 'TAP';
  const without = 'user networks need no rights (-nic user)';
  try {
    access(TUN);
  } catch (error) {
    const { code } = error as { code?: string };
    const advice = code === 'ENOENT' ? `modprobe tun; ${without}` : `chmod 666 ${TUN}, as distributions have it; ${without}`;
    return { subject, status: 'limited', detail: `${TUN}: ${code}`, advice };
  }
  const capabilities = /^CapEff:\s*([0-9a-f]+)/m.exec(read('/proc/self/status') ?? '')?.[1] ?? '0';
  if ((BigInt(`0x${capabilities}`) & NET_ADMIN) !== 0n) {
    return { subject, status: 'ok', detail: `${TUN}, and CAP_NET_ADMIN to make interfaces`, advice: null };
  }
  const advice = `have root make one for you: ip tuntap add tap0 mode tap user "$USER"; ${without}`;
  return { subject, status: 'limited', detail: `${TUN}, but no CAP_NET_ADMIN to make interfaces`, advice };
}

/** @returns lines, the last one with its end */
export function formatExamination({ host, runs, findings }: Examination): string {
  const width = Math.max(...findings.map(({ subject }) => subject.length));
  const lines = findings.flatMap(({ subject, status, detail, advice }) => [
    `${status.padEnd(7)}  ${subject.padEnd(width)}  ${detail}`,
    ...(advice === null ? [] : [`${' '.repeat(9 + width)}  -> ${advice}`]),
  ]);
  const verdict = runs ? 'Guests can be run.' : 'Guests cannot be run before what fails is mended.';
  return `${[host, '', ...lines, '', verdict].join('\n')}\n`;
}

/** @returns the exit status */
export async function doctorCommand(args: readonly string[]): Promise<number> {
  const unknown = args.find((argument) => argument !== '--json');
  if (unknown !== undefined) throw new Error(`doctor: unknown argument '${unknown}'; it takes --json`);
  const examination = examine(thisHost);
  process.stdout.write(args.includes('--json') ? `${JSON.stringify(examination, null, 2)}\n` : formatExamination(examination));
  return examination.runs ? 0 : 1;
}
