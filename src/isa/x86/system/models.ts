/** CPU models as data, and the text of `-cpu MODEL,+feature,-feature,property=value`. */
import { type HypervChoice, HypervOptions } from './hyperv.ts';

/** One CPUID register that holds feature bits, by the names that QEMU gives them. */
type Word = { readonly leaf: string; readonly names: string };

/** '.' marks a bit without a name. */
const WORDS = {
  f1d: {
    leaf: '1.edx',
    names:
      'fpu vme de pse tsc msr pae mce cx8 apic . sep mtrr pge mca cmov pat pse36 pn clflush . ds acpi ' +
      'mmx fxsr sse sse2 ss ht tm ia64 pbe',
  },
  f1c: {
    leaf: '1.ecx',
    names:
      'pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid . fma cx16 xtpr pdcm . pcid dca ' +
      'sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor',
  },
  f7b: {
    leaf: '7.ebx',
    names:
      'fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm . ' +
      'zero-fcs-fds mpx . avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb ' +
      'intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl',
  },
  f7c: {
    leaf: '7.ecx',
    names:
      '. avx512vbmi umip pku ospke waitpkg avx512vbmi2 . gfni vaes vpclmulqdq avx512vnni ' +
      'avx512bitalg . avx512-vpopcntdq . la57 . . . . . rdpid . bus-lock-detect cldemote . movdiri ' +
      'movdir64b . sgxlc pks',
  },
  f7d: {
    leaf: '7.edx',
    names:
      '. . avx512-4vnniw avx512-4fmaps fsrm . . . avx512-vp2intersect . md-clear . . . serialize ' +
      '. tsx-ldtrk . . arch-lbr . . amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d ' +
      'arch-capabilities core-capability ssbd',
  },
  f6a: { leaf: '6.eax', names: '. . arat' },
  fda: { leaf: '0xd.1.eax', names: 'xsaveopt xsavec xgetbv1 xsaves xfd' },
  e1d: {
    leaf: '0x80000001.edx',
    names: '. . . . . . . . . . . syscall . . . . . . . mp nx . mmxext . . fxsr-opt pdpe1gb rdtscp . ' + 'lm 3dnowext 3dnow',
  },
  e1c: {
    leaf: '0x80000001.ecx',
    names:
      'lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop ' +
      'skinit wdt . lwp fma4 tce . nodeid-msr . tbm topoext perfctr-core perfctr-nb',
  },
  e7d: { leaf: '0x80000007.edx', names: '. . . . . . . . invtsc' },
  e8b: {
    leaf: '0x80000008.ebx',
    names:
      'clzero . xsaveerptr . . . . . . wbnoinvd . . ibpb . ibrs amd-stibp . stibp-always-on . . . ' +
      '. . . amd-ssbd virt-ssbd amd-no-ssb . amd-psfd',
  },
  e21: {
    leaf: '0x80000021.eax',
    names: 'no-nested-data-bp . lfence-always-serializing . . . null-sel-clr-base . auto-ibrs',
  },
  kvm: {
    leaf: '0x40000001.eax',
    names: '. kvm-nopiodelay . kvmclock . . . . . . . . . . . . . . . . . . . . kvmclock-stable-bit',
  },
  caps: {
    leaf: 'IA32_ARCH_CAPABILITIES',
    names:
      'rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl taa-no . . . ' +
      '. sbdr-ssdp-no fbsdp-no psdp-no . fb-clear . rrsba bhi-no . . . pbrsb-no . gds-no rfds-no',
  },
} satisfies Record<string, Word>;

export type WordName = keyof typeof WORDS;
export type FeatureWords = Record<WordName, number>;

export interface CpuModel {
  readonly name: string;
  readonly vendor: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  readonly modelId: string;
  /** Highest basic leaf. */
  readonly level: number;
  readonly words: FeatureWords;
  readonly physicalBits: number;
  /** Hertz; 0 leaves it to whatever runs the CPU. */
  readonly tscFrequency: number;
  /** Of the model `host`; null for those that are known by name. */
  readonly host: HostCpu | null;
  /** 1 GiB pages. */
  readonly hugePages: boolean;
  /** Hyper-V's interface; null without it. */
  readonly hyperv: HypervChoice | null;
  has(feature: string): boolean;
}

