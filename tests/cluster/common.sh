# shellcheck shell=bash
# Shared by the scripts in this directory; sourced, never run.

EXIT_UNSUPPORTED=3

# The scripts call system tools (useradd, mysqld, slurmd) that an ordinary PATH may not reach.
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
export PATH

LOG_DIR="${VALSKA_CLUSTER_LOG_DIR:-/var/log/valska-cluster}"
LOCK_FILE=/run/lock/valska-cluster.lock

say() {
    printf '%s: %s\n' "${0##*/}" "$*"
}

complain() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    complain "$*"
    exit 1
}

# Print the comment block at the top of the calling script, as its --help.
print_help() {
    sed -n '2,/^[^#]/{/^#/!d; s/^# \{0,1\}//; p}' "$0"
}

# step TEXT COMMAND...: run COMMAND with its output in a log; one line with the time it took,
# and the end of the log when it fails.
step() {
    local text="$1" log start
    shift
    mkdir -p "$LOG_DIR"
    log="$LOG_DIR/$(tr -cs '[:alnum:]' '-' <<<"$text" | cut -c1-60).log"
    start="$(date +%s)"
    if ! "$@" >"$log" 2>&1 </dev/null; then
        complain "$text: failed after $(($(date +%s) - start)) s; the end of $log:"
        tail -n 25 "$log" >&2
        return 1
    fi
    say "$text ($(($(date +%s) - start)) s)"
}

# What keeps this machine from being set up, one reason a line; nothing when all is well.
unsupported_reasons() {
    [[ "$(id -u)" == 0 ]] || echo "not root"
    [[ -f /etc/debian_version ]] && command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
        echo "not a Debian system (no apt-get and dpkg)"
}

# require_debian_root WHAT: leave with EXIT_UNSUPPORTED, before anything is changed, if this machine
# is not one these scripts can set up.
require_debian_root() {
    local reasons
    reasons="$(unsupported_reasons)"
    [[ -n $reasons ]] || return 0
    complain "cannot $1 here: ${reasons//$'\n'/, }." \
        "Run this as root on Debian, or have the services installed and running by other means."
    exit "$EXIT_UNSUPPORTED"
}

# report_missing LINES: say what is missing, if anything; fails if something is.
report_missing() {
    [[ -n $1 ]] || { say "nothing is missing"; return 0; }
    say "missing: ${1//$'\n'/, }"
    return 1
}

# Only one of these scripts may change the machine at a time; children of a script that holds the
# lock do not take it again.
take_lock() {
    [[ -z "${VALSKA_CLUSTER_LOCKED:-}" ]] || return 0
    mkdir -p "${LOCK_FILE%/*}"
    exec 9>"$LOCK_FILE"
    flock --wait 900 9 || die "another script of tests/cluster has held $LOCK_FILE for 15 minutes"
    export VALSKA_CLUSTER_LOCKED=1
}

has_package() {
    [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# Those of the named packages that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        has_package "$package" || echo "$package"
    done
}

# Those of the named programs that are not on the PATH.
missing_programs() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || echo "$program"
    done
}

# Package lists older than a day miss the newest security fixes' file names, and then downloads fail.
apt_update() {
    [[ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mmin -1440 -print -quit)" ]] || return 0
    step "refresh apt's package lists" apt-get -q -o APT::Update::Error-Mode=any update ||
        step "refresh apt's package lists again" apt-get -q update
}

# apt_install TEXT PACKAGE...: install what is missing, asking nothing and starting no service.
apt_install() {
    local text="$1" policy=/usr/sbin/policy-rc.d placed="" status=0
    shift
    local -a wanted
    mapfile -t wanted < <(missing_packages "$@")
    ((${#wanted[@]})) || return 0
    apt_update
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        placed=yes
    fi
    step "$text" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a \
        apt-get -y -q -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=300 \
        --no-install-recommends install "${wanted[@]}" || status=$?
    [[ -z $placed ]] || rm -f "$policy"
    return "$status"
}

# Give USER a range of subordinate ids in /etc/subuid and /etc/subgid if it has none.
ensure_subids() {
    local user="$1" file next
    for file in /etc/subuid /etc/subgid; do
        touch "$file"
        ! grep -q "^$user:" "$file" || continue
        next="$(awk -F: 'BEGIN { n = 100000 } $2 + $3 > n { n = $2 + $3 } END { print n }' "$file")"
        echo "$user:$next:65536" >>"$file"
    done
}
