/** `virelay`: everything that is not an emulator of its own name. Commands are loaded one at a time. */
import { readFileSync } from 'node:fs';

type Command = (args: readonly string[]) => Promise<number>;

const COMMANDS: Record<string, { readonly help: string; readonly load: () => Promise<Command> }> = {
  doctor: {
    help: 'what this host can do, and what to do about the rest (--json)',
    load: () => import('./doctor.ts').then(({ doctorCommand }) => doctorCommand),
  },
};

function usage(): string {
  const rows = Object.entries(COMMANDS).map(([name, { help }]) => `  ${name.padEnd(10)} ${help}`);
  return ['usage: virelay COMMAND [OPTION...]', '', ...rows, '', 'virelay --version tells the version.', ''].join('\n');
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return `virelay version ${(JSON.parse(text) as { version: string }).version}\n`;
}

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) {
    process.stderr.write(usage());
    return 2;
  }
  if (['-h', '--help', 'help'].includes(name)) {
    process.stdout.write(usage());
    return 0;
  }
  if (['-V', '--version'].includes(name)) {
    process.stdout.write(version());
    return 0;
  }
  if (!Object.hasOwn(COMMANDS, name)) throw new Error(`there is no command '${name}'; virelay --help lists them`);
  return (await COMMANDS[name]!.load())(rest);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`virelay: ${(error as Error).message}\n`);
  process.exitCode = 2;
}
