/** Structures of Linux's <linux/kvm.h> and <asm/kvm.h> for x86, under their own names. */
import { struct, union } from './struct.ts';

// Memory

export const KVM_USERSPACE_MEMORY_REGION = struct('kvm_userspace_memory_region', {
  slot: 'u32',
  flags: 'u32',
  guest_phys_addr: 'u64',
  memory_size: 'u64',
  userspace_addr: 'u64',
});
export const KVM_DIRTY_LOG = struct('kvm_dirty_log', { slot: 'u32', padding1: 'u32', dirty_bitmap: 'u64' });
export const KVM_CLEAR_DIRTY_LOG = struct('kvm_clear_dirty_log', {
  slot: 'u32',
  num_pages: 'u32',
  first_page: 'u64',
  dirty_bitmap: 'u64',
});
export const KVM_COALESCED_MMIO_ZONE = struct('kvm_coalesced_mmio_zone', { addr: 'u64', size: 'u32', pio: 'u32' });
export const KVM_COALESCED_MMIO = struct('kvm_coalesced_mmio', { phys_addr: 'u64', len: 'u32', pio: 'u32', data: ['u8', 8] });
export const KVM_COALESCED_MMIO_RING = struct('kvm_coalesced_mmio_ring', { first: 'u32', last: 'u32' });
export const KVM_TRANSLATION = struct('kvm_translation', {
  linear_address: 'u64',
  physical_address: 'u64',
  valid: 'u8',
  writeable: 'u8',
  usermode: 'u8',
  pad: ['u8', 5],
});

export const KVM_DEVICE_ATTR = struct('kvm_device_attr', { flags: 'u32', group: 'u32', attr: 'u64', addr: 'u64' });

// Registers

export const KVM_REGS = struct('kvm_regs', {
  rax: 'u64',
  rbx: 'u64',
  rcx: 'u64',
  rdx: 'u64',
  rsi: 'u64',
  rdi: 'u64',
  rsp: 'u64',
  rbp: 'u64',
  r8: 'u64',
  r9: 'u64',
  r10: 'u64',
  r11: 'u64',
  r12: 'u64',
  r13: 'u64',
  r14: 'u64',
  r15: 'u64',
  rip: 'u64',
  rflags: 'u64',
});
export const KVM_SEGMENT = struct('kvm_segment', {
  base: 'u64',
  limit: 'u32',
  selector: 'u16',
  type: 'u8',
  present: 'u8',
  dpl: 'u8',
  db: 'u8',
  s: 'u8',
  l: 'u8',
  g: 'u8',
  avl: 'u8',
  unusable: 'u8',
  padding: 'u8',
});
export const KVM_DTABLE = struct('kvm_dtable', { base: 'u64', limit: 'u16', padding: ['u16', 3] });

