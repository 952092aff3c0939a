/**
 * A program that keeps VMs open, for hosts whose processors are emulated (kvm-host.ts).
 *
 * Linux rewrites its own code while it runs (Documentation/staging/static-keys.rst): the scheduler's with the first VM and
 * again with the last, KVM's own as there are vCPUs without a local APIC, or with one that is turned off, and as there are none
 * any more. A breakpoint stands there for as long as the other processors have not been told. QEMU's translator, in a thread
 * for each processor, may read it just before it is overwritten, and keep what it made of it for ever: that processor then runs
 * into a breakpoint which is not there, again and again, and in the scheduler at that, so that the whole host stands still.
 * As long as one VM of each kind is open, none of this is rewritten.
 */
import { REQUESTS, type RequestName } from '../src/kvm/ioctls.ts';

const DEVICE = '/dev/kvm';
/** What of its descriptors tells that it has come to its end: this many are of KVM. */
export const KEPT = 5;

/** Numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl). */
const OPEN = 2;
const IOCTL = 16;
const PAUSE = 34;
const O_RDWR = 2;

const BASE = 0x40_0000;
const HEADERS = 64 + 56;

const dword = (value: number): number[] => [value, value >> 8, value >> 16, value >> 24].map((byte) => byte & 0xff);
const call = (number: number): number[] => [0xb8, ...dword(number), 0x0f, 0x05]; // mov eax, number; syscall

const DEVICE_IN_EDI = [0x89, 0xdf]; // mov edi, ebx
const VM_IN_EDI = [0x89, 0xef]; // mov edi, ebp
const NOTE_DEVICE = [0x89, 0xc3]; // mov ebx, eax
const NOTE_VM = [0x89, 0xc5]; // mov ebp, eax

/** An ioctl with 0 for its argument. */
const request = (descriptor: readonly number[], name: RequestName): number[] => [
  ...descriptor,
  ...[0xbe, ...dword(Number(REQUESTS[name].number))], // mov esi, number
  ...[0x31, 0xd2], // xor edx, edx
  ...call(IOCTL),
];

/** The chips hold a local APIC that is turned off, as after a reset. */
const program = (device: number): number[] => [
  ...[0xbf, ...dword(device)], // mov edi, device
  ...[0xbe, ...dword(O_RDWR)], // mov esi, O_RDWR
  ...[...call(OPEN), ...NOTE_DEVICE],
  ...[...request(DEVICE_IN_EDI, 'KVM_CREATE_VM'), ...NOTE_VM],
  ...request(VM_IN_EDI, 'KVM_CREATE_VCPU'),
  ...[...request(DEVICE_IN_EDI, 'KVM_CREATE_VM'), ...NOTE_VM],
  ...request(VM_IN_EDI, 'KVM_CREATE_IRQCHIP'),
  ...request(VM_IN_EDI, 'KVM_CREATE_VCPU'),
  ...[...call(PAUSE), 0xeb, 0xfe - call(PAUSE).length], // again: pause(); jmp again
];

/**
 * An executable for x86-64 Linux: headers, code and the device's name, all in one segment (ELF-64 Object File Format,
 * sections 3 and 8).
 */
export function kvmKeeper(): Uint8Array<ArrayBuffer> {
  const start = BASE + HEADERS;
  const code = program(start + program(0).length);
  const bytes = new Uint8Array([...new Uint8Array(HEADERS), ...code, ...new TextEncoder().encode(`${DEVICE}\0`)]);
  const view = new DataView(bytes.buffer);
  const half = (at: number, value: number): void => view.setUint16(at, value, true);
  const word = (at: number, value: number): void => view.setUint32(at, value, true);
  const long = (at: number, value: number): void => view.setBigUint64(at, BigInt(value), true);
  bytes.set([0x7f, ...new TextEncoder().encode('ELF'), 2, 1, 1]); // 64 bits, little endian, version 1
  half(0x10, 2); // e_type: an executable
  half(0x12, 62); // e_machine: x86-64
  word(0x14, 1); // e_version
  long(0x18, start); // e_entry
  long(0x20, 64); // e_phoff
  half(0x34, 64); // e_ehsize
  half(0x36, 56); // e_phentsize
  half(0x38, 1); // e_phnum
  const segment = 64;
  word(segment, 1); // p_type: PT_LOAD
  word(segment + 4, 5); // p_flags: read and execute
  long(segment + 0x10, BASE); // p_vaddr; p_offset is 0
  long(segment + 0x18, BASE); // p_paddr
  long(segment + 0x20, bytes.length); // p_filesz
  long(segment + 0x28, bytes.length); // p_memsz
  long(segment + 0x30, 0x1000); // p_align
  return bytes;
}
