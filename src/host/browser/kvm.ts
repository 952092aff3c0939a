/** There is no KVM here. */
export function openKvm(): never {
  throw new Error('a web page has no KVM (use the accelerator jit)');
}
