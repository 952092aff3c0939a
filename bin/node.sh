# Sets $root, $node to a Node.js that can run this project (26 or newer), and $program to what it is to run. Sourced by the
# launchers, of which $self is one; it runs $name. They start no process that they can do without: each takes a millisecond or two.
root=${self%/*}/..
# The project's own comes first: asking another one for its version takes as long as a small image does.
node=
for one in "$root"/node_modules/node-*/bin/node; do
  [ -x "$one" ] && node=$one
done
if [ -z "$node" ]; then
  case $(node --version 2>/dev/null) in
    v2[6-9].* | v[3-9][0-9].* | v[1-9][0-9][0-9].*) node=node ;;
  esac
fi
if [ -z "$node" ]; then
  echo "${0##*/}: Node.js 26 or newer is needed ('npm ci' in $root brings one along)" >&2
  exit 1
fi
# Loading is faster when Node.js keeps what it compiled.
if [ -z "$NODE_COMPILE_CACHE" ] && [ -n "${XDG_CACHE_HOME:-$HOME}" ]; then
  export NODE_COMPILE_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/virelay/compiled"
fi
# What is published has no sources, only what scripts/build.ts made of them; VIRELAY_BUILT=1 has a checkout use that, too.
if [ -d "$root/src" ] && [ -z "$VIRELAY_BUILT" ]; then
  program=$root/src/cli/$name.ts
else
  program=$root/dist/app/$name.js
fi
