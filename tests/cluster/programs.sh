#!/usr/bin/env bash
# Have the programs that tests, and the bench, hold valska's archives and signatures against: zstd and
# ssh-keygen.
#
# usage: programs.sh            install Debian's, as root; nothing to do where they are on the PATH
#        programs.sh --check    say what is missing, change nothing
#        programs.sh --help
#
# exit status: 0 all there; 1 something failed, or (--check) is missing; 2 usage; 3 this machine cannot be
# set up (not Debian, or not root): nothing was changed.
set -euo pipefail

# shellcheck source=tests/cluster/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PACKAGES=(zstd openssh-client)

missing() {
    missing_programs zstd ssh-keygen
}

install() {
    [[ -n "$(missing)" ]] || return 0
    require_debian_root "install zstd and ssh-keygen"
    take_lock
    apt_install "install zstd and ssh-keygen" "${PACKAGES[@]}"
    report_missing "$(missing)"
}

case "${1:-install}" in
    install) install ;;
    --check | check) report_missing "$(missing)" ;;
    --help | -h) print_help ;;
    *) complain "unknown argument '$1'; see --help"; exit 2 ;;
esac