const SYSTEM_REGISTERS = {
  cs: KVM_SEGMENT,
  ds: KVM_SEGMENT,
  es: KVM_SEGMENT,
  fs: KVM_SEGMENT,
  gs: KVM_SEGMENT,
  ss: KVM_SEGMENT,
  tr: KVM_SEGMENT,
  ldt: KVM_SEGMENT,
  gdt: KVM_DTABLE,
  idt: KVM_DTABLE,
  cr0: 'u64',
  cr2: 'u64',
  cr3: 'u64',
  cr4: 'u64',
  cr8: 'u64',
  efer: 'u64',
  apic_base: 'u64',
} as const;
export const KVM_SREGS = struct('kvm_sregs', { ...SYSTEM_REGISTERS, interrupt_bitmap: ['u64', 4] });
export const KVM_SREGS2 = struct('kvm_sregs2', { ...SYSTEM_REGISTERS, flags: 'u64', pdptrs: ['u64', 4] });
export const KVM_FPU = struct('kvm_fpu', {
  fpr: ['u8', 8 * 16],
  fcw: 'u16',
  fsw: 'u16',
  ftwx: 'u8',
  pad1: 'u8',
  last_opcode: 'u16',
  last_ip: 'u64',
  last_dp: 'u64',
  xmm: ['u8', 16 * 16],
  mxcsr: 'u32',
  pad2: 'u32',
});
/** Longer where a component needs it (KVM_CAP_XSAVE2). */
export const KVM_XSAVE = struct('kvm_xsave', { region: ['u32', 1024] });
export const KVM_XCR = struct('kvm_xcr', { xcr: 'u32', reserved: 'u32', value: 'u64' });
export const KVM_XCRS = struct('kvm_xcrs', { nr_xcrs: 'u32', flags: 'u32', xcrs: [KVM_XCR, 16], padding: ['u64', 16] });
export const KVM_DEBUGREGS = struct('kvm_debugregs', {
  db: ['u64', 4],
  dr6: 'u64',
  dr7: 'u64',
  flags: 'u64',
  reserved: ['u64', 9],
});
export const KVM_VCPU_EVENTS = struct('kvm_vcpu_events', {
  exception: struct('', { injected: 'u8', nr: 'u8', has_error_code: 'u8', pending: 'u8', error_code: 'u32' }),
  interrupt: struct('', { injected: 'u8', nr: 'u8', soft: 'u8', shadow: 'u8' }),
  nmi: struct('', { injected: 'u8', pending: 'u8', masked: 'u8', pad: 'u8' }),
  sipi_vector: 'u32',
  flags: 'u32',
  smi: struct('', { smm: 'u8', pending: 'u8', smm_inside_nmi: 'u8', latched_init: 'u8' }),
  triple_fault: struct('', { pending: 'u8' }),
  reserved: ['u8', 26],
  exception_has_payload: 'u8',
  exception_payload: 'u64',
});
export const KVM_MP_STATE = struct('kvm_mp_state', { mp_state: 'u32' });
export const KVM_LAPIC_STATE = struct('kvm_lapic_state', { regs: ['u8', 1024] });
export const KVM_MSR_ENTRY = struct('kvm_msr_entry', { index: 'u32', reserved: 'u32', data: 'u64' });
export const KVM_MSRS = struct('kvm_msrs', { nmsrs: 'u32', pad: 'u32' });
export const KVM_MSR_LIST = struct('kvm_msr_list', { nmsrs: 'u32' });
export const KVM_CPUID_ENTRY2 = struct('kvm_cpuid_entry2', {
  function: 'u32',
  index: 'u32',
  flags: 'u32',
  eax: 'u32',
  ebx: 'u32',
  ecx: 'u32',
  edx: 'u32',
  padding: ['u32', 3],
});
export const KVM_CPUID2 = struct('kvm_cpuid2', { nent: 'u32', padding: 'u32' });
export const KVM_MSR_FILTER_RANGE = struct('kvm_msr_filter_range', { flags: 'u32', nmsrs: 'u32', base: 'u32', bitmap: 'u64' });
export const KVM_MSR_FILTER = struct('kvm_msr_filter', { flags: 'u32', ranges: [KVM_MSR_FILTER_RANGE, 16] });

// Interrupt chips, timers, clock

