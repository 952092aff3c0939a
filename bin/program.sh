# Sourced by the launchers, which have set $root.
# What is published has no sources, only what scripts/build.ts made of them; VIRELAY_BUILT=1 has a checkout use that, too.
program() {
  if [ -d "$root/src" ] && [ -z "$VIRELAY_BUILT" ]; then
    echo "$root/src/cli/$1.ts"
  else
    echo "$root/dist/app/$1.js"
  fi
}
