# --- The runners without a container -------------------------------------------------------------

prepare_runner() {
    set_up
    activate
    own_shell
    unset PYTHONPATH PYTHONHOME
    export PYTHONNOUSERSITE=1
    working_directory=$bundle/outputs
}

# What lies elsewhere cannot be mounted at its place here, so the run sees a view in scratch.
make_view() {
    local i path view=$scratch/view
    if [[ $common == "$bundle" ]] && ((${#references[@]} + ${#loans[@]} == 0)); then return; fi
    if ! { mkdir -p -- "$view/outputs" && cp -R -- config "$view/" && cp -Rs -- "$common/inputs" "$view/"; }; then
        refuse 1 "no room in $scratch"
    fi
    # Large or lasting outputs go to their place at once.
    for path in "${directories[@]}"; do mkdir -p -- "outputs/$path"; done
    shopt -s nullglob dotglob
    for path in outputs/*; do link_in_view "$path" "$bundle/$path"; done
    shopt -u nullglob dotglob
    for ((i = 0; i < ${#references[@]}; i += 2)); do
        path=${references[i]}
        link_in_view "$path" "${VALSKA_REFERENCES[$path]:-}"
    done
    for ((i = 0; i < ${#loans[@]}; i += 2)); do link_in_view "${loans[i]}" "${loans[i + 1]}"; done
    working_directory=$view/outputs
}

link_in_view() {
    ln -sfn -- "$2" "$scratch/view/$1"
    in_view[$1]=$2
}

return_outputs() {
    local path
    [[ $working_directory == "$scratch"/* ]] || return 0
    shopt -s nullglob dotglob
    for path in "$working_directory"/*; do
        [[ -L $path && $(readlink -- "$path") == "${in_view[outputs/${path##*/}]:-}" ]] && continue
        move_out "$path" && continue
        say "outputs that cannot be moved into the bundle stay in $working_directory"
        scratch='' exit_code=$((exit_code ? exit_code : 1))
    done
    shopt -u nullglob dotglob
}

# move_out PATH: into outputs/, where a stage that ran at the same time may have made that directory.
move_out() {
    local target=outputs/${1##*/}
    if [[ -d $1 && ! -L $1 && -d $target ]]; then
        cp -R -- "$1/." "$target/"
    else
        mv -- "$1" outputs/
    fi
}

declare -A in_view=()

