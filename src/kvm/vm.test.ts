import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { EXIT, exitName, NUMBERS } from './constants.ts';
import { demand, EAGAIN, loadLibc, SystemCallError } from './libc.ts';
import { Kvm } from './system.ts';
import { CODE, GUEST_SIZE, makeGuest, NO_KVM, startAt, type TestGuest } from './test-kit.ts';
import type { Vm } from './vm.ts';

const skip = NO_KVM;
const HLT = 0xf4;

function withGuest(code: readonly number[], run: (guest: TestGuest) => void, prepare?: (vm: Vm) => void): void {
  const guest = makeGuest(code, prepare);
  try {
    run(guest);
  } finally {
    guest.close();
  }
}

test('the host tells what its KVM can do', { skip }, () => {
  const kvm = new Kvm();
  try {
    assert.ok(kvm.check('KVM_CAP_USER_MEMORY') > 0);
    assert.ok(kvm.vcpuMapSize >= 3 * 4096);
    const basic = kvm.supportedCpuid().find(({ function: leaf }) => leaf === 0)!;
    assert.ok(basic.eax > 0);
    assert.ok(kvm.msrs().includes(0x174), 'IA32_SYSENTER_CS');
    assert.ok(kvm.msrs().every((index) => index > 0));
    assert.ok(Array.isArray(kvm.emulatedCpuid()));
    for (const value of kvm.featureMsrs().values()) assert.equal(typeof value, 'bigint');
  } finally {
    kvm.close();
  }
});

test('a failing request is one line with its name and the error', { skip }, () => {
  const kvm = new Kvm();
  const vm = kvm.createVm();
  assert.throws(() => vm.createVcpu(1_000_000), /^SystemCallError: KVM_CREATE_VCPU: E(INVAL|2BIG)$/);
  vm.close();
  assert.throws(() => vm.createIrqchip(), /^SystemCallError: KVM_CREATE_IRQCHIP: EBADF$/);
  kvm.close();
});

test('a guest writes and reads ports', { skip }, () => {
  const code = [
    ...[0xba, 0xf8, 0x03], // mov dx, 3F8h
    ...[0xb0, 0x41], // mov al, 'A'
    0xee, // out dx, al
    0xed, // in ax, dx
    ...[0x66, 0xef], // out dx, eax
    HLT,
  ];
  withGuest(code, ({ vcpu }) => {
    const { run } = vcpu;
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    assert.deepEqual([run.ioIsOut, run.ioPort, run.ioSize, run.ioCount, run.ioValue(0)], [true, 0x3f8, 1, 1, 0x41]);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    assert.deepEqual([run.ioIsOut, run.ioPort, run.ioSize], [false, 0x3f8, 2]);
    run.setIoValue(0, 0xbeef);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    assert.deepEqual([run.ioIsOut, run.ioSize, run.ioValue(0)], [true, 4, 0xbeef]);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
    assert.equal(vcpu.get('regs').rip, BigInt(CODE + code.length));
  });
});

test('several accesses of one instruction come together', { skip }, () => {
  const code = [
    ...[0xba, 0x34, 0x12], // mov dx, 1234h
    ...[0xbe, 0x00, 0x20], // mov si, 2000h
    ...[0xb9, 0x03, 0x00], // mov cx, 3
    ...[0xf3, 0x6f], // rep outsw
    HLT,
  ];
  withGuest(code, ({ vcpu, memory }) => {
    memory.set([1, 2, 3, 4, 5, 6], 0x2000);
    const values: number[] = [];
    let reason = vcpu.enter();
    for (; reason === EXIT.KVM_EXIT_IO; reason = vcpu.enter()) {
      for (let index = 0; index < vcpu.run.ioCount; index++) values.push(vcpu.run.ioValue(index));
    }
    assert.equal(reason, EXIT.KVM_EXIT_HLT);
    assert.deepEqual(values, [0x0201, 0x0403, 0x0605]);
  });
});