export const KVM_PIC_STATE = struct('kvm_pic_state', {
  last_irr: 'u8',
  irr: 'u8',
  imr: 'u8',
  isr: 'u8',
  priority_add: 'u8',
  irq_base: 'u8',
  read_reg_select: 'u8',
  poll: 'u8',
  special_mask: 'u8',
  init_state: 'u8',
  auto_eoi: 'u8',
  rotate_on_auto_eoi: 'u8',
  special_fully_nested_mode: 'u8',
  init4: 'u8',
  elcr: 'u8',
  elcr_mask: 'u8',
});
export const KVM_IOAPIC_STATE = struct('kvm_ioapic_state', {
  base_address: 'u64',
  ioregsel: 'u32',
  id: 'u32',
  irr: 'u32',
  pad: 'u32',
  redirtbl: ['u64', 24],
});
export const KVM_IRQCHIP = struct('kvm_irqchip', {
  chip_id: 'u32',
  pad: 'u32',
  chip: union({ pic: KVM_PIC_STATE, ioapic: KVM_IOAPIC_STATE, dummy: ['u8', 512] }),
});
export const KVM_PIT_CHANNEL_STATE = struct('kvm_pit_channel_state', {
  count: 'u32',
  latched_count: 'u16',
  count_latched: 'u8',
  status_latched: 'u8',
  status: 'u8',
  read_state: 'u8',
  write_state: 'u8',
  write_latch: 'u8',
  rw_mode: 'u8',
  mode: 'u8',
  bcd: 'u8',
  gate: 'u8',
  count_load_time: 's64',
});
export const KVM_PIT_STATE2 = struct('kvm_pit_state2', {
  channels: [KVM_PIT_CHANNEL_STATE, 3],
  flags: 'u32',
  reserved: ['u32', 9],
});
export const KVM_PIT_CONFIG = struct('kvm_pit_config', { flags: 'u32', pad: ['u32', 15] });
export const KVM_REINJECT_CONTROL = struct('kvm_reinject_control', { pit_reinject: 'u8', reserved: ['u8', 31] });
/** After KVM_IRQ_LINE_STATUS, `irq` is what became of the interrupt. */
export const KVM_IRQ_LEVEL = struct('kvm_irq_level', { irq: 'u32', level: 'u32' });
export const KVM_IRQFD = struct('kvm_irqfd', { fd: 'u32', gsi: 'u32', flags: 'u32', resamplefd: 'u32', pad: ['u8', 16] });
export const KVM_IOEVENTFD = struct('kvm_ioeventfd', {
  datamatch: 'u64',
  addr: 'u64',
  len: 'u32',
  fd: 's32',
  flags: 'u32',
  pad: ['u8', 36],
});
export const KVM_MSI = struct('kvm_msi', {
  address_lo: 'u32',
  address_hi: 'u32',
  data: 'u32',
  flags: 'u32',
  devid: 'u32',
  pad: ['u8', 12],
});
export const KVM_IRQ_ROUTING_IRQCHIP = struct('kvm_irq_routing_irqchip', { irqchip: 'u32', pin: 'u32' });
export const KVM_IRQ_ROUTING_MSI = struct('kvm_irq_routing_msi', {
  address_lo: 'u32',
  address_hi: 'u32',
  data: 'u32',
  devid: 'u32',
});
export const KVM_IRQ_ROUTING_HV_SINT = struct('kvm_irq_routing_hv_sint', { vcpu: 'u32', sint: 'u32' });
export const KVM_IRQ_ROUTING_ENTRY = struct('kvm_irq_routing_entry', {
  gsi: 'u32',
  type: 'u32',
  flags: 'u32',
  pad: 'u32',
  // The longest member, of another architecture, has 32 bytes and is aligned to eight.
  u: union({
    irqchip: KVM_IRQ_ROUTING_IRQCHIP,
    msi: KVM_IRQ_ROUTING_MSI,
    hv_sint: KVM_IRQ_ROUTING_HV_SINT,
    pad: ['u64', 4],
  }),
});
export const KVM_IRQ_ROUTING = struct('kvm_irq_routing', { nr: 'u32', flags: 'u32' });
export const KVM_CLOCK_DATA = struct('kvm_clock_data', {
  clock: 'u64',
  flags: 'u32',
  pad0: 'u32',
  realtime: 'u64',
  host_tsc: 'u64',
  pad: ['u32', 4],
});

// Control of a vCPU

