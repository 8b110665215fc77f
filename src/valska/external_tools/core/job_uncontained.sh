# --- The runners without a container -------------------------------------------------------------

prepare_runner() {
    set_up
    activate
    own_shell
    unset PYTHONPATH PYTHONHOME
    export PYTHONNOUSERSITE=1
    working_directory=$bundle/outputs
}

# Referenced inputs cannot be mounted over their placeholders here, so the run sees a view in scratch.
make_view() {
    local i path view=$scratch/view
    ((${#references[@]})) || return 0
    if ! { mkdir -p -- "$view/outputs" && cp -R -- config "$view/" && cp -Rs -- "$bundle/inputs" "$view/"; }; then
        refuse 1 "no room in $scratch"
    fi
    shopt -s nullglob dotglob
    for path in outputs/*; do ln -s -- "$bundle/$path" "$view/$path"; done
    shopt -u nullglob dotglob
    for ((i = 0; i < ${#references[@]}; i += 2)); do
        path=${references[i]}
        ln -sf -- "${VALSKA_REFERENCES[$path]:-}" "$view/$path"
    done
    working_directory=$view/outputs
}

return_outputs() {
    local path
    [[ $working_directory == "$scratch"/* ]] || return 0
    shopt -s nullglob dotglob
    for path in "$working_directory"/*; do
        [[ -L $path && $(readlink -- "$path") == "$bundle/outputs/"* ]] && continue
        mv -- "$path" outputs/ && continue
        say "outputs that cannot be moved into the bundle stay in $working_directory"
        scratch='' exit_code=$((exit_code ? exit_code : 1))
    done
    shopt -u nullglob dotglob
}