test('accesses where there is no memory leave', { skip }, () => {
  const code = [
    ...[0xb8, 0x00, 0xf0], // mov ax, F000h
    ...[0x8e, 0xd8], // mov ds, ax
    ...[0x66, 0xc7, 0x06, 0x10, 0x00, 0x78, 0x56, 0x34, 0x12], // mov dword [10h], 12345678h
    ...[0xa1, 0x20, 0x00], // mov ax, [20h]
    HLT,
  ];
  withGuest(code, ({ vcpu }) => {
    const { run } = vcpu;
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_MMIO);
    assert.deepEqual([run.mmioIsWrite, run.mmioAddress, run.mmioLength, run.mmioLow], [true, 0xf0010, 4, 0x1234_5678]);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_MMIO);
    assert.deepEqual([run.mmioIsWrite, run.mmioAddress, run.mmioLength], [false, 0xf0020, 2]);
    run.setMmioValue(0xcafe, 0);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
    assert.equal(vcpu.get('regs').rax & 0xffffn, 0xcafen);
  });
});

test('an exit can be completed without another instruction', { skip }, () => {
  const code = [
    ...[0xe4, 0x60], // in al, 60h
    ...[0xe4, 0x61], // in al, 61h
    HLT,
  ];
  withGuest(code, ({ vcpu }) => {
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    vcpu.run.setIoValue(0, 0x5a);
    assert.equal(vcpu.complete(), EXIT.KVM_EXIT_INTR);
    const { rip, rax } = vcpu.get('regs');
    assert.deepEqual([rip, rax & 0xffn], [BigInt(CODE + 2), 0x5an]);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    assert.equal(vcpu.run.ioPort, 0x61);
  });
});

test('pages that the guest writes are found in the log', { skip }, () => {
  const code = [
    ...[0xc6, 0x06, 0x00, 0x30, 0x01], // mov byte [3000h], 1
    ...[0xc6, 0x06, 0x00, 0x50, 0x01], // mov byte [5000h], 1
    HLT,
  ];
  withGuest(code, ({ vm, vcpu, memory }) => {
    vm.setMemory({ slot: 0, guestAddress: 0, size: GUEST_SIZE, hostAddress: vm.libc.addressOf(memory), logged: true });
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
    const pages = vm.dirtyPages(0, GUEST_SIZE / 4096);
    assert.equal(pages.length, 8);
    assert.equal(pages[0]! & 0b10_1000, 0b10_1000);
    assert.equal(vm.dirtyPages(0, GUEST_SIZE / 4096)[0], 0);
  });
});

test('the log can be kept until pages have been seen to', { skip }, () => {
  const code = [
    ...[0xc6, 0x06, 0x00, 0x30, 0x01], // mov byte [3000h], 1
    ...[0xc6, 0x06, 0x00, 0x50, 0x01], // mov byte [5000h], 1
    HLT,
  ];
  const size = 64 * 4096;
  withGuest(code, ({ vm, vcpu }) => {
    const memory = new Uint8Array(new WebAssembly.Memory({ initial: 4, maximum: 4, shared: true }).buffer);
    memory.set(code, CODE);
    vm.keepWrites();
    vm.removeMemory(0);
    vm.setMemory({ slot: 0, guestAddress: 0, size, hostAddress: vm.libc.addressOf(memory), logged: true });
    const written = (): number => vm.dirtyPages(0, 64)[0]! & 0b10_1000;
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
    assert.equal(written(), 0b10_1000);
    assert.equal(written(), 0b10_1000, 'it has not been told');
    vm.forgetWrites(0, 0, 64, Uint8Array.of(0b1000, 0, 0, 0, 0, 0, 0, 0));
    assert.equal(written(), 0b10_0000);
    startAt(vcpu, CODE);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
    assert.equal(written(), 0b10_1000);
    assert.equal(memory[0x3000], 1);
  });
});

