#!/bin/bash
#SBATCH --job-name=toy-simulate
#SBATCH --output=logs/%x-%j.log
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --signal=B:TERM@60
#SBATCH --time=01:00:00
#SBATCH --comment="it's \"here\" \\ #1"
#SBATCH --exclusive

# Stage simulate of toy run r1, made by valska 1.2.3.
# In the bundle's directory:  sbatch submit_simulate.sh   or   bash submit_simulate.sh
# See the command, run nothing:  bash submit_simulate.sh --show
# What this job runs is said here; how it checks and records follows below.
# shellcheck disable=SC2016,SC2034,SC2054,SC2317
set +o posix

readonly payload=(cp ../inputs/data.txt out.txt)
readonly environment=()
readonly ranks=4
readonly probe=(python3 -c 'print(4)')
readonly declared=(out.txt)
readonly owned=(.)
readonly references=()
readonly gpus=no
readonly patience=45
readonly image_sha256=
readonly environment_sha256=
readonly runner=conda
readonly stage=simulate
readonly script=submit_simulate.sh
readonly bundle_id=abababababababababababababababababababababababababababababababab
readonly instance=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
readonly valska_version=1.2.3

# compose [ARGV...]: the command, from the outside in. ARGV stands in for the payload.
compose() {
    local argv=("$@")
    (($#)) || argv=("${payload[@]}")
    argv=(mpiexec -n "$ranks" "${argv[@]}")
    command=(env "${environment[@]}" "${argv[@]}")
}

# --- The conda runner ----------------------------------------------------------------------------

activate() {
    local digest
    declare -F site_activate >/dev/null ||
        refuse 3 "site.env names no conda environment; set conda in the configuration and run valska submit"
    site_activate || refuse 3 "the conda environment cannot be activated on $HOSTNAME"
    list_packages
    digest=$(printf '%s\n' "${packages[@]}" | sort | sha256sum)
    digest=${digest%% *}
    [[ $digest == "$environment_sha256" ]] ||
        refuse 5 "the conda environment is not the manifest's: its packages have the sha256 $digest, not $environment_sha256"
}

# The explicit package list is what conda needs to make the environment again.
list_packages() {
    local line
    packages=()
    while IFS= read -r line; do
        [[ $line == '#'* || -z $line ]] || packages+=("$line")
    done < <(conda list --explicit --md5)
}

runner_version() {
    version=$(conda --version 2>/dev/null)
    version=${version##* }
    json_object name "${CONDA_DEFAULT_ENV:-}"
    environment_json=${REPLY%\}}
    json_list "${packages[@]}"
    environment_json+=", \"explicit\": $REPLY}"
}

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

