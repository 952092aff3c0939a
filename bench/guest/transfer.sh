# Disks or the network; prints RESULT lines. BIN: folder of the programs, ONLY: disk or network.
if [ "$ONLY" = disk ]; then
  # DIRECT: how to go past the page cache, or nothing; MIB: size of each disk; and for each of RAW and QCOW2
  # a disk to read and one to write.
  for kind in raw qcow2; do
    if [ $kind = raw ]; then from=$RAW to=$RAW_OUT; else from=$QCOW2 to=$QCOW2_OUT; fi
    $BIN/transfer read $kind-read $from $MIB $DIRECT
    $BIN/transfer read $kind-read-cached $from $MIB
    $BIN/transfer write $kind-write $to $MIB $DIRECT
    $BIN/transfer write $kind-write-cached $to $MIB
    $BIN/transfer random $kind-random-4k $from $MIB 30000
  done
else
  # HOST and PORT of `transfer serve`.
  $BIN/transfer receive host-to-guest $HOST $PORT 256
  $BIN/transfer send guest-to-host $HOST $PORT 256
  $BIN/transfer rounds round-trips $HOST $PORT 2000
fi
