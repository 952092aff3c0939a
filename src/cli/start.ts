/** `npm start`: fetches a guest once and boots it to a shell on the terminal. */
import { openStdio } from '#host';
import { PROMPT, shellInitramfs } from '../guest/initramfs.ts';
import { Machine } from '../index.ts';
import { finish, guardTerminal, handleSignals, leave, quitter, report } from './foreground.ts';
import { guestFiles } from './guest-files.ts';
import { terminalProgress } from './progress.ts';
import { connect, type Hold } from './terminal.ts';

const NAME = 'virelay';
const MEMORY = 512 * 2 ** 20;

function commandLine(): string {
  const { columns, rows, isTTY } = process.stdout;
  // The kernel hands words it does not know to /init as environment variables.
  const size = isTTY && columns > 0 && rows > 0 ? ` COLUMNS=${columns} LINES=${rows}` : '';
  return `console=ttyS0 quiet panic=-1${size}`;
}

/**
 * Kernels drop what arrives before they have opened the port, so nothing typed (or piped) is sent
 * before the guest's shell asks for it.
 */
function untilPrompted(): Hold {
  const { promise, resolve } = Promise.withResolvers<void>();
  const decoder = new TextDecoder();
  let tail = '';
  const see = (data: Uint8Array): void => {
    tail = (tail + decoder.decode(data, { stream: true })).slice(-256);
    if (tail.includes(PROMPT)) resolve();
  };
  return { see, ready: promise };
}

async function start(): Promise<number> {
  const guest = await guestFiles(terminalProgress());
  const machine = await Machine.create({
    memory: MEMORY,
    startPaused: true,
    append: commandLine(),
    noReboot: true,
    kernel: { name: 'vmlinuz', data: guest.kernel },
    initrd: { name: 'initramfs', data: shellInitramfs(guest) },
  });
  const quit = quitter(machine);
  handleSignals(NAME, quit);
  if (process.stdin.isTTY) report(NAME, 'Ctrl-A X leaves, Ctrl-A H helps');
  const stdio = openStdio({ signals: false });
  const say = (text: string): void => report(NAME, text);
  const output = connect(machine.serial[0]!, stdio, { exit: quit, save: null, say }, untilPrompted());
  await machine.start();
  const status = await finish(machine, [stdio], [output]);
  // A guest that has crashed resets, by "panic=-1".
  return (await machine.ended).event === 'poweroff' ? status : 1;
}

guardTerminal(NAME);
try {
  leave(await start());
} catch (error) {
  report(NAME, (error as Error).message.split('\n')[0]!);
  leave(1);
}
