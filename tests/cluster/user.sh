#!/usr/bin/env bash
# Make the ordinary user the tests submit as: valska-test.
#
# usage: user.sh            make what is missing (quick and quiet when nothing is)
#        user.sh --check    say what is missing, change nothing
#        user.sh --help
#
# The user has a home directory, bash, a range of subordinate ids (Apptainer's fakeroot needs one),
# no password, and Debian's own python3 with venv: the python3 on root's PATH may lie in a home
# directory nobody else can enter.
#
# exit status: 0 all there; 1 something failed, or (--check) is missing; 3 this machine cannot be
# set up (not Debian, or not root): nothing was changed.
set -euo pipefail

# shellcheck source=tests/cluster/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TEST_USER=valska-test
PACKAGES=(python3 python3-venv passwd uidmap)

missing() {
    local file home
    home="$(getent passwd "$TEST_USER" | cut -d: -f6)"
    [[ -n $home ]] || echo "user $TEST_USER"
    [[ -z $home || -d $home ]] || echo "directory $home"
    for file in /etc/subuid /etc/subgid; do
        grep -qs "^$TEST_USER:" "$file" || echo "a line for $TEST_USER in $file"
    done
    /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || echo "/usr/bin/python3 with venv"
}

make_user() {
    require_debian_root "make the user $TEST_USER"
    take_lock
    apt_install "install Debian's python3 with venv" "${PACKAGES[@]}"
    getent passwd "$TEST_USER" >/dev/null ||
        step "make the user $TEST_USER" useradd --create-home --shell /bin/bash "$TEST_USER"
    ensure_subids "$TEST_USER"
    check
}

check() {
    report_missing "$(missing)"
}

case "${1:-make}" in
    make) [[ -z "$(missing)" ]] || make_user ;;
    --check | check) check ;;
    --help | -h) print_help ;;
    *) complain "unknown argument '$1'; see --help"; exit 2 ;;
esac
