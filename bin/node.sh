# Sets $node to a Node.js that can run this project: 26 or newer. Sourced by the launchers.
root=$(dirname "$(dirname "$(readlink -f "$0")")")
node=
case $(node --version 2>/dev/null) in
  v2[6-9].* | v[3-9][0-9].* | v[1-9][0-9][0-9].*) node=node ;;
  *)
    for one in "$root"/node_modules/node-*/bin/node; do
      [ -x "$one" ] && node=$one
    done
    ;;
esac
if [ -z "$node" ]; then
  echo "$(basename "$0"): Node.js 26 or newer is needed ('npm ci' in $root brings one along)" >&2
  exit 1
fi
# Loading is faster when Node.js keeps what it compiled.
if [ -z "$NODE_COMPILE_CACHE" ] && [ -n "${XDG_CACHE_HOME:-$HOME}" ]; then
  export NODE_COMPILE_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/virelay/compiled"
fi
# Options of the machine's process: V8's optimiser gets the cores that the guest and its compiler leave,
# or it takes turns with them. Nothing in translated code is worth inlining, and looking for it costs every
# entry of code that is not optimised yet.
cores=$(nproc 2>/dev/null || echo 2)
pool=$((cores > 6 ? 4 : cores > 3 ? cores - 2 : 1))
options="--no-warnings --v8-pool-size=$pool --no-wasm-inlining --no-wasm-inlining-call-indirect"
. "$root/bin/program.sh"
