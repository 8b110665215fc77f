#!/usr/bin/env bash
# Build pyuvsim's image twice, each time from nothing: by two users where there are two, in two
# places, with another umask, time zone and locale; then run pyuvsim's reference simulation 1.1 in
# both. The images must have one SHA-256, and so must what the simulations write.
#
# usage: images-check.sh            valska has to be on the PATH (make images-check sees to it)
#        images-check.sh --help
#
# exit status: 0 all is the same; 5 it is not; else something failed.
set -euo pipefail

# shellcheck source=tests/cluster/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ROOT=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
readonly ROOT OTHER=valska-test DIFFERENT=5
readonly TEMPLATE=ref_1_1

if [[ ${1:-} == --help || $# -ne 0 ]]; then
    print_help
    exit $(($# != 1))
fi

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
chmod 755 "$scratch"
options=()

has_other() {
    [[ $EUID -eq 0 ]] && getent passwd "$OTHER" >/dev/null
}

# The first build, as whoever runs this; on a base made here where no registry answers.
build_first() {
    local code=0
    mkdir "$scratch/first"
    cp -r -- "$ROOT/containers" "$scratch/first/containers"
    try_first || code=$?
    if [[ $code -eq 3 ]] && grep -q "cannot be fetched" "$scratch/first/log"; then
        say "no container registry answers: making a Debian base"
        "$ROOT/containers/bootstrap-base.sh" "$scratch/base"
        options=(--base "$scratch/base")
        try_first && code=0 || code=$?
    fi
    return "$code"
}

try_first() {
    (umask 022 && cd "$scratch/first" &&
        valska build containers/pyuvsim.def --images "$scratch/first/images" "${options[@]}" \
            >"$scratch/first/path" 2> >(tee "$scratch/first/log" >&2))
}

# A valska that the other user can run, who cannot enter root's home.
install_for_other() {
    python3 -m pip -qq wheel --no-deps -w "$scratch/wheels" "$ROOT"
    /usr/bin/python3 -m venv --without-pip "$scratch/venv"
    python3 -m pip -qq --python "$scratch/venv/bin/python" install "$scratch"/wheels/valska-*.whl
}

build_second() {
    local place="$scratch/another däy's place" as=() program
    program=$(type -P valska)
    mkdir "$place"
    cp -r -- "$ROOT/containers" "$place/definitions"
    chmod -R go-rwx "$place/definitions"
    if has_other; then
        install_for_other
        program=$scratch/venv/bin/valska
        chown -R "$OTHER:" "$place"
        as=(runuser -u "$OTHER" --)
    fi
    # shellcheck disable=SC2016  # the inner bash expands it
    "${as[@]}" env -u PYTHONPATH --chdir="$place" TZ=Asia/Tokyo LC_ALL=C LANG=C HOME="$place" \
        bash -c 'umask 077; exec "$@"' bash \
        "$program" build definitions/pyuvsim.def --images "$place/images" "${options[@]}"
}

# simulate IMAGE DIRECTORY: print the digests of what the reference simulation writes.
simulate() {
    valska --quiet bundle pyuvsim --template "$TEMPLATE" --image "$1" -o "$2" >/dev/null
    valska --quiet submit "$2" --scheduler local --wait >/dev/null
    (cd "$2/outputs" && sha256sum -- *)
}

digest() {
    openssl dgst -sha256 -r -- "$1" | cut -d' ' -f1
}

# same WHAT A B
same() {
    printf '%s\n  first:  %s\n  second: %s\n' "$1" "$2" "$3"
    [[ -n $2 && $2 == "$3" ]] && return
    complain "$1: not the same"
    exit "$DIFFERENT"
}

build_first
first=$(<"$scratch/first/path")
second=$(build_second)
same "Images, by sha256" "$(digest "$first")" "$(digest "$second")"
same "Outputs of the simulation $TEMPLATE, by sha256" \
    "$(simulate "$first" "$scratch/run 1")" "$(simulate "$second" "$scratch/run 2")"
say "one image, one answer"
