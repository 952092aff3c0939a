/** What the JavaScript engine has compiled, kept for the next start (Node.js's compile cache, see bin/node.sh). */

/**
 * Writes down what has been compiled so far. By itself, Node.js does that at the end of a thread that ends in good order,
 * when the engine has forgotten what ran only once: all that a start is.
 */
export function keepCompiled(): void {
  process.getBuiltinModule('node:module').flushCompileCache();
}
