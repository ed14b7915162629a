#!/usr/bin/env bash
# Make .venv with everything in it and build faigfast there; do nothing where nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

torch_to_install=2.13.0
python=${PYTHON:-python3}
venv=.venv
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_RETRIES=1

say() { printf 'faigfast: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }
pip() { "$venv/bin/python" -m pip "$@"; }
current() { [ -f "$venv/$1" ] && [ "$(cat "$venv/$1")" = "$2" ]; }
has_torch() {
    "$1" -c 'import sys, torch
sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10))' 2>/dev/null
}

if [ -n "${PYTHON:-}" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    command -v "$python" >/dev/null || stop "there is no '$python'; set PYTHON to a Python >= 3.10"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        stop "'$python' is $("$python" --version 2>&1); expected Python >= 3.10, set PYTHON to one"
    # The prefix tells apart two virtual environments of one interpreter.
    interpreter=$("$python" -c 'import os, sys
print(sys.version, *map(os.path.realpath, (sys.executable, sys.prefix)), sep="\n")')
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    if [ -n "$(ls -A "$venv" 2>/dev/null)" ] && [ ! -f "$venv/python.stamp" ]; then
        stop "$venv has no working pip and was not made here; put pip into it or move it away"
    fi
    say "making $venv with $("$python" --version)"
    outer=()
    if has_torch "$python"; then outer=(--system-site-packages); fi
    mkdir -p "$venv"
    find "$venv" -mindepth 1 -delete
    echo "$interpreter" >"$venv/python.stamp" # first, so that half an environment is known as ours
    "$python" -m venv ${outer[@]+"${outer[@]}"} "$venv" ||
        stop "'$python -m venv' failed; it needs the modules venv and ensurepip" \
            "(on Debian and Ubuntu the package python3-venv)"
    # The copy that venv brings on older Pythons is too old and would hide an outer one.
    pip uninstall --quiet --yes setuptools >/dev/null 2>&1 || true
    if [ ${#outer[@]} -gt 0 ] && ! has_torch "$venv/bin/python"; then
        # $python lives in a virtual environment itself, which venv does not look into.
        "$python" -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))' \
            >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"
    fi
elif [ -n "${PYTHON:-}" ] && ! current python.stamp "$interpreter"; then
    stop "$venv was not made here with '$PYTHON'; remove $venv to change, or leave PYTHON out"
fi

# A stamp holds the checksums of what its step was done from.
packages=$(cksum pyproject.toml)
sources=$(find csrc setup.py faigfast/version.py -type f -exec cksum {} + | sort
    echo "${FAIGFAST_BUILD:-auto} ${CC:-} ${CXX:-}")

if ! current packages.stamp "$packages"; then
    rm -f "$venv/packages.stamp"
    if ! has_torch "$venv/bin/python"; then
        say "no torch >= 2.10 here: installing torch $torch_to_install, which takes a while"
        pip install "torch==$torch_to_install" numpy || stop "torch could not be installed"
    fi
    "$venv/bin/python" -c 'import torch; print(f"torch=={torch.__version__}")' >"$venv/torch.txt"
    say "installing faigfast with all its extras"
    # setuptools and pybind11 first: the build below uses those, and so needs no network later.
    if pip install --quiet -c "$venv/torch.txt" 'setuptools>=77' 'pybind11>=2.13' wheel &&
        pip install --quiet -c "$venv/torch.txt" --no-build-isolation -e '.[dev]'; then
        echo "$packages" >"$venv/packages.stamp"
    else
        say "the extras could not be installed; going on with what is here"
        pip install --quiet --no-build-isolation --no-deps -e . || stop "faigfast could not be built"
    fi
    echo "$sources" >"$venv/sources.stamp"
elif ! current sources.stamp "$sources"; then
    say "building faigfast"
    pip install --quiet --no-build-isolation --no-deps -e . || stop "faigfast could not be built"
    echo "$sources" >"$venv/sources.stamp"
else
    exit 0
fi
say "extension $("$venv/bin/python" -c 'from faigfast.backend.cpu import extension; print(extension.describe())')"
