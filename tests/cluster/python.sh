#!/usr/bin/env bash
# Make a virtual environment with a Python that valska runs on (3.11 or later).
#
#   python.sh DIRECTORY    PYTHON=… chooses the interpreter
#
# Debian splits the venv module off its Python: as root it is installed, otherwise this says how.
set -euo pipefail
# shellcheck source=tests/cluster/common.sh
source "$(dirname "$0")/common.sh"

if [[ ${1:-} == --help || $# -ne 1 ]]; then
    print_help
    exit $(($# != 1))
fi

recent_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local python
    for python in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if [[ -n $python ]] && command -v "$python" >/dev/null && recent_enough "$python"; then
            echo "$python"
            return
        fi
    done
    die "no Python 3.11 or later; install one, or name it with PYTHON=/path/to/python3"
}

python=$(find_python)
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    require_debian_root "install the venv module of $python"
    step "Installing Debian's python3-venv" bash -c 'apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv'
fi
[[ -x $1/bin/python ]] || "$python" -m venv "$1"
