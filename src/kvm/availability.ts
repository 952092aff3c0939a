/** Why there is no KVM, and what to do about it, in one line. */
import { readFileSync, statSync } from 'node:fs';
import { SystemCallError } from './libc.ts';
import { KVM_DEVICE } from './system.ts';

/** The host's processor and kernel, as far as they matter. */
export interface HostFacts {
  /** Extensions for virtualization that the processor shows. */
  readonly extension: 'svm' | 'vmx' | null;
  /** The host is a virtual machine itself. */
  readonly virtual: boolean;
  /** Modules that are loaded, or part of the kernel. */
  readonly modules: readonly string[];
  /** Whether guests may run virtual machines themselves; null where the module does not say. */
  readonly nested: boolean | null;
}

const MODULES = ['kvm', 'kvm_intel', 'kvm_amd', 'kvm_pvm'];

const textOf = (path: string): string | null => {
  try {
    return readFileSync(path, 'latin1').trim();
  } catch {
    return null;
  }
};

export function readHostFacts(): HostFacts {
  const flags = new Set(
    /^flags\s*:(.*)$/m
      .exec(textOf('/proc/cpuinfo') ?? '')?.[1]
      ?.trim()
      .split(' ') ?? [],
  );
  const modules = MODULES.filter((name) => statSync(`/sys/module/${name}`, { throwIfNoEntry: false }) !== undefined);
  const nested = modules.map((name) => textOf(`/sys/module/${name}/parameters/nested`)).find((value) => value !== null);
  return {
    extension: flags.has('vmx') ? 'vmx' : flags.has('svm') ? 'svm' : null,
    virtual: flags.has('hypervisor'),
    modules,
    nested: nested === undefined ? null : /^[1Y]/i.test(nested!),
  };
}

/** The group that a device belongs to, by name where it has one. */
function groupOf(path: string): string {
  const gid = String(statSync(path, { throwIfNoEntry: false })?.gid ?? 0);
  const line = (textOf('/etc/group') ?? '').split('\n').find((entry) => entry.split(':')[2] === gid);
  return line?.split(':')[0] ?? gid;
}

function noDevice({ extension, virtual, modules }: HostFacts): string {
  if (extension !== null) {
    const module = extension === 'vmx' ? 'kvm_intel' : 'kvm_amd';
    return modules.includes(module)
      ? `there is no ${KVM_DEVICE} though ${module} is loaded: create it (mknod ${KVM_DEVICE} c 10 232), or pass it into this container`
      : `there is no ${KVM_DEVICE}: load its module (modprobe ${module}), or pass the device into this container`;
  }
  return virtual
    ? `there is no ${KVM_DEVICE}: this host is a virtual machine whose processor shows neither vmx nor svm; turn nested virtualization on where it runs`
    : `there is no ${KVM_DEVICE}: the processor shows neither vmx nor svm; turn virtualization on in the firmware's setup`;
}

/**
 * @param error of opening /dev/kvm or of making a VM
 * @returns one line, with what to do
 */
export function describeUnavailable(error: unknown, facts: () => HostFacts = readHostFacts, group = groupOf): string {
  if (!(error instanceof SystemCallError)) return error instanceof Error ? error.message : String(error);
  switch (error.code) {
    case 'ENOENT':
      return noDevice(facts());
    case 'EACCES':
    case 'EPERM': {
      const name = group(KVM_DEVICE);
      return name === 'root'
        ? `${KVM_DEVICE} may not be opened: only root may; give it to a group (chgrp kvm ${KVM_DEVICE}; chmod 660 ${KVM_DEVICE})`
        : `${KVM_DEVICE} may not be opened: join the group ${name} (usermod -aG ${name} "$USER") and log in again`;
    }
    case 'ENODEV':
    case 'ENXIO':
      return `${KVM_DEVICE} has no driver behind it: load its module (modprobe kvm_intel or kvm_amd), or turn virtualization on in the firmware's setup`;
    case 'EBUSY':
      return `${error.message}: another hypervisor has the processor's virtualization to itself; stop it`;
    case 'ENOSYS':
    case 'ENOTTY':
      return `${error.message}: this kernel does not have it (an emulation of Linux, or a sandbox)`;
    case 'ENOMEM':
      return `${error.message}: the host has no memory left for another virtual machine`;
    case 'EMFILE':
    case 'ENFILE':
      return `${error.message}: too many open files; raise the limit (ulimit -n)`;
    default:
      return error.message;
  }
}
