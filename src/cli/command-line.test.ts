import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CommandLine, parseCommandLine } from './command-line.ts';

const parse = (text: string): CommandLine => parseCommandLine(text.split(' '));
const withKernel = (text: string): CommandLine => parse(`-kernel k ${text}`);

test('the usual command line of a direct kernel boot', () => {
  const line = parseCommandLine([
    '-m',
    '512',
    '-kernel',
    'vmlinuz',
    '-initrd',
    'initrd.gz',
    '-append',
    'console=ttyS0 quiet',
    '-nographic',
    '-no-reboot',
  ]);
  assert.equal(line.memory, 512 * 2 ** 20);
  assert.equal(line.kernel, 'vmlinuz');
  assert.equal(line.initrd, 'initrd.gz');
  assert.equal(line.append, 'console=ttyS0 quiet');
  assert.equal(line.noReboot, true);
  assert.deepEqual(line.serials, [{ text: 'mon:stdio', spec: { kind: 'stdio', mux: true } }]);
});

test('options with two dashes, and options that change nothing', () => {
  const line = parse('--kernel k -nodefaults -no-user-config -display none -vga none -monitor none -name x -smp 1');
  assert.equal(line.kernel, 'k');
  assert.deepEqual(line.serials[0]!.spec, { kind: 'null' });
});

test('accelerators: names, aliases, the first of a list that can be had', () => {
  assert.deepEqual(withKernel('-accel tcg,thread=single').accel, ['jit']);
  assert.deepEqual(withKernel('-accel interp').accel, ['interp']);
  assert.deepEqual(withKernel('-M pc,accel=kvm:interp').accel, ['kvm', 'interp']);
  assert.deepEqual(withKernel('-accel kvm -accel tcg').accel, ['kvm', 'jit']);
  assert.deepEqual(withKernel('-enable-kvm').accel, ['kvm']);
  assert.deepEqual(withKernel('-S').accel, []);
  assert.equal(withKernel('-accel jit').nativeCode, true);
  assert.equal(withKernel('-accel jit,native=off').nativeCode, false);
  assert.throws(() => withKernel('-accel jit,native=perhaps'), /native/);
  assert.throws(() => withKernel('-accel xen'), /-accel xen: accelerator "xen" is not known/);
});

test('interrupt chips in the kernel, as a property of accelerator or machine', () => {
  assert.equal(withKernel('-accel kvm').kernelIrqchip, 'on');
  assert.equal(withKernel('-accel kvm,kernel-irqchip=split').kernelIrqchip, 'split');
  assert.equal(withKernel('-M q35,accel=kvm,kernel-irqchip=split').kernelIrqchip, 'split');
  assert.throws(() => withKernel('-accel kvm,kernel-irqchip=off'), /kernel-irqchip=off is not available: .* \(on, split\)$/);
  assert.throws(() => withKernel('-M pc,kernel-irqchip=x'), /kernel-irqchip takes on, split, not "x"$/);
});

