#!/usr/bin/env bash
# A container registry on this machine's loopback, for tests: Debian's docker-registry, and skopeo.
#
# usage: registry.sh install                  install both, as root; nothing to do where they are
#        registry.sh start DIRECTORY [PORT]   start a registry whose files are in DIRECTORY, on a free
#                                             port unless one is named; print 127.0.0.1:PORT
#        registry.sh stop DIRECTORY           end it (nothing to do if it has ended)
#        registry.sh push ROOT NAME           push the directory ROOT as an image of one layer to NAME
#                                             (HOST:PORT/REPOSITORY:TAG); print its digest
#        registry.sh --check                  say what is missing, change nothing
#        registry.sh --help
#
# Variables REGISTRY_… in the environment change the registry's settings, as its manual has them.
#
# exit status: 0 done; 1 something failed, or (--check) is missing; 2 usage; 3 this machine cannot be
# set up (not Debian, or not root): nothing was changed.
set -euo pipefail

# shellcheck source=tests/cluster/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PACKAGES=(docker-registry skopeo)
START_SECONDS=15

missing() {
    missing_programs "${PACKAGES[@]}"
}

install() {
    [[ -n "$(missing)" ]] || return 0
    require_debian_root "install a registry"
    take_lock
    apt_install "install Debian's docker-registry and skopeo" "${PACKAGES[@]}"
    report_missing "$(missing)"
}

need() {
    [[ -z "$(missing)" ]] || die "missing: $(missing | paste -sd ' '); '${0##*/} install' installs it"
}

write_config() {
    cat >"$1/config.yml" <<END
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: '${1//\'/\'\'}/data'}, delete: {enabled: true}}
http: {addr: '127.0.0.1:$2', secret: loopback}
END
}

# The address that the registry's log names, once it listens.
address() {
    sed -n 's/.*msg="listening on \([0-9.:]*\).*/\1/p' "$1/log" | tail -n 1
}

# The process of DIRECTORY's registry, if it runs and is one.
process() {
    local pid
    pid="$(cat "$1/pid" 2>/dev/null)" || return 0
    ! grep -qs docker-registry "/proc/$pid/cmdline" || echo "$pid"
}

start() {
    local directory="$1" pid tries
    need
    mkdir -p "$directory/data"
    directory="$(cd -P -- "$directory" && pwd)"
    [[ -z "$(process "$directory")" ]] || die "a registry of $directory runs already"
    write_config "$directory" "${2:-0}"
    : >"$directory/log"
    setsid docker-registry serve "$directory/config.yml" >"$directory/log" 2>&1 </dev/null 9>&- &
    pid=$!
    echo "$pid" >"$directory/pid"
    for ((tries = START_SECONDS * 20; tries > 0; tries--)); do
        [[ -z "$(address "$directory")" ]] || { address "$directory"; return 0; }
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    complain "the registry does not start; the end of $directory/log:"
    tail -n 5 "$directory/log" >&2
    return 1
}

stop() {
    local pid
    pid="$(process "$1")"
    rm -f "$1/pid"
    [[ -n $pid ]] || return 0
    kill -KILL "$pid"
    while kill -0 "$pid" 2>/dev/null && [[ "$(cut -d ' ' -f 3 "/proc/$pid/stat" 2>/dev/null)" != Z ]]; do
        sleep 0.02
    done
}

# put LAYOUT FILE: move FILE among the layout's blobs; print "DIGEST SIZE".
put() {
    local digest size
    digest="$(sha256sum "$2" | cut -d ' ' -f 1)"
    size="$(stat -c %s "$2")"
    mv "$2" "$1/blobs/sha256/$digest"
    echo "sha256:$digest $size"
}

descriptor() {
    printf '{"mediaType":"%s","digest":"%s","size":%s}' "$@"
}

# The same ROOT gives the same image: names in order, no owners, no times.
push() {
    local type=application/vnd.oci.image layout diff
    local -a layer config manifest
    need
    LAYOUT="$(mktemp -d)"
    layout="$LAYOUT"
    trap 'rm -rf -- "$LAYOUT"' EXIT
    mkdir -p "$layout/blobs/sha256"
    echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    tar -C "$1" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$layout/layer" .
    diff="$(sha256sum "$layout/layer" | cut -d ' ' -f 1)"
    gzip -n -1 "$layout/layer"
    read -r -a layer < <(put "$layout" "$layout/layer.gz")
    printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/usr/bin:/bin"%s]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$(dpkg --print-architecture)" "${IMAGE_ENV:+,\"$IMAGE_ENV\"}" "$diff" >"$layout/config"
    read -r -a config < <(put "$layout" "$layout/config")
    printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}' "$type.manifest.v1+json" \
        "$(descriptor "$type.config.v1+json" "${config[@]}")" \
        "$(descriptor "$type.layer.v1.tar+gzip" "${layer[@]}")" >"$layout/manifest"
    read -r -a manifest < <(put "$layout" "$layout/manifest")
    printf '{"schemaVersion":2,"manifests":[%s]}' \
        "$(descriptor "$type.manifest.v1+json" "${manifest[@]}")" >"$layout/index.json"
    skopeo --insecure-policy copy --quiet --preserve-digests --dest-tls-verify=false \
        "oci:$layout" "docker://$2" >&2
    echo "${manifest[0]}"
}

case "${1:-}:$#" in
    install:1) install ;;
    start:2 | start:3) start "${@:2}" ;;
    stop:2) stop "$2" ;;
    push:3) push "$2" "$3" ;;
    --check:1 | check:1) report_missing "$(missing)" ;;
    --help:* | -h:*) print_help ;;
    *) complain "unknown arguments '$*'; see --help"; exit 2 ;;
esac