/** Where CPUID has a word of features. */
export interface WordPlace {
  readonly leaf: number;
  readonly subleaf: number;
  readonly register: 'eax' | 'ebx' | 'ecx' | 'edx';
}

/** Null for a word that is not CPUID's. */
export function wordPlaces(): [word: WordName, place: WordPlace | null][] {
  return (Object.keys(WORDS) as WordName[]).map((word) => {
    const parts = WORDS[word].leaf.split('.');
    if (parts.length === 1) return [word, null];
    const [leaf, subleaf] = parts.map(Number);
    return [word, { leaf: leaf!, subleaf: parts.length > 2 ? subleaf! : 0, register: parts.at(-1) as WordPlace['register'] }];
  });
}

/** One answer of a processor's CPUID. */
export interface HostLeaf {
  readonly leaf: number;
  readonly subleaf: number;
  /** The answer is for this subleaf only. */
  readonly indexed: boolean;
  readonly answer: readonly [eax: number, ebx: number, ecx: number, edx: number];
}

/** What a host can show a guest of its own processor: the model `host`. */
export interface HostCpu {
  readonly vendor: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  readonly modelId: string;
  readonly level: number;
  readonly physicalBits: number;
  readonly words: FeatureWords;
  /** All of it, also what models do not tell of. */
  readonly leaves: readonly HostLeaf[];
}

/** A chosen model, and what was asked for but cannot be had (QEMU warns of it and goes on). */
export interface ModelChoice {
  readonly model: CpuModel;
  readonly warnings: readonly string[];
}

const PLACES = new Map<string, { word: WordName; bit: number }>();
for (const word of Object.keys(WORDS) as WordName[]) {
  WORDS[word].names.split(' ').forEach((name, bit) => {
    if (name !== '.') PLACES.set(name, { word, bit });
  });
}

const ALIASES: Record<string, string> = {
  sse3: 'pni',
  'sse4-1': 'sse4.1',
  'sse4-2': 'sse4.2',
  pclmuldq: 'pclmulqdq',
  xd: 'nx',
  ffxsr: 'fxsr-opt',
  i64: 'lm',
  lzcnt: 'abm',
  'tsc-deadline-timer': 'tsc-deadline',
  lahf: 'lahf-lm',
};

/** What the translator and this system code implement. */
const I586 = 'fpu de pse tsc msr mce cx8 mmx';
const PPRO = 'fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2';
const V1 = `${PPRO} mtrr clflush mca pse36 lm syscall nx`;
const V2 = `${V1} pni ssse3 sse4.1 sse4.2 popcnt cx16 lahf-lm`;
/** This CPU does not speculate: each of these says so in the words that kernels understand. */
const NOT_VULNERABLE =
  'arch-capabilities rdctl-no ibrs-all skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no taa-no ' +
  'sbdr-ssdp-no fbsdp-no psdp-no bhi-no pbrsb-no gds-no rfds-no amd-no-ssb auto-ibrs ibrs ' +
  'lfence-always-serializing';
/** What QEMU's x86-64-v3, the ABI's level of that name, has beyond the second. */
const V3 = `${V2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave`;
const MAX =
  `${V3} aes pclmulqdq sha-ni adx clwb rdpid movdiri movdir64b fsgsbase smep smap pcid invpcid pdpe1gb rdtscp xsaveopt ` +
  'xsavec xgetbv1 xsaves x2apic tsc-deadline tsc-adjust arat rdrand rdseed umip clflushopt erms fsrm ' +
  'mmxext 3dnowprefetch cr8legacy invtsc null-sel-clr-base xsaveerptr no-nested-data-bp hypervisor ' +
  'vme kvm-nopiodelay kvmclock kvmclock-stable-bit serialize ' +
  NOT_VULNERABLE;
/** Possible, but not wanted unless asked for: 5-level walks cost time. */
const OPTIONAL = 'la57 fxsr-opt ss ht cmp-legacy mp monitor';

type Row = {
  vendor: string;
  family: number;
  model: number;
  stepping: number;
  modelId: string;
  level: number;
  features: string;
};

