#!/usr/bin/env bash
# Set up what is missing, then run: `./launch.sh [flags]` trains, `./launch.sh test [args]` tests.
# With no flags it trains fashion_cnn. FDL_JAX=cpu|cuda|tpu overrides what it finds.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$root"

jax_kind() {
    if [[ -n ${FDL_JAX:-} ]]; then echo "$FDL_JAX"
    elif compgen -G "/dev/accel*" >/dev/null || [[ -n ${TPU_NAME:-}${COLAB_TPU_ADDR:-} ]]; then echo tpu
    elif compgen -G "/dev/nvidia[0-9]*" >/dev/null; then echo cuda
    else echo cpu; fi
}

in_place() { # Colab, or an environment that the user has activated: use that one.
    [[ -n ${VIRTUAL_ENV:-}${CONDA_PREFIX:-}${COLAB_RELEASE_TAG:-} ]]
}

find_python() {
    local candidate
    for candidate in ${FDL_PYTHON:-} python3.12 python3.11 python3.13 python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "fdl: error: no Python 3.11 or later with venv and pip was found; install one (Debian: python3-venv) or set FDL_PYTHON" >&2
    return 2
}

if in_place; then python=python3; state=${VIRTUAL_ENV:-${CONDA_PREFIX:-/usr/local}}/.fdl-setup
else python=$root/.venv/bin/python; state=$root/.venv/.fdl-setup; fi

extras=dev
kind=$(jax_kind)
[[ $kind == cpu ]] || extras=dev,$kind
stamp="$extras $(cksum <pyproject.toml) $root"

if [[ ! -f $state || $(<"$state") != "$stamp" ]]; then
    if ! in_place && [[ ! -x $python ]]; then
        found=$(find_python) || exit 2
        "$found" -m venv .venv
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "fdl: error: the environment in use has a Python before 3.11; leave it (deactivate) and start again" >&2
        exit 2
    fi
    echo "fdl: setting up ($kind); this is done once" >&2
    "$python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
    echo "$stamp" >"$state"
fi

if [[ ${1:-} == test ]]; then
    shift
    args=()
    for arg in "$@"; do
        if [[ $arg == --slow ]]; then args+=(-m "slow or not slow"); else args+=("$arg"); fi
    done
    # A file of tests to each of two processes: half the wait, and what a file's tests share is still made once.
    [[ $# -gt 0 && $1 != --slow ]] || args+=(-n 2 --dist loadfile)
    exec "$python" -m pytest "${args[@]}"
fi
[[ $# -gt 0 ]] || set -- --experiment=fashion_cnn
exec "$python" -m fdl.main "$@"
