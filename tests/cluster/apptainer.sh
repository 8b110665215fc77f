#!/usr/bin/env bash
# Install Apptainer on a Debian machine, for root and for ordinary users.
#
# usage: apptainer.sh            install what is missing (quick and quiet when nothing is)
#        apptainer.sh --check    say what is there and what is missing, change nothing
#        apptainer.sh --help
#
# Debian 12 has no Apptainer package. Debian's unstable suite has one, for a newer C library. This
# script fetches that package and the libraries it needs with an apt configuration of its own, puts
# Apptainer where its package would put it, the libraries below /opt/apptainer-libraries, and points
# Apptainer's two programs at them; the system's libraries and apt's configuration stay as they are.
# An Apptainer that is already on the PATH is left alone.
#
# exit status: 0 all there; 1 something failed, or (--check) is missing; 3 this machine cannot be
# set up (not Debian, or not root): nothing was changed.
set -euo pipefail

# shellcheck source=tests/cluster/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

LIBRARY_DIR=/opt/apptainer-libraries
HELPERS=(ca-certificates squashfs-tools squashfuse uidmap fuse-overlayfs fuse2fs fakeroot patchelf)
LIBRARY_PACKAGES=(libc6 libseccomp2 libsqlite3-0)
CONFIGURATION=/etc/apptainer/apptainer.conf
CAPABILITY_FILE=/etc/apptainer/capability.json
# As the kernel numbers them.
CAPABILITIES=(CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE
    SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE)

# The suite NAME of the archive this machine's own Debian packages come from, as a sources line.
suite_line() {
    local uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg option=""
    # shellcheck disable=SC2016  # these names are apt's
    uri="$(apt-get indextargets --format '$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)' \
        'Created-By: Packages' |
        awk -F'|' '$1 == "Debian" && $2 == "main" && $3 !~ /-/ { print $4; exit }')"
    [[ -n $uri ]] || die "found no Debian archive in /etc/apt/sources.list or /etc/apt/sources.list.d"
    [[ ! -r $keyring ]] || option="[signed-by=$keyring] "
    echo "deb $option$uri $1 main"
}

# download DIRECTORY PACKAGE...: fetch from unstable with lists and sources of our own.
download() {
    local directory="$1"
    shift
    mkdir -p "$directory/lists/partial" "$directory/packages"
    suite_line sid >"$directory/sources.list"
    local -a apt=(apt-get -q
        -o "Dir::Etc::sourcelist=$directory/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o "Dir::State::lists=$directory/lists"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o Acquire::Languages=none -o APT::Sandbox::User=root)
    "${apt[@]}" update
    (cd "$directory/packages" && "${apt[@]}" download "$@")
}

# Unpack what was downloaded into DIRECTORY: Apptainer below apptainer/, the libraries in libraries/.
unpack() {
    local directory="$1" package root triplet
    for package in "$directory"/packages/*.deb; do
        root="$directory/other"
        [[ $package != */apptainer_* ]] || root="$directory/apptainer"
        dpkg-deb --extract "$package" "$root"
    done
    triplet="$(basename "$(dirname "$(echo "$directory"/apptainer/usr/lib/*/apptainer)")")"
    mkdir -p "$directory/libraries"
    find "$directory/other" -path "*/lib/$triplet/*" -name '*.so*' -not -path '*/gconv/*' \
        -exec cp -a -t "$directory/libraries" {} +
}

