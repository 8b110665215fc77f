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
readonly image_sha256=efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef
readonly environment_sha256=
readonly runner=container
readonly bundle_id=abababababababababababababababababababababababababababababababab
readonly instance=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
readonly valska_version=1.2.3

# compose [ARGV...]: the command, from the outside in. ARGV stands in for the payload.
compose() {
    local argv=("$@") variables=("${environment[@]/#/APPTAINERENV_}") name source i
    (($#)) || argv=("${payload[@]}" "${going_on[@]}")
    for name in CUDA_VISIBLE_DEVICES SLURM_JOB_ID SLURM_ARRAY_TASK_ID; do
        if [[ -n ${!name:-} ]]; then variables+=("APPTAINERENV_$name=${!name}"); fi
    done
    command=(
        env "${variables[@]}"
        "$apptainer" exec
        --cleanenv                                               # nothing of the caller's environment
        --containall                                             # own /tmp, /dev and process ids
        --no-home                                                # no home directory, so no ~/.local packages
        --no-eval                                                # values are values, never shell code
        --nv                                                     # the host's GPU driver
        --mount "$(mount_of "$bundle" /bundle ro)"               # the bundle, read-only
        --mount "$(mount_of "$bundle/outputs" /bundle/outputs)"  # the only place it can write
        --pwd /bundle/outputs                                    # where it starts
    )
    for ((i = 0; i < ${#references[@]}; i += 2)); do
        name=${references[i]}
        source=${VALSKA_REFERENCES[$name]:-}
        command+=(--mount "$(mount_of "$source" "/bundle/$name" ro)")
    done
    for ((i = 0; i < ${#loans[@]}; i += 2)); do
        command+=(--mount "$(mount_of "${loans[i + 1]}" "/bundle/${loans[i]}" ro)")
    done
    for name in "${VALSKA_MOUNTS[@]}"; do command+=(--mount "$name"); done
    command+=("$image" "${argv[@]}")
    local rank='
    for name in "${!PMI_@}" "${!PMIX_@}"; do export "APPTAINERENV_$name=${!name}"; done
    APPTAINER_WORKDIR=$(mktemp -d "$1/valska-XXXXXXXX") || exit 3
    export APPTAINER_WORKDIR
    trap : TERM
    shift
    "$@"
    code=$?
    rm -rf -- "$APPTAINER_WORKDIR"
    exit "$code"'
    command=(srun --mpi="${VALSKA_SRUN_MPI:-pmi2}" --ntasks="$ranks" --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 bash -c "$rank" valska "${VALSKA_SCRATCH:-${TMPDIR:-/tmp}}" "${command[@]}")
}

# --- The container runner ------------------------------------------------------------------------

prepare_runner() {
    local name
    set_up
    command -v "$apptainer" >/dev/null ||
        refuse 3 "no $apptainer on $HOSTNAME; load it in the configuration's setup lines, or set VALSKA_APPTAINER in site.env"
    [[ -r $image ]] ||
        refuse 3 "the image is not at '$image'; set VALSKA_IMAGE, or rebuild it with valska build"
    "$apptainer" --version >"$scratch/version" 2>/dev/null &
    version_query=$!
    check_image
    # A user's APPTAINER_BIND or APPTAINERENV_PYTHONPATH would get through --containall and --cleanenv.
    for name in "${!APPTAINER@}" "${!SINGULARITY@}"; do
        case $name in
            APPTAINER_CACHEDIR | APPTAINER_TMPDIR | APPTAINER_CONFIGDIR) ;;
            *) unset "$name" ;;
        esac
    done
    working_directory=$bundle
}

# Array tasks trust the receipt (of an embedded image, in logs/) while size, time and inode are the
# same; all others hash.
check_image() {
    local receipt=$image.receipt
    [[ $image != "$common"/* ]] || receipt=$common/logs/${image##*/}.receipt
    if [[ -n $task && -r $receipt && $(<"$receipt") == "$image_sha256 $(stat -Lc '%s %Y %i' -- "$image")" ]]; then
        image_checked='receipt'
        return
    fi
    sha256_or_stop "$image"
    [[ $REPLY == "$image_sha256" ]] ||
        refuse 5 "the image $image is not the manifest's: its sha256 is $REPLY, not $image_sha256"
    image_checked='hash'
}

# mount_of SOURCE DESTINATION [ro]: in Apptainer's CSV syntax, which takes commas and colons in names.
mount_of() {
    printf 'type=bind,"source=%s","destination=%s"%s' "${1//\"/\"\"}" "$2" "${3:+,$3}"
}

runner_version() {
    wait "$version_query"
    version=$(<"$scratch/version")
    version=${version##* }
}

# What is lent or borrowed is mounted on directories of its name.
make_view() {
    local i
    for ((i = 0; i < ${#loans[@]}; i += 2)); do
        mkdir -p -- "${loans[i]}" || refuse 1 "cannot write in $bundle/outputs"
    done
}

return_outputs() { :; }

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


