#!/usr/bin/env bash
# Test with several processes:
# tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
# NNODES, NODE_RANK, MASTER_ADDR and PORT describe more than one machine.
set -euo pipefail

CONFIG=$1
CHECKPOINT=$2
PROCESSES=$3
TOOLS=$(dirname "$0")

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" \
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} \
python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$PROCESSES" \
    "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
