#!/usr/bin/env bash
# Build the images of containers/*.def into valska's image store.
#
#   build-images.sh [TOOL...]    all definitions here, or the named ones
#
# An image that is in the store already is left alone. Where no container registry answers, the
# image is built on a Debian base made from this machine's own package archives, and its record
# says so.
set -euo pipefail

here=$(cd -P -- "$(dirname -- "$0")" && pwd)
base=

case ${1:-} in
    -h | --help)
        sed -n '2,/^[^#]/{/^#/!d; s/^# \{0,1\}//; p}' "$0"
        exit 0
        ;;
esac

make_base() {
    base=$(mktemp -d)/debian
    trap 'rm -rf -- "${base%/debian}"' EXIT
    echo "No container registry answers: making a Debian base from this machine's package archives."
    "$here/bootstrap-base.sh" "$base"
}

build() {
    local code=0
    valska build "$1" || code=$?
    [[ $code -eq 3 ]] || return "$code"
    [[ -n $base ]] || make_base
    valska build "$1" --base "$base"
}

if (($#)); then definitions=("${@/#/"$here/"}") && definitions=("${definitions[@]/%/.def}"); else definitions=("$here"/*.def); fi
for definition in "${definitions[@]}"; do
    build "$definition"
done
