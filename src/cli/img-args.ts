/** Command lines of the image tool: options among arguments, as getopt_long takes them. */

export const PROGRAM = 'virelay-img';

/** What goes wrong with a command; `status` is the exit status. */
export class CommandError extends Error {
  readonly status: number;

  constructor(message: string, status = 1) {
    super(message);
    this.status = status;
  }
}

/** A command line that is not understood. */
export const usage = (why: string): CommandError => new CommandError(`${why}\nTry '${PROGRAM} --help' for more information`);

export interface Arguments {
  /** Options by name, every value in the order given; '' for those without. */
  readonly options: ReadonlyMap<string, readonly string[]>;
  readonly rest: readonly string[];
}

/**
 * @param short letters, with a colon after those that take a value
 * @param long names, with `=` after those that take a value
 * @throws CommandError
 */
export function parseArguments(args: readonly string[], short: string, long: readonly string[]): Arguments {
  const options = new Map<string, string[]>();
  const rest: string[] = [];
  const put = (name: string, value: string): void => {
    const values = options.get(name) ?? [];
    values.push(value);
    options.set(name, values);
  };
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === '--') {
      rest.push(...args.slice(i + 1));
      break;
    }
    if (arg.startsWith('--')) i += longOption(args, i, long, put);
    else if (arg.startsWith('-') && arg !== '-') i += shortOptions(args, i, short, put);
    else rest.push(arg);
  }
  return { options, rest };
}

type Put = (name: string, value: string) => void;

/** @returns how many further arguments were used */
function longOption(args: readonly string[], at: number, long: readonly string[], put: Put): number {
  const arg = args[at]!;
  const equals = arg.indexOf('=');
  const name = equals < 0 ? arg.slice(2) : arg.slice(2, equals);
  const known = [...long, 'help', 'object=', 'image-opts'];
  const takes = known.includes(`${name}=`);
  if (!takes && !known.includes(name)) throw usage(`unrecognized option '${arg}'`);
  if (!takes) {
    put(name, '');
    return 0;
  }
  if (equals >= 0) {
    put(name, arg.slice(equals + 1));
    return 0;
  }
  if (args[at + 1] === undefined) throw usage(`missing argument for option '${arg}'`);
  put(name, args[at + 1]!);
  return 1;
}

function shortOptions(args: readonly string[], at: number, short: string, put: Put): number {
  const arg = args[at]!;
  for (let i = 1; i < arg.length; i++) {
    const letter = arg[i]!;
    const place = `${short}h`.indexOf(letter);
    if (place < 0 || letter === ':') throw usage(`unrecognized option '${arg}'`);
    if (short[place + 1] !== ':') {
      put(letter, '');
      continue;
    }
    if (i + 1 < arg.length) {
      put(letter, arg.slice(i + 1));
      return 0;
    }
    if (args[at + 1] === undefined) throw usage(`missing argument for option '${arg}'`);
    put(letter, args[at + 1]!);
    return 1;
  }
  return 0;
}

/** The last value of an option, null if it was not given. */
export const lastOf = ({ options }: Arguments, name: string): string | null => options.get(name)?.at(-1) ?? null;
export const has = ({ options }: Arguments, name: string): boolean => options.has(name);
