#!/bin/sh
# Measure a machine with a GPU, each part in at most 150 s:
#   bench/gpu.sh [steps] [large] [fed] [stop] [tests]
# A part's lines are also in the file PART.log of the folder $OUT, by default bench/gpu. A part that
# ends early leaves the lines that it has. Wheels that the machine lacks may lie in bench/wheels.
# Tests run without torch.compile, since it takes longer than the tiny runs that they make.
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-python3}
OUT=${OUT:-bench/gpu}
export PYTHONPATH="$PWD"
export PYTHONUNBUFFERED=1
mkdir -p "$OUT"
if ls bench/wheels/*.whl > /dev/null 2>&1; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps bench/wheels/*.whl
fi
[ $# -gt 0 ] || set -- steps large fed stop tests
for part; do
    export TORCH_COMPILE_DISABLE=0
    if [ "$part" = tests ]; then
        # -v names each failure when it happens.
        export TORCH_COMPILE_DISABLE=1
        set -- -m pytest -v --tb=line -n 8 -m "not (slow or smoke or mlflow or postgres or chromium)" \
            tests/masking tests/models tests/training tests/stages
    else
        set -- bench/gpu.py "$part"
    fi
    timeout -k 5 150 "$PYTHON" "$@" > "$OUT/$part.log" 2>&1
    echo "$part: exit $?"
    tail -n 20 "$OUT/$part.log"
done
