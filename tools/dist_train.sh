#!/usr/bin/env bash
# Train with several processes: tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# NNODES, NODE_RANK, MASTER_ADDR and PORT describe more than one machine.
set -euo pipefail

CONFIG=$1
PROCESSES=$2
TOOLS=$(dirname "$0")

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" \
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} \
python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$PROCESSES" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
