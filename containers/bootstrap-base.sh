#!/usr/bin/env bash
# Make a Debian base that an image definition can be built on where no
# container registry answers.
set -euo pipefail

readonly SUITE=bookworm
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly PACKAGES=python3,python3-venv,ca-certificates
# The release of bookworm. Every newer file time becomes this one, so that two
# bases made of the same packages are equal.
readonly DEFAULT_EPOCH=1686355200

usage() {
    cat <<EOF
Usage: ${0##*/} [--help] OUT

Make a minimal Debian $SUITE with $PACKAGES from the
Debian archives this machine's own apt uses.

  OUT    a name ending in .tar makes a tarball; any other name makes a
         directory, which Apptainer takes as a base:
             Bootstrap: localimage
             From: OUT

OUT must not exist. SOURCE_DATE_EPOCH sets the time that newer files get.
mmdebstrap is installed when it is missing and this runs as root. A directory
has to be made by root; a tarball can be made by anyone with a range of
subordinate user ids.
EOF
}

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit "${2:-1}"
}

need_mmdebstrap() {
    command -v mmdebstrap >/dev/null && return
    [[ $EUID -eq 0 ]] || die 'mmdebstrap is missing: install it, or run this as root' 3
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null
}

# One line per archive of Debian this machine uses, with the suite put to $SUITE.
debian_sources() {
    local uri codename suffix trust=
    [[ -r $KEYRING ]] && trust="[signed-by=$KEYRING] "
    # shellcheck disable=SC2016  # apt fills these in, not the shell
    apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' \
        'Created-By: Packages' |
        sed -n 's/^Debian main //p' |
        while read -r codename uri; do
            suffix=
            [[ $codename != *-* ]] || suffix=-${codename#*-}
            case $suffix in '' | -updates | -security) ;; *) continue ;; esac
            printf 'deb %s%s %s%s main\n' "$trust" "$uri" "$SUITE" "$suffix"
        done | sort -u
}

# What is left of this machine in a fresh base: its archives, its apt settings,
# its name and its resolver. $1 is expanded by mmdebstrap's hook shell.
forget_machine() {
    # shellcheck disable=SC2016
    printf '%s' 'rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*' \
        ' "$1"/etc/apt/apt.conf.d/99mmdebstrap' \
        ' "$1"/etc/hostname "$1"/etc/resolv.conf' \
        ' "$1"/var/log/dpkg.log "$1"/var/log/bootstrap.log "$1"/var/log/alternatives.log'
}

# An ordinary user who builds on the base has to read all of it; it holds no secret.
open_to_all() {
    # shellcheck disable=SC2016
    printf '%s' 'find "$1"/etc "$1"/root "$1"/var -xdev ! -type l -exec chmod a+rX {} +'
}

# What Python writes when it imports carries the time; what packages compile has a hash instead.
make_tar() {
    PYTHONDONTWRITEBYTECODE=1 mmdebstrap --quiet --variant=minbase --include="$PACKAGES" --aptopt="$1/apt.conf" \
        --customize-hook="$(forget_machine)" --customize-hook="$(open_to_all)" \
        "$SUITE" "$1/base.tar" "$1/sources.list"
}

main() {
    case ${1-} in
        --help | -h)
            usage
            return
            ;;
        '' | -*)
            usage >&2
            exit 2
            ;;
    esac
    [[ $# -eq 1 ]] || die 'expected one argument, the name of the base' 2
    local out=$1 parent
    parent=$(dirname -- "$out")
    [[ ! -e $out && ! -L $out ]] || die "$out exists already"
    [[ -d $parent ]] || die "$parent is not a directory"
    [[ $out == *.tar || $EUID -eq 0 ]] || die 'a directory has to be made by root; name a .tar instead' 3
    need_mmdebstrap

    work=$(mktemp -d -- "$parent/.base.XXXXXX")
    trap 'rm -rf -- "$work"' EXIT
    chmod 755 "$work"
    export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$DEFAULT_EPOCH}
    apt-config dump --no-empty Acquire >"$work/apt.conf"
    debian_sources >"$work/sources.list"
    [[ -s $work/sources.list ]] || die 'apt here knows no Debian archive: run apt-get update first' 3
    make_tar "$work"
    if [[ $out == *.tar ]]; then
        mv -T -- "$work/base.tar" "$out"
    else
        mkdir "$work/root"
        # apt's own "partial" directories are closed to whoever builds on the base; apt makes them anew.
        tar -x --numeric-owner --exclude='./dev/*' --exclude=./var/cache/apt/archives/partial \
            --exclude=./var/lib/apt/lists/partial -C "$work/root" -f "$work/base.tar"
        mv -T -- "$work/root" "$out"
    fi
}

main "$@"
