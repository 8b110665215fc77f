#!/usr/bin/env bash
# Resolve what bayeseor.def takes from conda-forge, and write it down with a digest of each package.
#
#   lock-bayeseor.sh cpu|gpu [MICROMAMBA]
#
# Reads bayeseor-<variant>.conda.in and writes bayeseor-<variant>.conda.lock, both beside this script.
# Needs micromamba (from PATH, if not named), python3, and conda-forge within reach; nothing stays
# installed. CONDA_OVERRIDE_CUDA says for which CUDA, where this machine has no GPU.
set -euo pipefail

here=$(cd -P -- "$(dirname -- "$0")" && pwd)
variant=${1:-}
case $variant in
    cpu | gpu) ;;
    *)
        sed -n '2,/^[^#]/{/^#/!d; s/^# \{0,1\}//; p}' "$0"
        [[ $variant == --help ]] || exit 2
        exit 0
        ;;
esac
micromamba=${2:-$(type -P micromamba)} ||
    { echo "${0##*/}: no micromamba; name it as the second argument" >&2; exit 3; }
[[ $variant == cpu ]] || export CONDA_OVERRIDE_CUDA=${CONDA_OVERRIDE_CUDA:-12.4}

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
MAMBA_ROOT_PREFIX=$scratch/root "$micromamba" create --yes --no-rc --platform linux-64 \
    --override-channels --channel conda-forge --prefix "$scratch/environment" \
    --file "$here/bayeseor-$variant.conda.in"

python3 - "$scratch/environment" "$variant" >"$scratch/lock" <<'END'
import json
import sys
from pathlib import Path

records = [json.loads(path.read_text()) for path in Path(sys.argv[1], "conda-meta").glob("*.json")]
print(f"# Made by lock-bayeseor.sh {sys.argv[2]} from bayeseor-{sys.argv[2]}.conda.in.")
records.sort(key=lambda record: record["name"])
for record in records:
    print(f"# sha256 {record['sha256']}  {record['fn']}")
print("@EXPLICIT")
for record in records:
    print(f"{record['url']}#{record['md5']}")
END
mv -- "$scratch/lock" "$here/bayeseor-$variant.conda.lock"
