#!/bin/bash
#SBATCH --job-name=toy-simulate
#SBATCH --output=logs/%x-%A.log
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --signal=B:TERM@60
#SBATCH --time=01:00:00
#SBATCH --comment="it's \"here\" \\ #1"
#SBATCH --exclusive

# Stage simulate of toy sweep r1, made by valska 1.2.3.
# In the sweep's directory:  bash submit_simulate.sh points/LABEL
# or, for many at once:  sbatch --array=0-N submit_simulate.sh LIST_SHA256 arrays/LIST
# See the command, run nothing:  bash submit_simulate.sh points/LABEL --show
# What this job runs is said here; how it checks and records follows below.
# shellcheck disable=SC2016,SC2034,SC2054,SC2317
set +o posix

readonly payload=(cp ../inputs/data.txt out.txt)
readonly environment=()
readonly ranks=1
readonly probe=()
readonly declared=(out.txt)
readonly owned=(.)
readonly directories=()
readonly resume_by=()
readonly gpus=no
readonly stage=simulate
readonly script=submit_simulate.sh
readonly references=(inputs/data.txt 1212121212121212121212121212121212121212121212121212121212121212)
readonly borrowed=()
readonly lent=()
readonly needs=()
readonly patience=45
readonly image_sha256=
readonly environment_sha256=
readonly runner=host
readonly instance=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
readonly valska_version=1.2.3

# compose [ARGV...]: the command, from the outside in. ARGV stands in for the payload.
compose() {
    local argv=("$@")
    (($#)) || argv=("${payload[@]}" "${going_on[@]}")
    command=(env "${environment[@]}" "${argv[@]}")
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


# --- A sweep: scripts, inputs and image stand in it once; a unit holds what differs ---------------
# A unit is a point (points/LABEL), or work that several points share (shared/LABEL).

usage() {
    printf 'Usage: bash %s UNIT [--resume], or, in the sweep it belongs to,\n' "$script"
    printf '       sbatch --array=0-N %s LIST_SHA256 LIST [--resume]\n' "$script"
    printf '  UNIT      directory of what to run: points/LABEL or shared/LABEL of the sweep\n'
    printf '  LIST      arrays/NAME.sums: a line for each task, the seal and the SHA256SUMS of its unit\n'
    printf '  LIST_SHA256  digest that the list must have\n'
    usage_of_options
}

take_words() {
    case $# in
        1) place=$1 && [[ -n $1 && $1 != -* ]] ;;
        2) list_sha256=$1 list=$2 && [[ $1 =~ ^[0-9a-f]{64}$ && $2 =~ ^arrays/[A-Za-z0-9._-]+$ ]] ;;
        *) return 1 ;;
    esac
}

enter_run() {
    local line
    if [[ -n $list ]]; then
        take_from_list
    elif [[ -n $task ]]; then
        refuse 2 "all tasks of an array would run $place at once; give it a list, or leave --array out"
    elif [[ $place != /* && -d $started_in/$place ]]; then
        place=$started_in/$place
    fi
    cd -P -- "$place" 2>/dev/null || refuse 3 "there is no unit $place"
    bundle=$PWD
    case ${bundle%/*} in
        "$common/points" | "$common/shared") ;;
        *) refuse 2 "$bundle is no unit of $common" ;;
    esac
    [[ -r SHA256SUMS && -r manifest.json ]] || refuse 5 "SHA256SUMS or manifest.json of $place is missing"
    while IFS= read -r line; do
        [[ $line =~ ^\ *\"bundle_id\":\ \"([0-9a-f]{64})\",?$ ]] && bundle_id=${BASH_REMATCH[1]} && break
    done <manifest.json
    [[ -n $bundle_id ]] || refuse 5 "manifest.json of $place has no bundle_id on a line of its own"
}

# The list says what each task runs, and under which seal.
take_from_list() {
    local digest lines form='^([0-9a-f]{64})  ((points|shared)/[A-Za-z0-9][A-Za-z0-9._+=-]*)/SHA256SUMS$'
    [[ -n $task ]] || refuse 2 "a list is for a job array: sbatch --array"
    digest=$(exec sha256sum <"$list") || refuse 3 "cannot read $list"
    [[ ${digest%% *} == "$list_sha256" ]] || refuse 5 "task $task: $list was changed since it was submitted"
    mapfile -t -s "$task" -n 1 lines <"$list"
    [[ ${lines[0]:-} =~ $form ]] || refuse 5 "task $task: $list has no line for it"
    expected_seal=${BASH_REMATCH[1]} place=${BASH_REMATCH[2]}
}

# Slurm's own log is one for all tasks; from here on each has its own.
open_log() {
    [[ $scheduler == none ]] || exec >>"logs/$attempt.log" 2>&1 || refuse 1 "cannot write in $bundle/logs"
}

list_sealed() {
    sealed_in "$bundle"
    sealed_in "$common" ../../
}

# What a point shares with others is run, and lies, in a unit of its own.
find_shared() {
    local path label i
    [[ $bundle != "$common/shared"/* || ${bundle##*/} == "$stage"-* ]] ||
        refuse 2 "stage $stage is not the one that ${bundle#"$common/"} is for"
    while read -r _ path; do
        [[ $path == ../../shared/*/manifest.json ]] || continue
        label=${path#../../shared/}
        label=${label%/manifest.json}
        [[ ${label%-*} != "$stage" ]] || refuse 2 "stage $stage of $place is shared work; run it in shared/$label"
        shared+=("$label")
        for ((i = 0; i < ${#lent[@]}; i += 2)); do
            [[ ${lent[i]} == "${label%-*}" ]] && loans+=("outputs/${lent[i + 1]}" "$common/shared/$label/outputs/${lent[i + 1]}")
        done
    done <SHA256SUMS
}

check_needs() {
    local label i
    for label in "${shared[@]}"; do
        newest_attempt "$common/shared/$label" "${label%-*}"
        [[ $REPLY == completed ]] ||
            refuse 3 "it needs shared/$label, which has not completed: its newest attempt is ${REPLY:-none}"
    done
    for ((i = ${#borrowed[@]}; i < ${#loans[@]}; i += 2)); do
        [[ -d ${loans[i + 1]} ]] || refuse 3 "it needs ${loans[i + 1]}, which is not there"
    done
    for ((i = 0; i < ${#needs[@]}; i += 2)); do
        [[ " ${shared[*]}" == *" ${needs[i]}-"* ]] || check_own "${needs[i]}" "${needs[i + 1]}"
    done
}

bundle_id=''