test('a microvm: its properties, its devices, and no card unless asked for', () => {
  const line = withKernel(
    '-M microvm,isa-serial=off,rtc=auto,acpi=off,pit=on,x-option-roms=off -drive if=none,id=d,file=x -device virtio-blk-device,drive=d ' +
      '-netdev user,id=n -device virtio-net-device,netdev=n',
  );
  assert.equal(line.machine, 'microvm');
  assert.deepEqual(line.microvm, { isaSerial: false, rtc: true, acpi: false, autoKernelCmdline: true });
  assert.deepEqual(
    line.devices.map(({ config }) => config.driver),
    ['virtio-blk-device', 'virtio-net-device'],
  );
  assert.deepEqual(line.warnings, []);
  assert.deepEqual(withKernel('-M microvm').network.nics, []);
  assert.throws(() => withKernel('-M microvm,pcie=on'), /pcie=on is not available$/);
  assert.throws(() => withKernel('-M pc,isa-serial=off'), /machine property "isa-serial" is not one of pc's$/);
});

test("Hyper-V's interface is part of a CPU's properties", () => {
  assert.equal(
    withKernel('-cpu max,hv-relaxed,hv_time=on,hv-spinlocks=0x1fff,-hv-vapic').cpu,
    'max,hv-relaxed,hv_time=on,hv-spinlocks=0x1fff,-hv-vapic',
  );
  assert.throws(() => withKernel('-cpu max,hv-spinlocks=5'), /hv-spinlocks takes a number of tries from 0xfff up, not "5"$/);
  assert.throws(() => withKernel('-cpu max,hv-relaxed=maybe'), /hv-relaxed takes on or off, not "maybe"$/);
});

test('CPUs: what is left out follows from the rest', () => {
  const smp = (text: string) => {
    const { cpus, topology } = withKernel(`-smp ${text}`).smp;
    return [cpus, topology.sockets, topology.cores, topology.threads];
  };
  assert.deepEqual(smp('4'), [4, 1, 4, 1]);
  assert.deepEqual(smp('cpus=8,sockets=2,threads=2'), [8, 2, 2, 2]);
  assert.deepEqual(smp('4,maxcpus=4,sockets=2,dies=1,clusters=1,cores=1,threads=2'), [4, 2, 1, 2]);
  assert.deepEqual(smp('8,cores=2'), [8, 4, 2, 1]);
  assert.deepEqual(smp('8,sockets=1,cores=4'), [8, 1, 4, 2]);
  assert.deepEqual(smp('sockets=2,cores=2'), [4, 2, 2, 1]);
});

test('time: icount and the real-time clock', () => {
  const line = withKernel('-icount shift=3,sleep=off -rtc base=2020-01-01T00:00:00,clock=vm');
  assert.deepEqual(line.icount, { shift: 3, sleep: false });
  assert.deepEqual(line.rtc, { base: Date.UTC(2020, 0, 1) / 1000, clock: 'vm' });
  assert.deepEqual(withKernel('-icount auto').icount, { shift: 'auto', sleep: true });
  assert.throws(() => withKernel('-icount shift=11'), /not a number from 0 to 10/);
  assert.throws(() => withKernel('-rtc base=yesterday'), /-rtc base=yesterday: /);
});

test('debugging devices', () => {
  const line = withKernel('-device isa-debug-exit,iobase=0xf4,iosize=4 -debugcon file:log');
  assert.deepEqual(line.devices[0]!.config, { driver: 'isa-debug-exit', iobase: '0xf4', iosize: '4' });
  assert.equal(line.debugcon!.iobase, 0xe9);
  const native = withKernel('-M q35 -global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off');
  assert.equal(native.acpiHotplugBehindBridges, false);
  const moved = withKernel('-global isa-debugcon.iobase=0x402 -debugcon stdio');
  assert.equal(moved.debugcon!.iobase, 0x402);
});

test("tracing: QEMU's categories stand for the machine's own", () => {
  assert.deepEqual(withKernel('-d int,guest_errors').trace, ['int', 'smi', 'unknown-msr', 'rom-write', 'fetch']);
  assert.throws(() => withKernel('-d nonsense'), /-d nonsense: "nonsense" is not a category/);
});

test('several serial ports, one terminal', () => {
  const line = withKernel('-serial stdio -serial null -serial file:log -serial none');
  assert.deepEqual(
    line.serials.map(({ spec }) => spec.kind),
    ['stdio', 'null', 'file', 'none'],
  );
  assert.throws(() => withKernel('-serial stdio -serial mon:stdio'), /in use already/);
  assert.throws(() => withKernel('-serial null -serial null -serial null -serial null -serial null'), /at most 4/);
});

test('help wins over what is missing', () => {
  assert.equal(parse('-M help').help, 'machine');
  assert.equal(parse('-cpu help').help, 'cpu');
  assert.equal(parse('-version').help, 'version');
  assert.equal(parse('-h').help, 'options');
});

test('one line says which option and why', () => {
  const cases: [string, RegExp][] = [
    ['-foo', /^Error: -foo: unknown option$/],
    ['image.iso', /^Error: image.iso: not an option$/],
    ['-kernel', /^Error: -kernel: needs a value$/],
    ['-m 0', /^Error: -m 0: a machine without memory$/],
    ['-m 1Q', /^Error: -m 1Q: "1Q" is not a size/],
    ['-m size=1G,foo=1', /"foo" is not known here/],
    ['-smp 4,cores=3', /^Error: -smp 4,cores=3: sockets \(1\) \* cores \(3\) \* threads \(1\) is not 4$/],
    ['-smp 2,maxcpus=4', /^Error: -smp 2,maxcpus=4: maxcpus=4: a machine has all/],
    ['-smp 2,dies=2', /^Error: -smp 2,dies=2: dies=2: sockets are/],
    ['-smp 300', /^Error: -smp 300: cpus=300 is not a number from 1 to 255$/],
    ['-M isapc', /machine type "isapc" is not known/],
    ['-cpu 8086', /^Error: -cpu 8086: unknown model "8086"/],
    ['-cpu max,+flux', /^Error: -cpu max,\+flux: unknown feature/],
    ['-vga qxl', /^Error: -vga qxl: not available/],
    ['-initrd x', /^Error: -initrd x: needs -kernel$/],
    ['-constructor', /unknown option/],
  ];
  for (const [text, expected] of cases) assert.throws(() => parse(text), expected, text);
});

test('drives: short forms, places, and what a PC has anyway', () => {
  const places = (line: CommandLine): string[] =>
    line.drives.map(({ config: { interface: kind, index, media, file } }) => `${kind}${index} ${media} ${file}`);
  assert.deepEqual(places(parse('-hda a.img -cdrom b.iso -fda c.img')), [
    'ide0 disk a.img',
    'ide2 cdrom b.iso',
    'floppy0 disk c.img',
  ]);
  assert.deepEqual(places(parse('-drive file=a -drive file=b -drive if=floppy,file=c -drive file=d,index=1')), [
    'ide0 disk a',
    'ide2 disk b',
    'floppy0 disk c',
    'ide1 disk d',
  ]);
  assert.deepEqual(places(parse('-hda a')), ['ide0 disk a', 'ide2 cdrom null', 'floppy0 disk null']);
  assert.deepEqual(places(parse('-nodefaults -hda a')), ['ide0 disk a']);
  assert.deepEqual(places(withKernel('-hda a')), ['ide0 disk a']);
});

test('drives: properties, devices, boot order', () => {
  const [first] = parse('-drive file=a,,b,format=raw,if=ide,media=cdrom,bus=1,unit=1,serial=x').drives;
  assert.deepEqual(first!.config, {
    id: null,
    interface: 'ide',
    index: 3,
    media: 'cdrom',
    file: 'a,b',
    format: 'raw',
    block: {},
    node: null,
    writeThrough: false,
    readError: 'report',
    writeError: 'report',
    readOnly: true,
    snapshot: false,
    serial: 'x',
    bootIndex: null,
  });
  const line = parse('-nodefaults -drive if=none,id=d,file=a -device ide-hd,drive=d,bus=ide.1,bootindex=2');
  assert.deepEqual(line.devices[0]!.config, { driver: 'ide-hd', drive: 'd', bus: 'ide.1', bootindex: '2' });
  assert.equal(parse('-hda a -snapshot').drives[0]!.config.snapshot, true);
  assert.deepEqual(parse('-boot d -boot menu=on,splash-time=100').boot, {
    order: 'd',
    once: null,
    menu: true,
    splashTime: 100,
    rebootTimeout: null,
  });
});

test('drives: options of block nodes, and nodes by themselves', () => {
  const [first] = parse('-drive file=a,cache=directsync,discard=unmap,file.locking=off,werror=stop').drives;
  const { block, writeThrough, writeError } = first!.config;
  const options = { 'cache.direct': true, 'cache.no-flush': false, discard: 'unmap', 'file.locking': 'off' };
  assert.deepEqual({ block, writeThrough, writeError }, { block: options, writeThrough: true, writeError: 'stop' });
  const line = parse('-blockdev qcow2,node-name=n,file.driver=file,file.filename=a -device ide-hd,drive=n');
  assert.deepEqual(line.blockdevs[0]!.options, { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: 'a' } });
  assert.deepEqual([line.drives[0]!.config.node, line.drives[0]!.config.id], ['n', 'n']);
  assert.deepEqual(parse('-object throttle-group,id=g,x-iops-total=5').throttleGroups, { g: { 'iops-total': '5' } });
  assert.deepEqual(parse('-object secret,id=s,data=YWI=,format=base64').secrets['s'], Uint8Array.of(97, 98));
});