const AMD = 'AuthenticAMD';
const INTEL = 'GenuineIntel';
const ID = 'Virelay Virtual CPU';
const NOT_VULNERABLE_INTEL = 'rdctl-no mds-no ssb-no ibrs-all pschange-mc-no taa-no skip-l1dfl-vmentry arch-capabilities';
const NEHALEM: Row = {
  vendor: INTEL,
  family: 6,
  model: 26,
  stepping: 3,
  level: 0xb,
  modelId: 'Intel Core i7 9xx (Nehalem Class Core i7)',
  features: `${V2} rdtscp hypervisor ${NOT_VULNERABLE_INTEL}`,
};
const MODELS: Record<string, Row> = {
  max: {
    vendor: AMD,
    family: 6,
    model: 6,
    stepping: 3,
    level: 0x16,
    modelId: ID,
    features: MAX,
  },
  base: { vendor: AMD, family: 6, model: 6, stepping: 3, level: 1, modelId: ID, features: '' },
  qemu64: {
    vendor: AMD,
    family: 15,
    model: 107,
    stepping: 1,
    level: 0xd,
    modelId: ID,
    features: `${V1} pni cx16 lahf-lm hypervisor`,
  },
  kvm64: {
    vendor: INTEL,
    family: 15,
    model: 6,
    stepping: 1,
    level: 0xd,
    modelId: ID,
    features: `${V1} pni cx16 hypervisor`,
  },
  qemu32: {
    vendor: INTEL,
    family: 6,
    model: 6,
    stepping: 3,
    level: 4,
    modelId: ID,
    features: `${PPRO} pni hypervisor`,
  },
  Nehalem: NEHALEM,
  'x86-64-v2': { ...NEHALEM, modelId: ID },
  'x86-64-v3': {
    vendor: INTEL,
    family: 6,
    model: 60,
    stepping: 4,
    level: 0xd,
    modelId: ID,
    features:
      `${V3} xsaveopt aes pclmulqdq fsgsbase smep erms invpcid pcid rdrand rdtscp x2apic ` +
      `tsc-deadline arat hypervisor ${NOT_VULNERABLE_INTEL}`,
  },
  pentium3: {
    vendor: INTEL,
    family: 6,
    model: 7,
    stepping: 3,
    level: 3,
    modelId: '',
    features: `${I586} pae apic sep mtrr pge mca cmov pat pse36 fxsr sse hypervisor`,
  },
  pentium: { vendor: INTEL, family: 5, model: 4, stepping: 3, level: 1, modelId: '', features: I586 },
  '486': { vendor: INTEL, family: 4, model: 8, stepping: 0, level: 1, modelId: '', features: 'fpu pse' },
};

export const DEFAULT_MODEL = 'max';
/** The host's processor, which only KVM runs. */
export const HOST_MODEL = 'host';

/** Names for `-cpu help`. */
export function modelNames(): string[] {
  return [...Object.keys(MODELS), HOST_MODEL];
}
export function featureNames(): string[] {
  return [...PLACES.keys()].sort();
}

function emptyWords(): FeatureWords {
  return Object.fromEntries(Object.keys(WORDS).map((word) => [word, 0])) as FeatureWords;
}

function addFeatures(words: FeatureWords, names: string): FeatureWords {
  for (const name of names.split(' ')) {
    const place = PLACES.get(name);
    if (place) words[place.word] |= 1 << place.bit;
  }
  return words;
}

const SUPPORTED = addFeatures(emptyWords(), `${MAX} ${OPTIONAL}`);

/** @param feature by QEMU's name */
function hasFeature(words: FeatureWords, feature: string): boolean {
  const place = PLACES.get(feature);
  return place !== undefined && ((words[place.word] >> place.bit) & 1) === 1;
}

/** Is a feature (by QEMU's name) one that this project implements? */
export const isSupported = (feature: string): boolean => hasFeature(SUPPORTED, feature);

