#!/bin/sh
# Measure steps, reading and a resumed run on a machine with a GPU, in at most eight minutes:
#   bench/gpu.sh [steps] [fed] [day] [--tiny]
# Wheels of packages that the machine lacks may lie in bench/wheels.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONPATH="$PWD"
"$PYTHON" -c 'import av, pydantic' 2> /dev/null ||
    "$PYTHON" -m pip install --quiet --no-index --find-links bench/wheels av pydantic
exec timeout 480 "$PYTHON" bench/gpu.py "$@"
