/** What the JavaScript engine has compiled, kept for the next start: Node.js's compile cache (also see bin/node.sh). */
import { homedir } from 'node:os';
import { join } from 'node:path';

const FOLDER = 'NODE_COMPILE_CACHE';

/**
 * @param entry a thread's module
 * @returns the environment of the thread, which has it keep what is compiled there, also where the program does not; but
 *   nothing of sources, which change
 */
export function keepingCompiled(entry: URL): NodeJS.ProcessEnv {
  const { env } = process;
  if (!entry.pathname.endsWith('.js') || env[FOLDER] !== undefined) return env;
  return { ...env, [FOLDER]: join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'virelay', 'compiled') };
}

/**
 * Writes down what has been compiled so far. By itself, Node.js does that at the end of a thread that ends in good order,
 * when the engine has forgotten what ran only once: all that a start is.
 */
export function keepCompiled(): void {
  process.getBuiltinModule('node:module').flushCompileCache();
}
