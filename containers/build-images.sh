#!/usr/bin/env bash
# Build the images of containers/*.def into valska's image store.
#
#   build-images.sh [TOOL...]    all definitions here, or the named ones
#
# Unless it is named, a definition is passed over while a lock of it is not made yet.
#
# An image that is in the store already is left alone. Where no container registry answers, the
# image is built on a Debian base made from this machine's own package archives, and its record
# says so.
set -euo pipefail

here=$(cd -P -- "$(dirname -- "$0")" && pwd)
base=
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT

case ${1:-} in
    -h | --help)
        sed -n '2,/^[^#]/{/^#/!d; s/^# \{0,1\}//; p}' "$0"
        exit 0
        ;;
esac

make_base() {
    base=$scratch/debian
    echo "No container registry answers: making a Debian base from this machine's package archives."
    "$here/bootstrap-base.sh" "$base"
}

# An image of this definition, on whatever base, is good enough. (doctor's exit code speaks of more
# than images.)
is_there() {
    { valska doctor --json 2>/dev/null || true; } | python3 -c '
import json
import sys

checks = {check["name"]: check["status"] for check in json.load(sys.stdin)["checks"]}
sys.exit(checks.get(f"image of {sys.argv[1]}") != "ok")
' "$(basename "$1" .def)"
}

build() {
    local code=0
    if is_there "$1"; then
        echo "The image of $(basename "$1" .def) is in the store."
        return
    fi
    valska build "$1" 2> >(tee "$scratch/stderr" >&2) || code=$?
    wait
    if [[ $code -ne 3 ]] || ! grep -q "cannot be fetched" "$scratch/stderr"; then return "$code"; fi
    [[ -n $base ]] || make_base
    valska build "$1" --base "$base"
}

# Whether everything that the definition needs is locked.
is_locked() {
    ! grep -qs '^# Not made yet' "${1%.def}"-*.lock
}

if (($#)); then definitions=("${@/#/"$here/"}") && definitions=("${definitions[@]/%/.def}"); else definitions=("$here"/*.def); fi
for definition in "${definitions[@]}"; do
    if (($# == 0)) && ! is_locked "$definition"; then
        echo "Not built: $(basename "$definition"), since a lock of it is not made yet."
        continue
    fi
    build "$definition"
done