/** Edit distance, for the names offered when one is not known. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

function near(name: string, known: Iterable<string>): string {
  const close = [...known]
    .map((other) => ({ other, d: distance(name.toLowerCase(), other.toLowerCase()) }))
    .filter(({ other, d }) => d <= 2 || (name.length > 2 && other.includes(name)))
    .sort((a, b) => a.d - b.d)
    .slice(0, 4)
    .map(({ other }) => other);
  return close.length > 0 ? ` (near names: ${close.join(', ')})` : '';
}

/** Numbers and texts that `-cpu` may set; those of QEMU's that change nothing here map to null. */
const PROPERTIES: Record<string, keyof Overrides | null> = {
  vendor: 'vendor',
  family: 'family',
  model: 'model',
  stepping: 'stepping',
  'model-id': 'modelId',
  level: 'level',
  'phys-bits': 'physicalBits',
  'min-level': null,
  xlevel: null,
  'min-xlevel': null,
  check: null,
  enforce: null,
  migratable: null,
  pmu: null,
  'l3-cache': null,
  'host-phys-bits': null,
  'host-phys-bits-limit': null,
  'host-cache-info': null,
  'legacy-cache': null,
  'cpuid-0xb': null,
  'full-cpuid-auto-level': null,
  'fill-mtrr-mask': null,
  lmce: null,
  'tcg-cpuid': null,
  'tsc-frequency': 'tscFrequency',
  'apic-id': null,
  'vmware-cpuid-freq': null,
};

type Overrides = {
  vendor: string;
  family: number;
  model: number;
  stepping: number;
  modelId: string;
  level: number;
  physicalBits: number;
  tscFrequency: number;
};

/** Features that another one brings the state for. */
const DEPENDENTS: Readonly<Record<string, readonly string[]>> = {
  xsave: ['xsaveopt', 'xsavec', 'xgetbv1', 'xsaves', 'avx'],
  avx: ['avx2', 'fma', 'f16c'],
};

const PHYSICAL_BITS = 40;
/** What CPUID's leaf 15h can tell. */
export const TSC_HZ = { min: 1e6, max: 2 ** 32 - 1 } as const;

class Parser {
  readonly warnings: string[] = [];
  readonly words: FeatureWords;
  readonly values: Overrides;
  readonly hyperv = new HypervOptions();
  private readonly name: string;
  /** Features that can be had. */
  private readonly possible: FeatureWords;

  constructor(name: string, row: Row, host: HostCpu | null) {
    this.name = name;
    this.words = host === null ? addFeatures(emptyWords(), row.features) : { ...host.words };
    this.possible = host === null ? SUPPORTED : host.words;
    const { vendor, family, model, stepping, modelId, level } = host ?? row;
    const physicalBits = host?.physicalBits ?? PHYSICAL_BITS;
    this.values = { vendor, family, model, stepping, modelId, level, physicalBits, tscFrequency: 0 };
  }

  item(text: string): void {
    if (text.startsWith('+')) return this.turn(text.slice(1), true);
    if (text.startsWith('-')) return this.turn(text.slice(1), false);
    const at = text.indexOf('=');
    const key = canonical(at < 0 ? text : text.slice(0, at));
    const value = at < 0 ? 'on' : text.slice(at + 1);
    if (key === 'kvm') {
      // Hides all of KVM's interfaces from the guest.
      if (isOff(value)) this.words.kvm = 0;
      return;
    }
    if (key in PROPERTIES) return this.property(key, value);
    if (this.hypervisors(key, value)) return;
    // Other interfaces of hypervisors are not there.
    if ((key.startsWith('hv-') || key.startsWith('kvm-')) && !PLACES.has(key)) {
      if (isOn(value)) this.warnings.push(`CPU feature ${key} is not available`);
      return;
    }
    if (!isOn(value) && !isOff(value)) {
      throw new Error(`-cpu ${this.name}: ${key} takes on or off, not "${value}"`);
    }
    this.feature(key, isOn(value));
  }

  private turn(name: string, on: boolean): void {
    if (!this.hypervisors(canonical(name), on ? 'on' : 'off')) this.feature(name, on);
  }

  /** @returns false for what is none of Hyper-V's properties */
  private hypervisors(key: string, value: string): boolean {
    try {
      return this.hyperv.set(key, value);
    } catch (error) {
      throw new Error(`-cpu ${this.name}: ${key} ${(error as Error).message}`);
    }
  }

