# --- A bundle: all that the run needs is in one directory ----------------------------------------

usage() {
    printf 'Usage: sbatch %s [SEAL] [--resume], or bash %s [SEAL] [--resume], in the bundle it belongs to.\n' \
        "$script" "$script"
    printf '  SEAL      run only if the bundle has this seal (sha256sum SHA256SUMS)\n'
    usage_of_options
}

take_words() {
    (($# <= 1)) && [[ ${1:-} =~ ^([0-9a-f]{64})?$ ]] || return 1
    expected_seal=${1:-}
}

enter_run() {
    bundle=$common
}

open_log() { :; }

list_sealed() {
    sealed_in "$bundle"
}

find_shared() { :; }

check_needs() {
    local i
    for ((i = 0; i < ${#needs[@]}; i += 2)); do check_own "${needs[i]}" "${needs[i + 1]}"; done
}

