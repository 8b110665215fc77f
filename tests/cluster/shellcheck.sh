#!/usr/bin/env bash
# Have shellcheck on this machine: `make lint` runs it over the scripts, the tests over the job
# scripts that valska writes.
#
# usage: shellcheck.sh    install Debian's, as root; nothing to do where one is on the PATH
set -euo pipefail
# shellcheck source=tests/cluster/common.sh
source "$(dirname "$0")/common.sh"

case "${1:-}" in
    --help | -h) print_help; exit 0 ;;
    ?*) complain "unknown argument '$1'; see --help"; exit 2 ;;
esac

! command -v shellcheck >/dev/null || exit 0
require_debian_root "install shellcheck"
take_lock
apt_install "install shellcheck" shellcheck
