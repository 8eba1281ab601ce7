#!/bin/sh
# What a GPU does with 32 px images in 8 minutes: sh benchmarks/gpu_images.sh --data FOLDER [--seconds 480] [--out FOLDER]
# With --tiny on a CPU, in tiny sizes: that it runs, not how well.
cd "$(dirname "$0")/.." || exit 1
PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" benchmarks/gpu_images.py "$@"
