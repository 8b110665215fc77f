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
readonly environment=(MPIR_CVAR_NOLOCAL=1 OMPI_MCA_btl=tcp,self)
readonly ranks=4
readonly probe=(python3 -c 'print(4)')
readonly declared=(out.txt)
readonly owned=(.)
readonly directories=()
readonly resume_by=()
readonly gpus=yes
readonly stage=simulate
readonly script=submit_simulate.sh
readonly references=()
readonly borrowed=()
readonly needs=()
readonly patience=45
readonly image_sha256=
readonly environment_sha256=
readonly runner=host
readonly bundle_id=abababababababababababababababababababababababababababababababab
readonly instance=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
readonly valska_version=1.2.3

# compose [ARGV...]: the command, from the outside in. ARGV stands in for the payload.
compose() {
    local argv=("$@")
    (($#)) || argv=("${payload[@]}" "${going_on[@]}")
    command=(env "${environment[@]}" "${argv[@]}")
    command=(srun --mpi="${VALSKA_SRUN_MPI:-pmi2}" --ntasks="$ranks" --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 "${command[@]}")
}

# --- The host runner: the site's set-up lines, nothing else --------------------------------------

activate() { :; }

runner_version() { :; }

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


