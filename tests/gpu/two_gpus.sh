#!/usr/bin/env bash
# NOT YET RUN: no machine with two GPUs was there. What needs two of them: NCCL syncs while generating, an engine over
# two GPUs, a learner sharded over two with checkpoint, resume and its memory against the plan. `two_gpus.sh --help`.
# On fewer than two GPUs it refuses. Installs nothing, needs no network.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/first_hour.sh" --program two_gpus "$@"