test('writes to read-only memory leave, reads do not', { skip }, () => {
  const code = [
    ...[0xb8, 0x00, 0xf0], // mov ax, F000h
    ...[0x8e, 0xd8], // mov ds, ax
    ...[0xa0, 0x00, 0x00], // mov al, [0]
    ...[0xa2, 0x01, 0x00], // mov [1], al
    HLT,
  ];
  withGuest(code, ({ vm, vcpu }) => {
    const rom = new Uint8Array(new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer, 0, 4096);
    rom[0] = 0x77;
    vm.setMemory({ slot: 1, guestAddress: 0xf0000, size: 4096, hostAddress: vm.libc.addressOf(rom), readOnly: true });
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_MMIO);
    assert.deepEqual([vcpu.run.mmioIsWrite, vcpu.run.mmioAddress, vcpu.run.mmioLow & 0xff], [true, 0xf0001, 0x77]);
    assert.equal(rom[1], 0);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
    vm.removeMemory(1);
    startAt(vcpu, CODE);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_MMIO);
    assert.equal(vcpu.run.mmioIsWrite, false);
  });
});

test('writes that can wait are kept in order', { skip }, () => {
  const code = [
    ...[0xba, 0x80, 0x00], // mov dx, 80h
    ...[0xb0, 0x01], // mov al, 1
    0xee, // out dx, al
    ...[0xb8, 0x00, 0xf0], // mov ax, F000h
    ...[0x8e, 0xd8], // mov ds, ax
    ...[0xc7, 0x06, 0x04, 0x00, 0x02, 0x03], // mov word [4], 302h
    HLT,
  ];
  withGuest(code, ({ vm, vcpu }) => {
    vm.coalesce(false, 0xf0000, 0x100);
    vm.coalesce(true, 0x80, 1);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
    const seen: unknown[] = [];
    vcpu.run.drainCoalesced(({ address, length, port, low }) => seen.push([address, length, port, low & 0xffff]));
    assert.deepEqual(seen, [
      [0x80, 1, true, 1],
      [0xf0004, 2, false, 0x302],
    ]);
    vcpu.run.drainCoalesced(() => assert.fail('taken twice'));
    vm.uncoalesce(true, 0x80, 1);
    startAt(vcpu, CODE);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
  });
});

test('a doorbell signals an eventfd instead of leaving', { skip }, () => {
  const code = [
    ...[0xb8, 0x07, 0x00], // mov ax, 7
    ...[0xe7, 0x90], // out 90h, ax
    ...[0x40, 0xe7, 0x90], // inc ax; out 90h, ax
    HLT,
  ];
  withGuest(code, ({ vm, vcpu }) => {
    const { libc } = vm;
    const eventfd = demand(libc.eventfd(), 'eventfd');
    const doorbell = { port: true, address: 0x90, length: 2, value: 7n, eventfd } as const;
    vm.addDoorbell(doorbell);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    assert.equal(vcpu.run.ioValue(0), 8);
    const counter = new BigUint64Array(1);
    assert.equal(libc.read(eventfd, new Uint8Array(counter.buffer)), 8);
    assert.equal(counter[0], 1n);
    assert.equal(libc.read(eventfd, new Uint8Array(counter.buffer)), -EAGAIN);
    vm.removeDoorbell(doorbell);
    libc.close(eventfd);
  });
});

/** An interrupt handler for vector 20h, which the master 8259 is set up for, and a halt that it ends. */
const INTERRUPTED = [
  ...[0xb0, 0x11, 0xe6, 0x20], // ICW1: edge-triggered, cascaded, ICW4 follows
  ...[0xb0, 0x20, 0xe6, 0x21], // ICW2: vectors from 20h on
  ...[0xb0, 0x04, 0xe6, 0x21], // ICW3: slave at input 2
  ...[0xb0, 0x01, 0xe6, 0x21], // ICW4: 8086 mode
  ...[0xb0, 0x00, 0xe6, 0x21], // no input is masked
  ...[0xc7, 0x06, 0x94, 0x00, 0x00, 0x20], // mov word [25h * 4], 2000h
  ...[0xe6, 0x99], // out 99h, al
  ...[0xfb, HLT], // sti; hlt
  ...[0xe6, 0x98], // out 98h, al
];
const HANDLER = [0xb0, 0x55, 0xcf]; // mov al, 55h; iret

