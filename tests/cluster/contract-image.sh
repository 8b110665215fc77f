#!/usr/bin/env bash
# Make an image that has the contract program where containers/bayeseor.def has BayesEoR's driver,
# and this machine's own Python to run it; in a few seconds and from nothing else.
#
#   contract-image.sh OUT.sif    PYTHON=… chooses the interpreter
set -euo pipefail
here=$(cd -P -- "$(dirname -- "$0")" && pwd)
# shellcheck source=tests/cluster/common.sh
source "$here/common.sh"

if [[ ${1:-} == --help || $# -ne 1 ]]; then
    print_help
    exit $(($# != 1))
fi

readonly PROGRAM=$here/../data/contract/run-analysis.py
readonly PROGRAMS=(bash cat cp date echo env false grep head id ls mkdir mv pwd rm sleep sort tail touch true wc)
python=${PYTHON:-/usr/bin/python3}
[[ -x $python ]] || python=$(type -P python3) || die "no Python 3; name one with PYTHON=/path/to/python3"
root=$(mktemp -d)
trap 'rm -rf -- "$root"' EXIT

# put FILE PLACE: a program and the libraries that it needs.
put() {
    local library
    cp -L -- "$1" "$root$2"
    ldd "$1" | awk '$2 == "=>" {print $3} $1 ~ "^/" {print $1}' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        [[ -e $root$library ]] || cp -L -- "$library" "$root$library"
    done
}

mkdir -p "$root"/{dev,etc,home,proc,root,sys,tmp,var/tmp,usr/{bin,lib,lib64},opt/bayeseor/scripts}
for name in bin lib lib64; do ln -s "usr/$name" "$root/$name"; done
for program in "${PROGRAMS[@]}"; do put "$(type -P "$program")" "/usr/bin/$program"; done
ln -s bash "$root/usr/bin/sh"

read -r version library < <("$python" -c 'import sys, sysconfig
print("python%d.%d" % sys.version_info[:2], sysconfig.get_path("stdlib"))')
executable=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
put "$executable" "/usr/bin/$version"
for name in python python3; do ln -s "$version" "$root/usr/bin/$name"; done
tar -C "$library" --exclude=__pycache__ --exclude=test --exclude=tests --exclude=site-packages \
    --exclude=idlelib --exclude=ensurepip --exclude='config-*' -cf - . | {
    mkdir -p "$root/usr/lib/$version"
    tar -C "$root/usr/lib/$version" -xf -
}
for module in "$library"/lib-dynload/*.so; do
    put "$module" "/usr/lib/$version/lib-dynload/${module##*/}"
done

install -m 755 "$PROGRAM" "$root/opt/bayeseor/scripts/run-analysis.py"
printf 'root:x:0:0::/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
chmod -R a+rX "$root"
apptainer --quiet build --force "$1" "$root"