test('a Q35 has six places for drives, one on each bus, and no floppy drive', () => {
  const places = (text: string): string[] =>
    parse(text).drives.map(({ config: { interface: kind, index } }) => `${kind}${index}`);
  assert.equal(parse('-M q35').machine, 'q35');
  assert.equal(parse('-machine pc-q35-7.2,accel=tcg').machine, 'q35');
  assert.equal(parse('-M pc').machine, 'pc');
  assert.deepEqual(places('-M q35 -hda a'), ['ide0', 'ide2']);
  assert.deepEqual(places('-drive if=none,id=d,file=a -device ide-hd,drive=d,bus=ide.5 -M q35'), ['none0']);
  assert.throws(() => parse('-M q35 -drive file=a,index=6'), /ide has no drive 6/);
});

test('devices and objects as JSON, as management writes them', () => {
  const { devices } = parseCommandLine([
    ...['-object', '{"qom-type":"rng-random","id":"objrng0","filename":"/dev/urandom"}'],
    ...['-device', '{"driver":"virtio-rng-pci","rng":"objrng0","id":"rng0","bus":"pci.0","addr":"0x7"}'],
  ]);
  assert.deepEqual(devices[0]!.config, { driver: 'virtio-rng-pci', rng: 'objrng0', id: 'rng0', bus: 'pci.0', addr: '0x7' });
  assert.throws(() => parse('-object rng-egd,id=x'), /object "rng-egd" is not known/);
  assert.throws(() => parse('-device {x'), /-device \{x: .*JSON/);
});

test('devices: their drives, and what they say of errors', () => {
  const { drives, devices } = parse('-drive if=none,id=d,file=a -device ide-cd,drive=d,bus=ide.1,werror=stop -device ahci,id=x');
  assert.deepEqual(
    devices.map(({ config }) => config.driver),
    ['ide-cd', 'ahci'],
  );
  const { media, readOnly, writeError } = drives[0]!.config;
  assert.deepEqual({ media, readOnly, writeError }, { media: 'cdrom', readOnly: true, writeError: 'stop' });
});

test('drives: one line says what is wrong', () => {
  const cases: [string, RegExp][] = [
    ['-hda a -drive file=b,index=0', /^Error: -drive file=b,index=0: that place is taken by -hda a$/],
    ['-drive file=b,index=4', /ide has no drive 4/],
    ['-drive file=b,format=zip', /format=zip is not known/],
    ['-drive file=b,if=xen', /if=xen is not known/],
    ['-drive file=b,cache=x', /cache=x is not known/],
    ['-drive file=b,werror=x', /werror=x is not known/],
    ['-blockdev {x', /Could not parse the JSON/],
    ['-fda a -fdb b -drive if=floppy,file=c', /there is no free place for another floppy drive/],
    ['-boot x', /boot devices are the letters/],
  ];
  for (const [text, expected] of cases) assert.throws(() => parse(text), expected, text);
});