export const KVM_ENABLE_CAP = struct('kvm_enable_cap', { cap: 'u32', flags: 'u32', args: ['u64', 4], pad: ['u8', 64] });
export const KVM_GUEST_DEBUG_ARCH = struct('kvm_guest_debug_arch', { debugreg: ['u64', 8] });
export const KVM_GUEST_DEBUG = struct('kvm_guest_debug', { control: 'u32', pad: 'u32', arch: KVM_GUEST_DEBUG_ARCH });
export const KVM_INTERRUPT = struct('kvm_interrupt', { irq: 'u32' });
export const KVM_SIGNAL_MASK = struct('kvm_signal_mask', { len: 'u32' });
export const KVM_TPR_ACCESS_CTL = struct('kvm_tpr_access_ctl', { enabled: 'u32', flags: 'u32', reserved: ['u32', 8] });
export const KVM_VAPIC_ADDR = struct('kvm_vapic_addr', { vapic_addr: 'u64' });
export const KVM_X86_MCE = struct('kvm_x86_mce', {
  status: 'u64',
  addr: 'u64',
  misc: 'u64',
  mcg_status: 'u64',
  bank: 'u8',
  pad1: ['u8', 7],
  pad2: ['u64', 3],
});
/** A 64-bit argument without a structure around it. */
export const U64 = struct('', { value: 'u64' });

// The page that a vCPU shares with its user

export const KVM_DEBUG_EXIT_ARCH = struct('kvm_debug_exit_arch', {
  exception: 'u32',
  pad: 'u32',
  pc: 'u64',
  dr6: 'u64',
  dr7: 'u64',
});
export const KVM_HYPERV_EXIT = struct('kvm_hyperv_exit', {
  type: 'u32',
  pad1: 'u32',
  u: union({
    synic: struct('', { msr: 'u32', pad2: 'u32', control: 'u64', evt_page: 'u64', msg_page: 'u64' }),
    hcall: struct('', { input: 'u64', result: 'u64', params: ['u64', 2] }),
    syndbg: struct('', {
      msr: 'u32',
      pad2: 'u32',
      control: 'u64',
      status: 'u64',
      send_page: 'u64',
      recv_page: 'u64',
      pending_page: 'u64',
    }),
  }),
});
export const KVM_SYNC_REGS = struct('kvm_sync_regs', { regs: KVM_REGS, sregs: KVM_SREGS, events: KVM_VCPU_EVENTS });

/** What belongs to each exit reason, all in the same place of `kvm_run`. */
export const KVM_RUN_EXIT = union({
  hw: struct('', { hardware_exit_reason: 'u64' }),
  fail_entry: struct('', { hardware_entry_failure_reason: 'u64', cpu: 'u32' }),
  ex: struct('', { exception: 'u32', error_code: 'u32' }),
  io: struct('', { direction: 'u8', size: 'u8', port: 'u16', count: 'u32', data_offset: 'u64' }),
  debug: struct('', { arch: KVM_DEBUG_EXIT_ARCH }),
  mmio: struct('', { phys_addr: 'u64', data: ['u8', 8], len: 'u32', is_write: 'u8' }),
  hypercall: struct('', { nr: 'u64', args: ['u64', 6], ret: 'u64', longmode: 'u32', pad: 'u32' }),
  tpr_access: struct('', { rip: 'u64', is_write: 'u32', pad: 'u32' }),
  internal: struct('', { suberror: 'u32', ndata: 'u32', data: ['u64', 16] }),
  emulation_failure: struct('', { suberror: 'u32', ndata: 'u32', flags: 'u64', insn_size: 'u8', insn_bytes: ['u8', 15] }),
  system_event: struct('', { type: 'u32', ndata: 'u32', data: ['u64', 16] }),
  eoi: struct('', { vector: 'u8' }),
  hyperv: KVM_HYPERV_EXIT,
  msr: struct('', { error: 'u8', pad: ['u8', 7], reason: 'u32', index: 'u32', data: 'u64' }),
  notify: struct('', { flags: 'u32' }),
  padding: ['u8', 256],
});
export const KVM_RUN_PAGE = struct('kvm_run', {
  request_interrupt_window: 'u8',
  immediate_exit: 'u8',
  padding1: ['u8', 6],
  exit_reason: 'u32',
  ready_for_interrupt_injection: 'u8',
  if_flag: 'u8',
  flags: 'u16',
  cr8: 'u64',
  apic_base: 'u64',
  exit: KVM_RUN_EXIT,
  kvm_valid_regs: 'u64',
  kvm_dirty_regs: 'u64',
  s: union({ regs: KVM_SYNC_REGS, padding: ['u8', 2048] }),
});