function interruptTest(name: string, raise: (vm: Vm) => void): void {
  test(name, { skip }, () => {
    const prepare = (vm: Vm): void => {
      vm.createIrqchip();
      vm.createPit();
    };
    withGuest(
      INTERRUPTED,
      ({ vm, vcpu, memory }) => {
        memory.set(HANDLER, 0x2000);
        assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
        assert.equal(vcpu.run.ioPort, 0x99);
        raise(vm);
        assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
        assert.deepEqual([vcpu.run.ioPort, vcpu.run.ioValue(0)], [0x98, 0x55]);
      },
      prepare,
    );
  });
}

interruptTest('a wire of the interrupt chips wakes a halted guest', (vm) => {
  vm.setIrqLine(5, true);
  vm.setIrqLine(5, false);
});

interruptTest('an eventfd pulses a wire', (vm) => {
  const { libc } = vm;
  const eventfd = demand(libc.eventfd(), 'eventfd');
  vm.setRoutes([{ gsi: 30, chip: 'master', pin: 5 }]);
  vm.connectIrqfd(eventfd, 30);
  assert.equal(libc.write(eventfd, new Uint8Array(BigUint64Array.of(1n).buffer)), 8);
  // The kernel may do it a little later; a halted vCPU waits for it.
  libc.close(eventfd);
});

/** Spurious-interrupt vector register: bit 8 turns a local APIC on. */
const APIC_SPURIOUS = 0xf0;

for (const [name, prepare] of [
  ["all chips are the kernel's", (vm: Vm) => vm.createIrqchip()],
  ["only local APICs are the kernel's", (vm: Vm) => vm.createSplitIrqchip(24)],
] as const) {
  test(`a message to a local APIC wakes a halted guest (${name})`, { skip }, () => {
    const code = [
      ...[0xc7, 0x06, 0x94, 0x00, 0x00, 0x20], // mov word [25h * 4], 2000h
      ...[0xe6, 0x99], // out 99h, al
      ...[0xfb, HLT], // sti; hlt
      ...[0xe6, 0x98], // out 98h, al
    ];
    withGuest(
      code,
      ({ vm, vcpu, memory }) => {
        memory.set(HANDLER, 0x2000);
        const { regs } = vcpu.get('lapic');
        new DataView(regs.buffer).setUint32(APIC_SPURIOUS, 0x1ff, true);
        vcpu.set('lapic', { regs });
        assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
        assert.equal(vm.signalMsi(0xfee0_0000, 0, 0x25), true);
        assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
        assert.deepEqual([vcpu.run.ioPort, vcpu.run.ioValue(0)], [0x98, 0x55]);
        assert.equal(vm.signalMsi(0xfee0_7000, 0, 0x25), false, 'nobody has that ID');
      },
      prepare,
    );
  });
}

test('without interrupt chips in the kernel, a vector is handed over when the guest takes it', { skip }, () => {
  const code = [
    ...[0xc7, 0x06, 0x94, 0x00, 0x00, 0x20], // mov word [25h * 4], 2000h
    ...[0xe6, 0x99], // out 99h, al
    ...[0xfb, HLT], // sti; hlt
    ...[0xe6, 0x98], // out 98h, al
    HLT,
  ];
  withGuest(code, ({ vcpu, memory }) => {
    memory.set(HANDLER, 0x2000);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    assert.equal(vcpu.run.readyForInterrupt, false);
    vcpu.run.setInterruptWindow(true);
    // A KVM that emulates the guest looks for the window no sooner than at the halt.
    const reason = vcpu.enter();
    assert.ok(reason === EXIT.KVM_EXIT_IRQ_WINDOW_OPEN || reason === EXIT.KVM_EXIT_HLT, exitName(reason));
    assert.deepEqual([vcpu.run.interruptFlag, vcpu.run.readyForInterrupt], [true, true]);
    vcpu.run.setInterruptWindow(false);
    vcpu.interrupt(0x25);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_IO);
    assert.deepEqual([vcpu.run.ioPort, vcpu.run.ioValue(0)], [0x98, 0x55]);
  });
});

