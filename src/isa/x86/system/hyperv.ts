/**
 * Hyper-V's interface for guests as `-cpu` asks for it, by QEMU's names. What the features are is written where they are
 * carried out (src/kvm/hyperv.ts): only KVM has them.
 */
export const HYPERV_FEATURES = [
  'hv-relaxed',
  'hv-vapic',
  'hv-spinlocks',
  'hv-vpindex',
  'hv-runtime',
  'hv-crash',
  'hv-time',
  'hv-synic',
  'hv-stimer',
  'hv-stimer-direct',
  'hv-reset',
  'hv-frequencies',
  'hv-reenlightenment',
  'hv-tlbflush',
  'hv-ipi',
] as const;
export type HypervFeature = (typeof HYPERV_FEATURES)[number];

export interface HypervChoice {
  readonly features: ReadonlySet<HypervFeature>;
  /** All that the host's KVM has, whatever is in `features` (`hv-passthrough`). */
  readonly passthrough: boolean;
  /** Tries at a spinlock before the hypervisor is told: at least FFFh. Counts with `hv-spinlocks`. */
  readonly spinlocks: number;
  /** Twelve characters by which guests know the hypervisor. */
  readonly vendorId: string;
}

const VENDOR_ID = 'Microsoft Hv';
const SPINLOCKS_MIN = 0xfff;
const SPINLOCKS_NEVER = 0xffff_ffff;

/** Collects what `-cpu` says of it. */
export class HypervOptions {
  private readonly features = new Set<HypervFeature>();
  private passthrough = false;
  private spinlocks = SPINLOCKS_NEVER;
  private vendorId = VENDOR_ID;

  /**
   * @param value as after `=`; "on" where there is none
   * @returns false for a property of another name
   * @throws Error with what was expected, to follow the property's name
   */
  set(key: string, value: string): boolean {
    if (key === 'hv-vendor-id') {
      if (value.length > 12) throw new Error('takes at most 12 characters');
      this.vendorId = value;
    } else if (key === 'hv-spinlocks') {
      const tries = Number(value);
      if (value === '' || !Number.isInteger(tries) || tries < SPINLOCKS_MIN || tries > SPINLOCKS_NEVER)
        throw new Error(`takes a number of tries from 0x${SPINLOCKS_MIN.toString(16)} up, not "${value}"`);
      this.spinlocks = tries;
      this.features.add('hv-spinlocks');
    } else {
      const known = HYPERV_FEATURES.find((one) => one === key);
      if (known === undefined && key !== 'hv-passthrough') return false;
      const on = switchOf(value);
      if (known === undefined) this.passthrough = on;
      else if (on) this.features.add(known);
      else this.features.delete(known);
    }
    return true;
  }

  /** @returns null where nothing of it is wanted */
  get choice(): HypervChoice | null {
    const { features, passthrough, spinlocks, vendorId } = this;
    return passthrough || features.size > 0 ? { features, passthrough, spinlocks, vendorId } : null;
  }
}

function switchOf(value: string): boolean {
  if (['on', 'yes', 'true'].includes(value)) return true;
  if (['off', 'no', 'false'].includes(value)) return false;
  throw new Error(`takes on or off, not "${value}"`);
}

/** What was asked for, for messages. */
export function namesOf({ features, passthrough }: HypervChoice): string {
  return [...(passthrough ? ['hv-passthrough'] : []), ...features].join(', ');
}