# Let Apptainer's two programs start with the libraries that will be in LIBRARY_DIR.
# An RPATH, not a RUNPATH: the latter would lose to the LD_LIBRARY_PATH Apptainer sets.
use_own_libraries() {
    local directory="$1" program loader
    loader="$(find "$directory/libraries" -name 'ld-linux*.so*' -printf '%f\n' -quit)"
    [[ -n $loader ]] || die "the C library's package holds no loader"
    for program in "$directory"/apptainer/usr/{bin/apptainer,lib/*/apptainer/bin/starter}; do
        patchelf --set-interpreter "$LIBRARY_DIR/$loader" "$program"
        patchelf --force-rpath --set-rpath "$LIBRARY_DIR" "$program"
    done
}

install_programs() {
    local directory
    directory="$(mktemp -d)"
    # shellcheck disable=SC2064  # the directory's name now, not at exit
    trap "rm -rf '$directory'" EXIT
    download "$directory" apptainer "${LIBRARY_PACKAGES[@]}"
    unpack "$directory"
    use_own_libraries "$directory"
    rm -rf "$LIBRARY_DIR"
    cp -a "$directory/libraries" "$LIBRARY_DIR"
    cp -a --no-target-directory --remove-destination "$directory/apptainer" /
    mkdir -p /var/lib/apptainer/mnt/session
    ln -sfn apptainer /usr/bin/singularity
    rm -rf "$directory"
}

# The capabilities root has here, one a line.
root_capabilities() {
    local mask number
    mask=$((16#$(awk '$1 == "CapPrm:" { print $2 }' /proc/self/status)))
    for number in "${!CAPABILITIES[@]}"; do
        ((mask >> number & 1)) && echo "CAP_${CAPABILITIES[number]}"
    done
    return 0
}

root_is_restricted() {
    local last
    last="$(cat /proc/sys/kernel/cap_last_cap 2>/dev/null || echo 40)"
    (($(root_capabilities | wc -l) < (last < ${#CAPABILITIES[@]} ? last + 1 : ${#CAPABILITIES[@]})))
}

root_is_configured() {
    ! root_is_restricted ||
        { grep -qs '^root default capabilities = file' "$CONFIGURATION" && grep -qs CAP_CHOWN "$CAPABILITY_FILE"; }
}

# root in a container or virtual machine may lack some capability (often SYS_RESOURCE); Apptainer,
# which asks for all of them, then refuses to start. It is told to ask for those root does have.
# (Asking for none is not enough: unpacking an image needs CHOWN, for ordinary users as well.)
configure_root() {
    ensure_subids root
    ! root_is_configured || return 0
    sed -i 's/^root default capabilities = .*/root default capabilities = file/' "$CONFIGURATION"
    root_capabilities |
        awk 'BEGIN { printf "{\"users\": {\"root\": [" } { printf "%s\"%s\"", (NR > 1 ? ", " : ""), $0 }
             END { print "]}}" }' >"$CAPABILITY_FILE"
}

allow_fuse() {
    [[ -e /dev/fuse ]] || mknod /dev/fuse c 10 229 2>/dev/null || true
    chmod 666 /dev/fuse 2>/dev/null || complain "no usable /dev/fuse: images are unpacked before each run"
}

# What is missing, one item a line.
missing() {
    local name user_namespaces
    for name in apptainer singularity mksquashfs squashfuse newuidmap fuse-overlayfs fuse2fs fakeroot; do
        command -v "$name" >/dev/null || echo "program $name"
    done
    for name in /etc/subuid /etc/subgid; do
        grep -qs '^root:' "$name" || echo "a line for root in $name"
    done
    [[ "$(id -u)" != 0 ]] || root_is_configured || echo "a setting for root's missing capabilities"
    [[ -r /dev/fuse && -w /dev/fuse && "$(stat -c %a /dev/fuse)" == *6 ]] ||
        echo "/dev/fuse, open to everyone"
    user_namespaces="$(cat /proc/sys/user/max_user_namespaces 2>/dev/null || echo 0)"
    ((user_namespaces)) || echo "user namespaces (sysctl user.max_user_namespaces)"
    [[ "$(cat /proc/sys/kernel/unprivileged_userns_clone 2>/dev/null || echo 1)" == 1 ]] ||
        echo "user namespaces for ordinary users (sysctl kernel.unprivileged_userns_clone)"
}

check() {
    ! command -v apptainer >/dev/null || say "$(apptainer --version) at $(command -v apptainer)"
    report_missing "$(missing)"
}

install() {
    [[ -n "$(missing)" ]] || return 0
    require_debian_root "install Apptainer"
    take_lock
    apt_install "install Apptainer's helper programs" "${HELPERS[@]}"
    if ! command -v apptainer >/dev/null; then
        apt_update
        step "fetch Apptainer and its libraries" install_programs
        say "installed $(apptainer --version)"
    fi
    command -v singularity >/dev/null || ln -s "$(command -v apptainer)" /usr/local/bin/singularity
    configure_root
    allow_fuse
    check
}

case "${1:-install}" in
    install) install ;;
    --check | check) check ;;
    --help | -h) print_help ;;
    *) complain "unknown argument '$1'; see --help"; exit 2 ;;
esac
