#!/bin/sh
# Any two machines, or terminals, that share this folder: each does a share, and needs to know of nothing else.
# ./terminals.sh 0/2 here and ./terminals.sh 1/2 there
set -eu
exec robustbench-local run grid=grid.yaml worker="$1"
