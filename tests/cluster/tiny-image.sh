#!/usr/bin/env bash
# Make a small image of this machine's own bash and coreutils, in about a second and from nothing
# else: for tests and measurements that need a real container but not its content.
#
#   tiny-image.sh OUT.sif
set -euo pipefail
# shellcheck source=tests/cluster/common.sh
source "$(dirname "$0")/common.sh"

if [[ ${1:-} == --help || $# -ne 1 ]]; then
    print_help
    exit $(($# != 1))
fi

readonly PROGRAMS=(bash cat cp date echo env false id ls mkdir pwd rm sleep sort touch true wc)
root=$(mktemp -d)
trap 'rm -rf -- "$root"' EXIT
mkdir -p "$root"/{bin,dev,etc,home,proc,root,sys,tmp,usr,var/tmp}
ln -s ../bin "$root/usr/bin"

for program in "${PROGRAMS[@]}"; do
    path=$(type -P "$program")
    cp -L -- "$path" "$root/bin/$program"
    ldd "$path" | awk '$2 == "=>" {print $3} $1 ~ "^/" {print $1}' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L -- "$library" "$root$library"
    done
done
ln -s bash "$root/bin/sh"
printf 'root:x:0:0::/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
apptainer --quiet build --force "$1" "$root"