test('pages for real mode can be put where the guest has nothing', { skip }, () => {
  withGuest(
    [HLT],
    ({ vcpu }) => assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT),
    (vm) => vm.reservePages(0xfeff_d000, 0xfeff_c000),
  );
});

test('state of the chips and the clock is read and written', { skip }, () => {
  const prepare = (vm: Vm): void => {
    vm.createIrqchip();
    vm.createPit();
    vm.setPitReinjection(false);
  };
  withGuest(
    [HLT],
    ({ vm }) => {
      const { pic } = vm.getChip('master');
      vm.setChip('master', { pic: { ...pic, imr: 0xa5, irq_base: 0x20 } });
      assert.equal(vm.getChip('master').pic.imr, 0xa5);
      const { ioapic } = vm.getChip('ioapic');
      assert.equal(ioapic.base_address, 0xfec0_0000n);
      ioapic.redirtbl[3] = 0x1_0000n | 0x31n;
      vm.setChip('ioapic', { ioapic });
      assert.equal(vm.getChip('ioapic').ioapic.redirtbl[3], 0x1_0031n);
      const pit = vm.getPit();
      pit.channels[2]!.count = 1234;
      vm.setPit(pit);
      assert.equal(vm.getPit().channels[2]!.count, 1234);
      vm.setClock({ clock: 1_000_000_000_000n });
      assert.ok(vm.getClock().clock >= 1_000_000_000_000n);
    },
    prepare,
  );
});

test("a vCPU's state is read and written", { skip }, () => {
  const prepare = (vm: Vm): void => vm.createIrqchip();
  withGuest(
    [HLT],
    ({ kvm, vcpu }) => {
      vcpu.setCpuid(kvm.supportedCpuid());
      assert.ok(vcpu.getCpuid().length > 0);
      const regs = vcpu.get('regs');
      vcpu.set('regs', { ...regs, r15: 0xffff_ffff_ffff_fff1n });
      assert.equal(vcpu.get('regs').r15, 0xffff_ffff_ffff_fff1n);
      const sregs = vcpu.get('sregs');
      vcpu.set('sregs', { ...sregs, cr2: 0x1234_5000n });
      assert.equal(vcpu.get('sregs').cr2, 0x1234_5000n);
      vcpu.set('fpu', { ...vcpu.get('fpu'), fcw: 0x27f });
      assert.equal(vcpu.get('fpu').fcw, 0x27f);
      const area = vcpu.getXsave();
      assert.ok(area.length >= 4096);
      vcpu.setXsave(area);
      vcpu.set('xcrs', vcpu.get('xcrs'));
      const debug = vcpu.get('debugregs');
      vcpu.set('debugregs', { ...debug, db: [1n, 2n, 3n, 4n] });
      assert.deepEqual(vcpu.get('debugregs').db, [1n, 2n, 3n, 4n]);
      vcpu.set('events', vcpu.get('events'));
      assert.equal(vcpu.get('mpState').mp_state, NUMBERS.KVM_MP_STATE_RUNNABLE);
      const lapic = vcpu.get('lapic');
      vcpu.set('lapic', lapic);
      assert.equal(lapic.regs.length, 1024);
      assert.equal(vcpu.translate(0x1234n), 0x1234n);
      assert.ok(vcpu.tscKhz > 0);
    },
    prepare,
  );
});

