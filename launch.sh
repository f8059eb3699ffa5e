#!/usr/bin/env bash
# Set up what is missing, then run: `./launch.sh [flags]` trains, `./launch.sh test [args]` tests, `./launch.sh check` lints.
# With no flags it trains fashion_cnn. Paths, and the runs/ it makes, are relative to where it is called.
# FDL_JAX=cpu|cuda|cuda12|tpu overrides what it finds, FDL_PYTHON which Python it takes; FDL_EXTRAS=text,audio adds those extras
# of pyproject.toml, which single experiments need (their errors name them).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

jax_kind() {
    local driver=
    if [[ -n ${FDL_JAX:-} ]]; then echo "$FDL_JAX"
    # As fdl.environment.has_tpu: v2 to v5e, and v5p, v6e and newer v5e.
    elif compgen -G "/dev/accel*" >/dev/null || compgen -G "/dev/vfio/[0-9]*" >/dev/null; then echo tpu
    elif compgen -G "/dev/nvidia[0-9]*" >/dev/null; then
        # CUDA 13 needs driver 580 or later: https://docs.jax.dev/en/latest/installation.html
        driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || true
        if [[ $driver =~ ^([0-9]+)\. && ${BASH_REMATCH[1]} -lt 580 ]]; then echo cuda12; else echo cuda; fi
    else echo cpu; fi
}

in_place() { # An environment that the user has activated: use that one. Conda's base is active by itself, and not for this.
    [[ -n ${VIRTUAL_ENV:-} ]] || [[ -n ${CONDA_PREFIX:-} && ${CONDA_DEFAULT_ENV:-} != base ]]
}

find_python() { # Of those with pip but without ensurepip are Colab's and Debian's.
    local candidate usable='import sys, venv, importlib.util as u
sys.exit(sys.version_info < (3, 11) or not (u.find_spec("ensurepip") or u.find_spec("pip")))'
    for candidate in ${FDL_PYTHON:-} python3.12 python3.11 python3.13 python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c "$usable" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "fdl: error: no Python 3.11 or later with venv and pip was found; install one (Debian: python3-venv) or set FDL_PYTHON" >&2
    return 2
}

# The stamp: the build of JAX, the extras ("base" for none), the checksum of pyproject.toml, the checkout.
ready() { # The builds for accelerators run on the CPU too: a login node and its compute nodes share one environment.
    local have held rest extra
    [[ -f $state ]] && read -r have held rest <"$state" && [[ $rest == "$wanted" && ($have == "$kind" || $kind == cpu) ]] || return
    for extra in ${extras//,/ }; do [[ ,$held, == *,$extra,* || ,$held, == *,dev,* ]] || return; done
}

requirements() { # What pip is to install for $kind and $extras, a line each.
    local names=${extras#base}
    names=${names#,}
    case $kind in cuda | tpu) names+=${names:+,}$kind ;; esac
    echo ".${names:+[$names]}"
    if [[ $kind == cuda12 ]]; then echo "jax[cuda12]"; fi
}

keep_what_is_there() { # What another start has asked for stays: an environment only grows.
    local have held rest extra
    read -r have held rest <"$state" || return 0
    if [[ $rest != *" $root" || ! $held =~ ^[a-z,]+$ ]]; then return; fi
    if [[ $kind == cpu && $have =~ ^(cuda|cuda12|tpu)$ ]]; then kind=$have; fi
    for extra in ${held//,/ }; do [[ ,$extras, == *,$extra,* ]] || extras+=,$extra; done
}

set_up() { # Under the lock, in the checkout. Until it ends the stamp says "unfinished": a start that finds that knows of one that was killed.
    local found again=() packages
    if ready; then return; fi # another start has done it meanwhile
    if [[ -f $state && $(<"$state") == unfinished ]]; then
        if in_place; then again=(--force-reinstall)
        else find .venv -mindepth 1 -maxdepth 1 ! -name "${lock##*/}" -exec rm -rf {} +; fi
    fi
    if [[ -f $state ]]; then keep_what_is_there; fi
    echo "fdl: setting up ($kind); this is done once" >&2
    echo unfinished >"$state"
    trap 'rm -f "$state"' ERR # pip has put back what was there: nothing is half-done
    if ! in_place && [[ ! -x $python ]]; then
        found=$(find_python)
        "$found" -m venv .venv &>/dev/null || {
            "$found" -m venv --without-pip .venv
            "$found" -m pip --python "$python" install --quiet --disable-pip-version-check pip
        }
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "fdl: error: the environment in use has a Python before 3.11; leave it (deactivate) and start again" >&2
        return 2
    fi
    mapfile -t packages < <(requirements)
    "$python" -m pip install --quiet --disable-pip-version-check "${again[@]}" --editable "${packages[@]}"
    echo "$kind $extras $wanted" >"$state"
}

environment=$root/.venv
if in_place; then environment=${VIRTUAL_ENV:-$CONDA_PREFIX}; fi
python=$environment/bin/python state=$environment/.fdl-setup lock=$environment/.fdl-setup.lock
wanted="$(cksum <"$root/pyproject.toml") $root"
kind=$(jax_kind)
extras=base${FDL_EXTRAS:+,$FDL_EXTRAS}
case " $* " in
    " test "* | " check "*) extras+=,dev ;;
    *" --mode=sweep "*) extras+=,tune ;;
esac
case $kind in
    cpu | cuda | cuda12 | tpu) ;;
    *) echo "fdl: error: FDL_JAX=$kind is none of cpu, cuda, cuda12, tpu" >&2; exit 2 ;;
esac
if ! ready; then
    mkdir -p "$environment"
    ( # The lock ends with this shell. All tasks of a job may start at once on one shared disk.
        if command -v flock >/dev/null && ! flock --nonblock 9; then
            echo "fdl: another start is setting up; waiting for it" >&2
            flock 9 || echo "fdl: warning: $environment takes no locks; start one process first" >&2
        fi
        cd "$root"
        set -E
        set_up
    ) 9>>"$lock"
fi

if [[ ${1:-} == check ]]; then
    cd "$root"
    "$python" -m ruff check --quiet .
    "$python" -m ruff format --quiet --check .
    exec "$python" -m mypy --no-error-summary
fi
if [[ ${1:-} == test ]]; then
    shift
    args=()
    for arg in "$@"; do
        if [[ $arg == --slow ]]; then args+=(-m "slow or not slow"); else args+=("$arg"); fi
    done
    # A file of tests to each of two processes: half the wait, and what a file's tests share is still made once. In the
    # order of their names, for by default files of few tests come last, and the longest tests stand in such.
    [[ $# -gt 0 && $1 != --slow ]] || args+=(-n 2 --dist loadfile --no-loadscope-reorder)
    cd "$root"
    exec "$python" -m pytest "${args[@]}"
fi
[[ $# -gt 0 ]] || set -- --experiment=fashion_cnn
# This checkout's code, wherever it is called from; and -P: a json.py that lies there must not stand in for Python's own.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
exec "$python" -P -m fdl.main "$@"
