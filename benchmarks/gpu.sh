#!/bin/sh
# All figures of a GPU that docs/speed.md asks for, in at most 8 minutes: sh benchmarks/gpu.sh
# With --tiny on a CPU, in tiny sizes: that it runs, not how fast.
cd "$(dirname "$0")/.." || exit 1
PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" benchmarks/gpu.py "$@"
