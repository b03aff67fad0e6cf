#!/bin/sh
# One machine: one worker for each device, or for each core; a cell may take half an hour. From another terminal:
# robustbench-local status results/grid --watch
set -eu
exec robustbench-local run grid=grid.yaml executor=local timeout=30m "$@"
