# --- The runners without a container -------------------------------------------------------------

prepare_runner() {
    site_setup
    activate
    unset PYTHONPATH PYTHONHOME
    export PYTHONNOUSERSITE=1
    working_directory=$bundle/outputs
    if ((${#references[@]})); then make_view; fi
}

# Referenced inputs cannot be mounted over their placeholders here, so the run sees a view in scratch.
make_view() {
    local i path view=$scratch/view
    if ! { mkdir -p -- "$view/inputs" "$view/outputs" && cp -R -- config "$view/config"; }; then
        refuse 1 "no room in $scratch"
    fi
    for path in inputs/* outputs/*; do
        [[ -e $path ]] && ln -s -- "$bundle/$path" "$view/$path"
    done
    for ((i = 0; i < ${#references[@]}; i += 2)); do
        path=${references[i]}
        ln -sf -- "${VALSKA_REFERENCES[$path]:-}" "$view/$path"
    done
    working_directory=$view/outputs
}

return_outputs() {
    local path
    [[ $working_directory == "$scratch"/* ]] || return 0
    for path in "$working_directory"/*; do
        [[ -e $path && ! -L $path ]] && mv -- "$path" outputs/
    done
}