test('MSRs behind a refused one are read and written, too', { skip }, () => {
  withGuest([HLT], ({ vcpu }) => {
    const unknown = 0x4bad_0000;
    const [esp, eip] = [0x175, 0x176];
    const values = new Map([
      [esp, 0x1111n],
      [unknown, 0n],
      [eip, 0x2222n],
    ]);
    assert.deepEqual(vcpu.setMsrs(values), [unknown]);
    const got = vcpu.getMsrs([esp, unknown, eip, unknown + 1]);
    assert.deepEqual(got.refused, [unknown, unknown + 1]);
    assert.deepEqual(
      [...got.values],
      [
        [esp, 0x1111n],
        [eip, 0x2222n],
      ],
    );
  });
});

test('a guest is stepped', { skip }, () => {
  const code = [0x40, 0x40, HLT]; // inc ax; inc ax
  withGuest(code, ({ vcpu }) => {
    vcpu.setDebug({ singleStep: true });
    for (const next of [CODE + 1, CODE + 2]) {
      assert.equal(vcpu.enter(), EXIT.KVM_EXIT_DEBUG);
      assert.equal(vcpu.run.debug.pc, BigInt(next));
    }
    vcpu.setDebug(null);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
  });
});

test('a guest is stopped at breakpoints of the processor', { skip }, () => {
  const code = [0x40, 0x40, 0x40, 0x40, HLT]; // inc ax, four times
  withGuest(code, ({ vcpu }) => {
    vcpu.setDebug({ breakpoints: [{ address: BigInt(CODE + 3), on: 'execute', length: 1 }] });
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_DEBUG);
    assert.equal(vcpu.run.debug.pc, BigInt(CODE + 3));
    assert.equal(vcpu.run.debug.dr6 & 0xfn, 1n);
    vcpu.setDebug(null);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
    assert.equal(vcpu.get('regs').rax & 0xffffn, 4n);
    assert.throws(() => vcpu.setDebug({ breakpoints: Array(5).fill({ address: 0n, on: 'write', length: 8 }) }), /more than/);
  });
});

test("a vCPU's place must fit, and its descriptor is closed when it does not", { skip }, () => {
  const libc = loadLibc();
  const count = (): number => readdirSync('/proc/self/fd').length;
  const before = count();
  const kvm = new Kvm(libc);
  const vm = kvm.createVm();
  const { buffer } = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const open = count();
  assert.throws(() => vm.createVcpu(0, new Uint8Array(buffer, 16, kvm.vcpuMapSize)), /shared pages need/);
  assert.throws(() => vm.createVcpu(1, new Uint8Array(buffer, 0, 4096)), /shared pages need/);
  assert.equal(count(), open);
  const vcpu = vm.createVcpu(2);
  const { run } = vcpu;
  run.setImmediateExit(true);
  vm.close();
  kvm.close();
  assert.equal(vcpu.fd, -1);
  assert.equal(vcpu.run.bytes.length, kvm.vcpuMapSize);
  assert.throws(() => vcpu.enter(), SystemCallError);
  assert.equal(count(), before);
});

test('MSRs can be left to us', { skip }, () => {
  const code = [
    ...[0x66, 0xb9, 0x10, 0x00, 0x00, 0x40], // mov ecx, 40000010h
    ...[0x0f, 0x32], // rdmsr
    ...[0x0f, 0x30], // wrmsr
    HLT,
  ];
  withGuest(code, ({ vm, vcpu }) => {
    if (vm.check('KVM_CAP_X86_USER_SPACE_MSR') === 0) return;
    vm.enable('KVM_CAP_X86_USER_SPACE_MSR', NUMBERS.KVM_MSR_EXIT_REASON_FILTER | NUMBERS.KVM_MSR_EXIT_REASON_UNKNOWN);
    vm.setMsrFilter('allow', [{ base: 0x4000_0010, count: 1, allowed: Uint8Array.of(0), reads: true, writes: true }]);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_X86_RDMSR);
    assert.equal(vcpu.run.msrIndex, 0x4000_0010);
    vcpu.run.msrValue = 0x1_2345_6789n;
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_X86_WRMSR);
    assert.equal(vcpu.run.msrValue, 0x1_2345_6789n);
    assert.equal(vcpu.enter(), EXIT.KVM_EXIT_HLT);
  });
});
