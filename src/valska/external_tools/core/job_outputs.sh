# --- Inputs, ranks, outputs ----------------------------------------------------------------------

# Referenced inputs lie outside the bundle: same bytes as when it was made?
check_references() {
    local i path found
    for ((i = 0; i < ${#references[@]}; i += 2)); do
        path=${references[i]}
        found=${VALSKA_REFERENCES[$path]:-}
        [[ -r $found ]] || refuse 3 "referenced input $path is not at '$found'; say in site.env where it is"
        sha256_or_stop "$found"
        [[ $REPLY == "${references[i + 1]}" ]] ||
            refuse 5 "referenced input $found was altered since the bundle was made"
        inputs_checked=$((inputs_checked + 1))
    done
}

# Where borrowed directories are, and shared work.
find_loans() {
    local i path
    for ((i = 0; i < ${#borrowed[@]}; i += 2)); do
        path=${borrowed[i]}
        loans+=("$path" "${VALSKA_REFERENCES[$path]:-}")
    done
    find_shared
}

check_borrowed() {
    local i found
    for ((i = 0; i < ${#borrowed[@]}; i += 2)); do
        found=${loans[i + 1]}
        [[ -d $found ]] ||
            refuse 3 "borrowed directory ${borrowed[i]} is not at '$found'; say in site.env where it is"
        tree_sha256_or_stop "$found"
        [[ $REPLY == "${borrowed[i + 1]}" ]] ||
            refuse 5 "borrowed directory $found was altered since the bundle was made"
    done
}

check_ranks() {
    if [[ $scheduler == slurm && -n ${SLURM_NTASKS:-} && $SLURM_NTASKS != "$ranks" ]]; then
        refuse 2 "the job has $SLURM_NTASKS tasks, the manifest says $ranks ranks; make a bundle for $SLURM_NTASKS"
    fi
}

# What an earlier attempt left is kept: this one goes on from it, or it is set aside.
prepare_outputs() {
    local path newest=''
    if [[ -n $resume ]] || ((restart > 0)); then
        if ((${#resume_by[@]})); then find_outputs "${resume_by[0]}"; fi
        for path in "${found_outputs[@]}"; do
            if [[ -f $path && (-z $newest || $path -nt $newest) ]]; then newest=$path; fi
        done
        if [[ -n $newest ]]; then
            resumed_from=${newest%/*}
            going_on=("${resume_by[1]}" "${resumed_from##*/}")
            say "goes on from $resumed_from/"
            return
        fi
        say "there is nothing to go on from; it starts anew"
    fi
    set_aside_outputs
}

# Never mixed with this attempt's.
set_aside_outputs() {
    local path number=1 target
    list_owned
    ((${#outputs[@]})) || return 0
    outputs=()
    while [[ -e outputs.$number ]]; do number=$((number + 1)); done
    for path in "${owned[@]}"; do
        if [[ $path == . ]]; then
            target=outputs.$number
            mv -- outputs "$target" && mkdir outputs
        elif [[ -e outputs/$path ]]; then
            target=outputs.$number/$(dirname -- "$path")
            mkdir -p -- "$target" && mv -- "outputs/$path" "$target/"
        fi || refuse 1 "cannot set earlier outputs aside"
    done
    set_aside=outputs.$number
    say "outputs of an earlier attempt are in $set_aside/"
}

# list_owned: into outputs, every file that this stage wrote.
list_owned() {
    local path file
    outputs=()
    shopt -s globstar nullglob dotglob
    for path in "${owned[@]}"; do
        path=outputs/$path
        for file in "$path" "${path%/.}"/**; do
            [[ -f $file ]] && outputs+=("$file")
        done
    done
    shopt -u globstar nullglob dotglob
}

# find_outputs NAME: into found_outputs, what there is of a declared output. Only * is special in it.
find_outputs() {
    local pattern=outputs/$1 IFS=
    found_outputs=()
    if [[ $1 != *'*'* ]]; then
        if [[ -e $pattern ]]; then found_outputs=("$pattern"); fi
        return
    fi
    pattern=${pattern//\\/\\\\}
    pattern=${pattern//\?/\\?}
    pattern=${pattern//\[/\\[}
    shopt -s globstar nullglob dotglob
    # shellcheck disable=SC2206
    found_outputs=($pattern)
    shopt -u globstar nullglob dotglob
}

# --- Digests -------------------------------------------------------------------------------------

# OpenSSL uses the processor's SHA instructions where coreutils may not.
exec_sha256() {
    if command -v openssl >/dev/null; then exec openssl dgst -sha256 -r "$@"; fi
    exec sha256sum "$@"
}

sha256_within() {
    cd -- "$1" && shift && exec_sha256 "$@"
}

# sha256_or_stop FILE: into REPLY. Takes long for a large file, and ends at once at a signal.
sha256_or_stop() {
    run_child exec_sha256 "$1" >"$scratch/digest"
    stop_if_signalled
    hex_of "$(<"$scratch/digest")"
    [[ -n $REPLY ]] || refuse 3 "the digest of $1 cannot be found out"
}

# hex_of LINE: the digest in it, into REPLY. Where a name is odd, the line begins with a backslash.
hex_of() {
    REPLY=${1#\\}
    REPLY=${REPLY:0:64}
}

hash_outputs() {
    local line
    ask_of_outputs exec_sha256
    for line in "${answers[@]}"; do
        hex_of "$line"
        output_digests+=("$REPLY")
    done
}

# ask_of_outputs COMMAND...: into the array answers, a line for each output. A call takes many, since
# there may be thousands; one by one where a file cannot be read, or has a newline in its name.
ask_of_outputs() {
    local i path chunk lines
    answers=()
    for ((i = 0; i < ${#outputs[@]}; i += 500)); do
        chunk=("${outputs[@]:i:500}")
        mapfile -t lines < <("$@" "${chunk[@]}" 2>/dev/null)
        if ((${#lines[@]} != ${#chunk[@]})); then
            lines=()
            for path in "${chunk[@]}"; do lines+=("$("$@" "$path")"); done
        fi
        answers+=("${lines[@]}")
    done
}

# tree_sha256_or_stop DIRECTORY: into REPLY, the digest of what sha256sum prints of all its files, by
# their paths in it, sorted bytewise.
tree_sha256_or_stop() {
    local i line files=()
    list_tree "$1"
    : >"$scratch/digests"
    for ((i = 0; i < ${#files[@]}; i += 500)); do
        run_child sha256_within "$1" "${files[@]:i:500}" >>"$scratch/digests"
        stop_if_signalled
    done
    i=0
    while IFS= read -r line; do
        hex_of "$line"
        printf '%s  %s\n' "$REPLY" "${files[i++]#./}"
    done <"$scratch/digests" >"$scratch/tree"
    hex_of "$(exec sha256sum <"$scratch/tree")"
}

# list_tree DIRECTORY: into files. What is neither file nor directory is listed too, and counts as altered.
list_tree() {
    local path
    shopt -s globstar nullglob dotglob
    for path in "$1"/**; do
        if [[ -L $path || ! -d $path ]]; then files+=("./${path#"$1/"}"); fi
    done
    shopt -u globstar nullglob dotglob
}

