# Runs the suite and the busybox jobs; prints RESULT lines. BIN: folder of the programs and of
# busybox, TMP: a folder to write in, ONLY: a group, or nothing for all.
wanted() { [ -z "$ONLY" ] || [ "$ONLY" = "$1" ]; }

$BIN/suite $ONLY
if wanted integer32; then $BIN/suite32; fi

if [ "$ONLY" = python ]; then
  # CPython asks for random numbers when it starts, and the first to ask waits until the kernel has gathered enough for them: a
  # second in one emulator, nothing in another, by how much their clocks jitter. That is not what is measured.
  $BIN/busybox head -c 1 /dev/random >/dev/null
  # With its own loader and libraries, so that it is the same wherever it runs.
  PYTHONHOME=$BIN/python $BIN/measure python program \
    $BIN/python/ld-linux-x86-64.so.2 --library-path $BIN/python $BIN/python/python3 -S -B $BIN/program.py
fi

if wanted busybox; then
  $BIN/generate 60000 >$TMP/lines
  export BIN TMP
  measure="$BIN/measure busybox"
  $measure sh-loop $BIN/busybox sh -c \
    'i=0; s=0; while [ $i -lt 150000 ]; do s=$((s+i*3)); i=$((i+1)); done; echo $s'
  $measure sha256sum $BIN/busybox sh -c \
    'for i in 1 2 3 4; do $BIN/busybox sha256sum <$TMP/lines; done'
  $measure gzip $BIN/busybox sh -c '$BIN/busybox gzip -c <$TMP/lines'
  $measure sort $BIN/busybox sh -c '$BIN/busybox sort <$TMP/lines'
fi

if wanted process; then
  $BIN/measure process fork-exec-100 $BIN/spawn 100 $BIN/busybox true
fi
