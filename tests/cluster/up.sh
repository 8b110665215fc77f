#!/usr/bin/env bash
# Have Apptainer, Slurm and the test user ready on this machine; `make test` calls it.
#
# usage: up.sh           set up and start what is missing (under a second when nothing is)
#        up.sh --help
#
# On a machine these scripts cannot set up (not Debian, or not root) nothing is changed: what is
# there is used, what is missing is named, and the tests that need it are skipped. With
# VALSKA_REQUIRE_SERVICES=1 in the environment something missing is an error instead.
#
# exit status: 0 all there, or nothing required; 1 something failed; 3 something required is missing
# and this machine cannot be set up.
set -euo pipefail

DIRECTORY="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=tests/cluster/common.sh
source "$DIRECTORY/common.sh"

set_up() {
    local begin=$SECONDS
    "$DIRECTORY/apptainer.sh"
    "$DIRECTORY/user.sh"
    "$DIRECTORY/slurm.sh" all
    "$DIRECTORY/shellcheck.sh"
    "$DIRECTORY/programs.sh"
    "$DIRECTORY/registry.sh" install
    say "Apptainer, Slurm and the user valska-test are ready ($((SECONDS - begin)) s)"
}

# What the tests would use and this machine lacks, one item a line.
missing_services() {
    command -v apptainer >/dev/null || echo "Apptainer (install 1.3 or later)"
    command -v sbatch >/dev/null && sinfo --noheader >/dev/null 2>&1 ||
        echo "Slurm (work on a machine where sinfo answers)"
    command -v docker-registry >/dev/null && command -v skopeo >/dev/null ||
        echo "docker-registry and skopeo"
    "$DIRECTORY/programs.sh" --check >/dev/null || echo "zstd and ssh-keygen"
}

make_do() {
    local reasons="$1" gaps
    gaps="$(missing_services)"
    [[ -n $gaps ]] || { say "Apptainer, Slurm, a registry, zstd and ssh-keygen are there"; return 0; }
    complain "missing: ${gaps//$'\n'/; }"
    complain "this script cannot set them up: ${reasons//$'\n'/, }; as root on Debian it can"
    if [[ "${VALSKA_REQUIRE_SERVICES:-}" == 1 ]]; then
        complain "VALSKA_REQUIRE_SERVICES=1 asks for them"
        return "$EXIT_UNSUPPORTED"
    fi
    say "nothing is required: the tests that need them will be skipped"
}

up() {
    local reasons
    reasons="$(unsupported_reasons)"
    if [[ -n $reasons ]]; then make_do "$reasons"; else set_up; fi
}

case "${1:-up}" in
    up) up ;;
    --help | -h) print_help ;;
    *) complain "unknown argument '$1'; see --help"; exit 2 ;;
esac
