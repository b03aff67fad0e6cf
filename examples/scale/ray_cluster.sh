#!/bin/sh
# A Ray cluster of your own: this on one machine; on every other one `ray start --address=HEAD:6379` before it.
# Whoever reaches the ports of a cluster may run anything on it: keep them behind a firewall, or set RAY_AUTH_MODE=token.
set -eu
ray start --head --port=6379
RAY_ADDRESS=127.0.0.1:6379 robustbench-local run grid=grid.yaml executor=ray timeout=30m "$@" || code=$?
ray stop
exit "${code:-0}"
