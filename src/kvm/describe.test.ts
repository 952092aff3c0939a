import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXIT, INTERNAL_ERROR } from './constants.ts';
import { describeExit, describeVcpu, formatRegisters } from './describe.ts';
import { longMode } from './guest-modes.ts';
import { KVM_RUN_PAGE } from './layouts.ts';
import { SystemCallError } from './libc.ts';
import { RunPage } from './run-page.ts';
import { encode, type Patch } from './struct.ts';
import { CODE, makeGuest, NO_KVM, UNDEFINED, withoutInterruptTable } from './test-kit.ts';

const describe = (exit_reason: number, exit: Patch<typeof KVM_RUN_PAGE>['exit'] = {}): string =>
  describeExit(new RunPage(encode(KVM_RUN_PAGE, { exit_reason, exit }, 8192)));

test('every exit has its line', () => {
  const { KVM_INTERNAL_ERROR_EMULATION: suberror } = INTERNAL_ERROR;
  const failure = { suberror, ndata: 4, flags: 1n, insn_size: 3, insn_bytes: Uint8Array.of(0x0f, 0x57, 0xc0) };
  assert.equal(
    describe(EXIT.KVM_EXIT_INTERNAL_ERROR, { emulation_failure: failure }),
    'KVM_EXIT_INTERNAL_ERROR: KVM_INTERNAL_ERROR_EMULATION: KVM cannot emulate the instruction, whose bytes are 0f 57 c0',
  );
  assert.match(describe(EXIT.KVM_EXIT_INTERNAL_ERROR, { internal: { suberror } }), /whose bytes are unknown$/);
  assert.equal(
    describe(EXIT.KVM_EXIT_INTERNAL_ERROR, { internal: { suberror: 3, ndata: 2, data: [0x80000b0en, 0x31n] } }),
    'KVM_EXIT_INTERNAL_ERROR: KVM_INTERNAL_ERROR_DELIVERY_EV 0x80000b0e 0x31',
  );
  // The kernel's word for how much there is, but no more than there can be.
  assert.equal(describe(EXIT.KVM_EXIT_INTERNAL_ERROR, { internal: { suberror: 9, ndata: 0xffff_ffff } }).split(' ').length, 19);
  assert.equal(
    describe(EXIT.KVM_EXIT_FAIL_ENTRY, { fail_entry: { hardware_entry_failure_reason: 0x8000_0021n } }),
    'KVM_EXIT_FAIL_ENTRY: the processor does not enter the guest, reason 0x80000021',
  );
  assert.equal(
    describe(EXIT.KVM_EXIT_UNKNOWN, { hw: { hardware_exit_reason: 99n } }),
    'KVM_EXIT_UNKNOWN: hardware exit reason 0x63',
  );
  assert.equal(
    describe(EXIT.KVM_EXIT_IO, { io: { direction: 1, size: 2, port: 0x3f8, count: 4 } }),
    'KVM_EXIT_IO: out port 3f8h, 4 x 2 bytes',
  );
  assert.equal(
    describe(EXIT.KVM_EXIT_MMIO, { mmio: { phys_addr: 0xfee0_0000n, len: 4 } }),
    'KVM_EXIT_MMIO: read of 4 bytes at 0xfee00000',
  );
  assert.equal(describe(12345), 'exit 12345');
});

test('registers are shown as QEMU does', { skip: NO_KVM }, () => {
  const { vcpu, close } = makeGuest([]);
  const regs = { ...vcpu.get('regs'), rax: 0x1234n, r9: 0xffff_ffff_8000_0000n, rip: 0x1000n, rflags: 0x246n };
  const lines = formatRegisters(regs, longMode(vcpu.get('sregs'))).split('\n');
  close();
  assert.match(lines[0]!, /^RAX=0000000000001234 RBX=[0-9a-f]{16} RCX=[0-9a-f]{16} RDX=[0-9a-f]{16}$/);
  assert.match(lines[2]!, /^R8 =[0-9a-f]{16} R9 =ffffffff80000000 R10=/);
  assert.equal(lines[4], 'RIP=0000000000001000 RFL=00000246 [---Z-P-] CPL=0');
  assert.equal(lines[6], 'CS =0008 0000000000000000 ffffffff 00a09b00');
  assert.equal(lines[7], 'SS =0010 0000000000000000 ffffffff 00c09300');
  assert.match(lines[15]!, /^CR0=80000011 CR2=0000000000000000 CR3=0000000000009000 CR4=00000220$/);
  assert.equal(lines[16], 'EFER=0000000000000501');
});

test('a triple fault ends in a description, as does an error of KVM_RUN', { skip: NO_KVM }, () => {
  const { vcpu, close } = makeGuest(UNDEFINED);
  withoutInterruptTable(vcpu, CODE);
  assert.equal(vcpu.enter(), EXIT.KVM_EXIT_SHUTDOWN);
  assert.match(describeVcpu(vcpu), /^KVM_EXIT_SHUTDOWN: the guest has had a triple fault\nRAX=/);
  assert.match(describeVcpu(vcpu, new SystemCallError('KVM_RUN', 14)), /^KVM_RUN: EFAULT\nRAX=/);
  close();
  assert.match(describeVcpu(vcpu), /\nits registers cannot be read \(KVM_GET_REGS: EBADF\)$/);
});

test('memory that is not there is an error, not a hang', { skip: NO_KVM }, () => {
  const { vm, vcpu, close } = makeGuest([0xf4]);
  vm.setMemory({ slot: 1, guestAddress: 0x10_0000, size: 0x1000, hostAddress: 0x1000n });
  vcpu.set('regs', { rip: 0x0n, rflags: 2n });
  const sregs = vcpu.get('sregs');
  vcpu.set('sregs', { ...sregs, cs: { ...sregs.cs, base: 0x10_0000n } });
  let error: unknown = null;
  let reason: number | null = null;
  try {
    reason = vcpu.enter();
  } catch (caught) {
    error = caught;
  }
  // Processors that run the guest themselves say EFAULT; an emulation finds no instruction.
  assert.ok(error instanceof SystemCallError || reason === EXIT.KVM_EXIT_INTERNAL_ERROR, `${error} ${reason}`);
  close();
});
