/** The host's KVM as an accelerator. */
import type { FeatureWords, HostCpu } from '../isa/x86/system/models.ts';
import type { Accelerator } from '../machine/accelerator.ts';
import { KvmAccelerator, type KvmParts } from './accelerator.ts';
import { KvmHost } from './host.ts';

export interface Opened {
  readonly features: FeatureWords;
  readonly hostCpu: HostCpu;
  readonly mostCpus: number;
  /** Null where guests may have any. */
  readonly tscFrequency: number | null;
  make(parts: Omit<KvmParts, 'host'>): Accelerator;
  close(): void;
}

/** @throws Error, one line */
export function openKvm(): Opened {
  const host = KvmHost.open();
  const features = host.features();
  return {
    features,
    get hostCpu() {
      return host.cpu(features);
    },
    mostCpus: host.mostCpus,
    tscFrequency: host.scalesTsc ? null : host.tscFrequency,
    make: (parts) => new KvmAccelerator({ ...parts, host }),
    close: () => host.close(),
  };
}
