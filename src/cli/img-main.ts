/** `virelay-img`: makes, looks at and converts disk images, as `qemu-img` does. Commands are loaded one at a time. */
import { CommandError, usage } from './img-args.ts';
import { print, report } from './img-open.ts';

type Command = (args: readonly string[]) => Promise<number>;

const COMMANDS: Record<string, () => Promise<Command>> = {
  amend: () => import('./img-amend.ts').then(({ amendCommand }) => amendCommand),
  bench: () => import('./img-bench.ts').then(({ benchCommand }) => benchCommand),
  bitmap: () => import('./img-amend.ts').then(({ bitmapCommand }) => bitmapCommand),
  check: () => import('./img-check.ts').then(({ checkCommand }) => checkCommand),
  commit: () => import('./img-chain.ts').then(({ commitCommand }) => commitCommand),
  compare: () => import('./img-compare.ts').then(({ compareCommand }) => compareCommand),
  convert: () => import('./img-convert.ts').then(({ convertCommand }) => convertCommand),
  create: () => import('./img-create.ts').then(({ createCommand }) => createCommand),
  dd: () => import('./img-dd.ts').then(({ ddCommand }) => ddCommand),
  info: () => import('./img-info.ts').then(({ infoCommand }) => infoCommand),
  map: () => import('./img-map.ts').then(({ mapCommand }) => mapCommand),
  measure: () => import('./img-measure.ts').then(({ measureCommand }) => measureCommand),
  rebase: () => import('./img-chain.ts').then(({ rebaseCommand }) => rebaseCommand),
  resize: () => import('./img-create.ts').then(({ resizeCommand }) => resizeCommand),
  snapshot: () => import('./img-check.ts').then(({ snapshotCommand }) => snapshotCommand),
};

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) throw usage('Not enough arguments');
  if (['-h', '--help', '-V', '--version'].includes(name) || rest.includes('--help') || rest.includes('-h')) {
    const { helpText } = await import('./img-help.ts');
    print(helpText(/V|version/.test(name) ? 'version' : 'help'));
    return 0;
  }
  if (name.startsWith('-')) throw usage(`unrecognized option '${name}'`);
  if (!Object.hasOwn(COMMANDS, name)) throw usage(`Command not found: ${name}`);
  return (await COMMANDS[name]!())(rest);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  report((error as Error).message);
  process.exitCode = error instanceof CommandError ? error.status : 1;
}