  private property(key: string, value: string): void {
    const field = PROPERTIES[key];
    if (field === null || field === undefined) return;
    if (field === 'modelId') this.values.modelId = value.slice(0, 48);
    else if (field === 'vendor') this.setVendor(value);
    else {
      const number = Number(value);
      if (!Number.isInteger(number) || number < 0) {
        throw new Error(`-cpu ${this.name}: ${key} takes a number, not "${value}"`);
      }
      if (field === 'tscFrequency' && (number < TSC_HZ.min || number > TSC_HZ.max)) {
        throw new Error(`-cpu ${this.name}: ${key} takes ${TSC_HZ.min} to ${TSC_HZ.max} Hz, not ${value}`);
      }
      this.values[field] = number;
    }
  }

  private setVendor(value: string): void {
    if (value.length !== 12) {
      throw new Error(`-cpu ${this.name}: vendor takes 12 characters, not "${value}"`);
    }
    this.values.vendor = value;
  }

  /** Takes a feature away, and those that cannot be without it. */
  private remove(name: string): void {
    const place = PLACES.get(name)!;
    this.words[place.word] &= ~(1 << place.bit);
    for (const dependent of DEPENDENTS[name] ?? []) this.remove(dependent);
  }

  private feature(text: string, on: boolean): void {
    const name = canonical(text);
    const place = PLACES.get(name);
    if (!place) {
      throw new Error(`-cpu ${this.name}: unknown feature "${text}"${near(name, PLACES.keys())}`);
    }
    if (!on) this.remove(name);
    else if (hasFeature(this.possible, name)) this.words[place.word] |= 1 << place.bit;
    else this.warnings.push(`CPU feature ${name} (CPUID ${WORDS[place.word].leaf} bit ${place.bit}) is not available`);
  }
}

function canonical(name: string): string {
  const dashed = name.replaceAll('_', '-');
  return ALIASES[dashed] ?? dashed;
}

const isOn = (value: string): boolean => ['on', 'yes', 'true', 'force'].includes(value);
const isOff = (value: string): boolean => ['off', 'no', 'false'].includes(value);

/**
 * @param text as after `-cpu`
 * @param host for the model `host`; null while it is not known
 * @throws Error, one line, when the model or a feature is not known
 */
export function parseCpu(text: string, host: HostCpu | null = null): ModelChoice {
  const [first, ...items] = text.split(',');
  const name = canonicalModel(first!);
  const own = name === HOST_MODEL ? host : null;
  // Before it is known what the host has, it is taken for what models have at most.
  const parser = new Parser(name, MODELS[name === HOST_MODEL ? DEFAULT_MODEL : name]!, own);
  for (const item of items) if (item !== '') parser.item(item);
  const { words, warnings, values, hyperv } = parser;
  const has = (feature: string): boolean => hasFeature(words, feature);
  if (!has('lm')) values.physicalBits = has('pae') || has('pse36') ? 36 : 32;
  values.physicalBits = Math.max(32, Math.min(52, values.physicalBits));
  return { model: { name, ...values, words, host: own, hugePages: has('pdpe1gb'), hyperv: hyperv.choice, has }, warnings };
}

/**
 * A model without what the host cannot give a guest.
 * @param words what it can
 * @returns the names of what is missing, too
 */
export function withinHost(model: CpuModel, words: FeatureWords): { model: CpuModel; missing: string[] } {
  const missing: string[] = [];
  const kept = { ...model.words };
  for (const name of PLACES.keys()) {
    if (!model.has(name) || hasFeature(words, name)) continue;
    missing.push(name);
    for (const lost of [name, ...(DEPENDENTS[name] ?? [])]) {
      const place = PLACES.get(lost)!;
      kept[place.word] &= ~(1 << place.bit);
    }
  }
  const has = (feature: string): boolean => hasFeature(kept, feature);
  return { model: { ...model, words: kept, hugePages: has('pdpe1gb'), has }, missing };
}

function canonicalModel(text: string): string {
  const name = text.replace(/-x86_64-cpu$|-i386-cpu$/, '');
  if (name === HOST_MODEL || Object.hasOwn(MODELS, name)) return name;
  throw new Error(`-cpu: unknown model "${text}"${near(text, modelNames()) || `; known: ${modelNames().join(', ')}`}`);
}
