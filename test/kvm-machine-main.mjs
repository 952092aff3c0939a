// Runs on a host with a whole KVM (kvm-host.ts): a machine that boots Linux, is saved, goes on in another process and
// from one accelerator to the other. Says what it saw, a line each, for kvm-machine.test.ts.
import { createWriteStream, createReadStream, readFileSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { drive, Machine } from '/virelay/dist/app/index.js';

const STATE = '/tmp/state';
const DISK = '/tmp/disk';
const config = {
  accel: 'kvm',
  cpu: 'qemu64',
  memory: 160 * 2 ** 20,
  append: 'console=ttyS0 quiet panic=-1 cryptomgr.notests',
  noReboot: true,
  kernel: { name: 'vmlinuz', data: readFileSync('/virelay/kernel') },
  initrd: { name: 'initrd', data: readFileSync('/virelay/initrd') },
  drives: [drive({ interface: 'virtio', file: DISK, format: 'raw' })],
  network: {
    netdevs: [{ type: 'user', id: 'n', plan: DEFAULT_PLAN }],
    nics: [{ model: 'virtio-net-pci', id: null, netdev: 'n', mac: null, properties: {} }],
    dumps: [],
  },
};
const say = (name, value = '') => console.log(`virelay: ${name} ${value}`);

class Console {
  text = '';
  waiting = null;
  constructor(machine) {
    this.writer = machine.serial[0].writable.getWriter();
    this.read(machine.serial[0].readable);
  }
  async read(readable) {
    const decoder = new TextDecoder();
    for await (const chunk of readable) {
      this.text += decoder.decode(chunk, { stream: true });
      this.waiting?.();
    }
  }
  async see(pattern) {
    for (;;) {
      const found = pattern.exec(this.text);
      if (found !== null) {
        this.text = this.text.slice(found.index + found[0].length);
        return found;
      }
      await new Promise((resolve) => (this.waiting = resolve));
    }
  }
  // The answer of a command. What is echoed of the command itself has quotes in it.
  async ask(command) {
    await this.writer.write(new TextEncoder().encode(`${command}; echo "e"nd\n`));
    const [, answer] = await this.see(/echo "e"nd\r?\n([\s\S]*?)end\r?\n/);
    return answer.trim();
  }
}

async function first() {
  const machine = await Machine.create(config);
  const guest = new Console(machine);
  await guest.see(/READY/);
  say('uname', await guest.ask('uname -r'));
  say('network', await guest.ask('ping -c 1 -w 5 10.0.2.2 | grep -c "1 packets received"'));
  await guest.ask('echo kept-in-memory >/tmp/memory; dd if=/dev/urandom of=/dev/vda bs=64k count=16; sync');
  say('written', await guest.ask('dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum'));
  await pipeline(machine.save(), createWriteStream(STATE));
  await machine.quit();
}

async function second() {
  const machine = await Machine.restore(createReadStream(STATE), config);
  const guest = new Console(machine);
  say('memory', await guest.ask('cat /tmp/memory'));
  say('read', await guest.ask('echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum'));
  for (const accelerator of ['jit', 'kvm']) {
    await machine.setAccelerator(accelerator);
    say(accelerator, await guest.ask('cat /tmp/memory; sleep 0.1; dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum'));
  }
  await guest.writer.write(new TextEncoder().encode('poweroff -f\n'));
  say('end', JSON.stringify(await machine.ended));
}

await (process.argv[2] === 'first' ? first() : second());
