#!/bin/sh
# A Ray cluster of your own: this on one machine, after `ray start --address=HEAD:6379` on each other one has found it.
# Whoever reaches the ports of a cluster may run anything on it, unless it asks for a token, which is the same file on all
# machines: `ray get-auth-token --generate` makes it. `ray stop` ends what Ray runs on a machine.
set -eu
ray status --address=127.0.0.1:6379 >/dev/null 2>&1 || ray start --head --port=6379
RAY_ADDRESS=127.0.0.1:6379 exec robustbench-local run grid=grid.yaml executor=ray timeout=30m "$@"
