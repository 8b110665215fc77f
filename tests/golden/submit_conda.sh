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
readonly ranks=1
readonly probe=()
readonly declared=(out.txt)
readonly owned=(.)
readonly directories=()
readonly resume_by=()
readonly gpus=no
readonly stage=simulate
readonly script=submit_simulate.sh
readonly references=()
readonly borrowed=()
readonly needs=()
readonly patience=45
readonly image_sha256=
readonly environment_sha256=
readonly runner=conda
readonly bundle_id=abababababababababababababababababababababababababababababababab
readonly instance=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
readonly valska_version=1.2.3

# compose [ARGV...]: the command, from the outside in. ARGV stands in for the payload.
compose() {
    local argv=("$@")
    (($#)) || argv=("${payload[@]}" "${going_on[@]}")
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


# --- From here on every valska job script is the same -------------------------------------------
# It finds the bundle, checks it, runs the command above, and writes records/<stage>-<job>.json.
# $bundle is where it runs; $common is where scripts, inputs and site.env are, the same for a bundle.
# bash and coreutils are enough (and Apptainer, where the runner is a container).

common='' bundle='' place='' list='' list_sha256='' seal='' expected_seal='' started_in='' show='' resume='' reason=''
signal='' signal_number='' signalled_s=0 child='' child_code='' exit_code='' record='' recorded='' attempt='' scheduler=none
job_id='' task='' restart=0 job_name='' started='' started_s=0 version='' environment_json='' image='' image_checked=''
apptainer=apptainer scratch='' site_env_sha256='' site_env_json=null working_directory='' set_aside='' resumed_from=''
host_json='' user_name='' inputs_checked=0
command=() going_on=() outputs=() output_digests=() answers=() found_outputs=() missing_outputs=() shared=() loans=()

main() {
    export LC_ALL=C
    own_shell
    started_in=$PWD
    if ! take_arguments "$@"; then
        usage >&2
        exit 2
    fi
    identify_job
    find_common
    enter_run
    [[ -z $show ]] || show_command
    describe_job
    open_log
    check_not_running
    write_record running || refuse 1 "cannot write in $bundle"
    load_site
    make_scratch
    check_seal
    find_loans
    check_needs
    prepare_runner
    check_references
    check_borrowed
    check_ranks
    prepare_outputs
    make_view
    compose
    write_record running
    probe_ranks
    run_payload
    finish
}

take_arguments() {
    local word words=()
    for word in "$@"; do
        case $word in
            --help)
                usage
                exit 0
                ;;
            --show) show=yes ;;
            --resume) resume=yes ;;
            *) words+=("$word") ;;
        esac
    done
    take_words "${words[@]}"
}

usage_of_options() {
    printf '  --resume  go on from what an earlier attempt left, if the stage can; otherwise it is set aside\n'
    printf '  --show    print the command and run nothing\n'
}

show_command() {
    load_site
    find_loans
    scratch='<scratch>' image=${image:-'<image>'}
    compose
    printf '%q ' "${command[@]}"
    printf '\n'
    exit 0
}

# What the caller's shell or a set-up line may have changed, back to what this script means.
own_shell() {
    set +efuC +o posix
    shopt -u failglob nocasematch nocaseglob extglob
    unset CDPATH GLOBIGNORE
    trap 'on_signal HUP 1' HUP
    trap 'on_signal INT 2' INT
    trap 'on_signal TERM 15' TERM
    trap clean_up EXIT
}

say() {
    printf 'valska: %s\n' "$*" >&2
}

# refuse EXIT_CODE REASON: a check before the payload failed, if no signal ended what was checking.
refuse() {
    stop_if_signalled
    reason=$2
    say "refused: $reason"
    if [[ -n $record ]]; then exit_code=$1 write_record refused; fi
    exit "$1"
}

# --- Finding the bundle --------------------------------------------------------------------------

# The surest place first; a VALSKA_BUNDLE left over from another run is asked last.
find_common() {
    local self candidate here=
    self=$(exec sha256sum <"$0") || refuse 3 "cannot read this script"
    self=${self%% *}
    if [[ ${0##*/} == "$script" ]]; then
        here=${0%"$script"}
        [[ $here == /* ]] || here=$PWD/$here
    fi
    for candidate in "$here" "$PWD" "${SLURM_SUBMIT_DIR:-}" "${VALSKA_BUNDLE:-}"; do
        if [[ $candidate == /* ]] && lists_this_script "$candidate/SHA256SUMS" "$self"; then
            cd -P -- "$candidate" || refuse 3 "cannot enter $candidate"
            common=$PWD
            return
        fi
    done
    refuse 3 "what this script belongs to is not found, or the script was altered; start it in its bundle (or sweep), or set VALSKA_BUNDLE"
}

lists_this_script() {
    local digest path
    [[ -r $1 ]] || return 1
    while read -r digest path; do
        [[ $digest == "$2" && $path == "$script" ]] && return 0
    done <"$1"
    return 1
}

check_seal() {
    if [[ -n $expected_seal && $expected_seal != "$seal" ]]; then
        refuse 5 "$bundle was changed since it was submitted: its seal is $seal, not $expected_seal"
    fi
    list_sealed >"$scratch/sums"
    if intact_by_openssl; then return; fi
    run_child sha256sum --check --strict --quiet "$scratch/sums" >"$scratch/report" 2>&1
    stop_if_signalled
    if ((child_code)); then
        REPLY=$(<"$scratch/report")
        refuse 5 "$bundle was altered: ${REPLY//$'\n'/; }"
    fi
}

# Whether OpenSSL, which may be far faster, finds the digest of every file. If not, sha256sum says why.
intact_by_openssl() {
    local i lines chunk
    command -v openssl >/dev/null || return 1
    mapfile -t lines <"$scratch/sums"
    ((${#lines[@]})) || return 1
    for ((i = 0; i < ${#lines[@]}; i += 500)); do
        chunk=("${lines[@]:i:500}")
        run_child openssl dgst -sha256 -r "${chunk[@]#*  }" >"$scratch/found" 2>/dev/null
        stop_if_signalled
        [[ $(<"$scratch/found") == "$(printf '%s\n' "${chunk[@]/  / *}")" ]] || return 1
    done
}

# sealed_in DIRECTORY [PREFIX]: what its SHA256SUMS lists, but an image, which is checked by itself.
sealed_in() {
    local line
    while IFS= read -r line; do
        [[ $runner == container && $1/${line:66} == "$image" ]] || printf '%s\n' "${line:0:66}${2:-}${line:66}"
    done <"$1/SHA256SUMS"
}

# --- The site ------------------------------------------------------------------------------------

load_site() {
    local path
    site_setup() { :; }
    site_image=${VALSKA_IMAGE:-}
    declare -gA VALSKA_REFERENCES=()
    declare -ga VALSKA_MOUNTS=()
    VALSKA_APPTAINER='' VALSKA_SCRATCH='' VALSKA_SRUN_MPI=''
    if [[ -r $common/site.env ]]; then
        bash -n "$common/site.env" || refuse 3 "site.env is not a script that bash can read"
        VALSKA_IMAGE=
        # shellcheck source=/dev/null
        source "$common/site.env"
        hex_of "$(exec_sha256 "$common/site.env")"
        site_env_sha256=$REPLY
        json_string "$(<"$common/site.env")"
        site_env_json=$REPLY
        [[ -n $VALSKA_IMAGE ]] && [[ -e $VALSKA_IMAGE || -z $site_image ]] && site_image=$VALSKA_IMAGE
    fi
    apptainer=${VALSKA_APPTAINER:-apptainer}
    image=$site_image
    for path in "$common"/containers/*.sif; do
        [[ -e $path ]] && image=$path
    done
}

set_up() {
    local code
    site_setup
    code=$?
    own_shell
    cd -- "$bundle" || refuse 1 "cannot enter $bundle"
    ((code == 0)) || refuse 3 "the site's set-up lines ended with exit code $code; the last one has to succeed"
}

make_scratch() {
    scratch=$(mktemp -d "${VALSKA_SCRATCH:-${TMPDIR:-/tmp}}/valska-XXXXXXXX") ||
        refuse 3 "no scratch directory; set scratch in the configuration, or TMPDIR"
    [[ $scratch == /* ]] || scratch=$PWD/$scratch
}

clean_up() {
    local code=$?
    if [[ $recorded == running ]]; then
        exit_code=$((code ? code : 1))
        reason="the job script ended early, with exit code $code; see its log, and the set-up lines in site.env"
        say "$reason"
        write_record failed
        code=$exit_code
    fi
    if [[ -n $scratch && -d $scratch ]]; then rm -rf -- "$scratch"; fi
    exit "$code"
}

# --- Running -------------------------------------------------------------------------------------

on_signal() {
    if [[ -z $signal ]]; then signal=$1 signal_number=$2 signalled_s=$SECONDS; fi
    if [[ -n $child ]]; then kill -TERM "$child" 2>/dev/null; fi
}

# run_child COMMAND...: in the background, so that a signal reaches it at once; waits until it is
# gone. One that does not heed TERM is killed while there is time left to write the record.
run_child() {
    "$@" &
    child=$!
    if [[ -n $signal ]]; then kill -TERM "$child" 2>/dev/null; fi
    wait "$child"
    child_code=$?
    while [[ -n $signal ]] && kill -0 "$child" 2>/dev/null; do
        if ((SECONDS - signalled_s >= patience)); then kill -KILL "$child" 2>/dev/null; fi
        sleep 0.1
    done
    child=
}

stop_if_signalled() {
    [[ -z $signal ]] && return
    exit_code=$((128 + signal_number)) reason="stopped by SIG$signal before the payload started"
    if [[ -n $record ]]; then write_record signalled; fi
    exit "$exit_code"
}

# Ranks that do not find each other run as many worlds of size 1, and all write one file.
probe_ranks() {
    local wanted='' found i
    ((ranks > 1 && ${#probe[@]})) || return 0
    for ((i = 0; i < ranks; i++)); do wanted+="${wanted:+ }$ranks"; done
    compose "${probe[@]}"
    run_child within "$working_directory" "${command[@]}" >"$scratch/probe" 2>"$scratch/probe.err" </dev/null
    stop_if_signalled
    compose
    found=$(<"$scratch/probe")
    found=${found//$'\n'/ }
    if [[ $found != "$wanted" ]]; then
        cat -- "$scratch/probe.err" >&2
        refuse 3 "MPI does not give one world of $ranks ranks; each rank reports a world of: $found"
    fi
}

run_payload() {
    stop_if_signalled
    run_child guarded within "$working_directory" "${command[@]}" </dev/null
    exit_code=$child_code
}

# guarded COMMAND...: it ends soon after this script, also where SIGKILL ends this script and nobody
# ends what is left of a job. Otherwise the next attempt would write the same files at the same time.
guarded() {
    local process=$BASHPID guard
    # shellcheck disable=SC2016
    guard='trap "" HUP INT TERM; while kill -0 "$1" && kill -0 "$2"; do sleep 1; done
        kill -TERM "$2" && sleep 5 && kill -KILL "$2"'
    (cd / && exec bash -c "$guard" guard "$$" "$process" </dev/null >/dev/null 2>&1 &)
    "$@"
}

# within DIRECTORY PROGRAM...
within() {
    cd -- "$1" && shift && exec "$@"
}

finish() {
    local path state=completed
    return_outputs
    for path in "${declared[@]}"; do
        find_outputs "$path"
        ((${#found_outputs[@]})) || missing_outputs+=("$path")
    done
    if [[ -n $signal ]]; then
        state=signalled exit_code=$((128 + signal_number)) reason="stopped by SIG$signal"
    elif ((exit_code != 0)); then
        state=failed reason="the payload ended with exit code $exit_code"
    elif ((${#missing_outputs[@]})); then
        state=failed exit_code=66 reason="the payload ended with exit code 0 without: ${missing_outputs[*]}"
    fi
    list_owned
    if ! write_record "$state"; then
        state=failed reason=${reason:-its record cannot be written} exit_code=$((exit_code ? exit_code : 1))
    fi
    runner_version
    if [[ -z $signal ]]; then hash_outputs; fi
    write_record "$state"
    say "stage $stage: $state${reason:+ ($reason)}"
    exit "$exit_code"
}

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

# --- The record ----------------------------------------------------------------------------------

identify_job() {
    local line
    scheduler=none job_id=${VALSKA_JOB_ID:-}
    if [[ -n ${SLURM_JOB_ID:-} && ${0##*/} != "$script" ]]; then
        scheduler=slurm job_id=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
        task=${SLURM_ARRAY_TASK_ID:-} restart=${SLURM_RESTART_COUNT:-0} job_name=${SLURM_JOB_NAME:-}
    elif [[ $job_id =~ ^local-[0-9a-f-]{36}$ ]]; then
        scheduler=local job_name=${VALSKA_JOB_NAME:-} task=${VALSKA_TASK:-}
    else
        read -r line </proc/sys/kernel/random/uuid
        job_id=local-$line
    fi
    [[ $task =~ ^(0|[1-9][0-9]{0,8})?$ ]] || refuse 2 "'$task' is not the index of an array's task"
    attempt=$stage-$job_id${task:+_$task}
}

describe_job() {
    # An inherited HOSTNAME is that of the submitting host.
    read -r HOSTNAME </proc/sys/kernel/hostname
    user_name=$(exec id -un 2>/dev/null) || user_name=$EUID
    seal=$(exec sha256sum <SHA256SUMS)
    seal=${seal%% *}
    now
    started=$REPLY started_s=$SECONDS
    record=records/$attempt-r$restart.json
    describe_host
    if [[ ! -d records || ! -d logs || ! -d outputs ]]; then
        mkdir -p records logs outputs || refuse 1 "cannot write in $bundle"
    fi
}

describe_host() {
    local line system release cpu=unknown memory=0 gpu_list=()
    read -r system </proc/sys/kernel/ostype
    read -r release </proc/sys/kernel/osrelease
    while IFS= read -r line; do
        [[ $line == 'model name'* ]] && cpu=${line#*: } && break
    done </proc/cpuinfo
    while read -r line memory _; do
        [[ $line == MemTotal: ]] && break
    done </proc/meminfo
    if [[ $gpus == yes ]] && command -v nvidia-smi >/dev/null; then mapfile -t gpu_list < <(nvidia-smi -L); fi
    json_object name "$HOSTNAME" kernel "$system $release" cpu "$cpu"
    host_json=${REPLY%\}}
    json_list "${gpu_list[@]}"
    host_json+=", \"cpus\": $(unset OMP_NUM_THREADS OMP_THREAD_LIMIT && nproc), \"memory_kib\": $memory, \"gpus\": $REPLY}"
}

# A record that says running may be of a job that was lost; only a live one stands in the way.
check_not_running() {
    local path other
    for path in records/"$stage"-*.json; do
        other=${path#records/"$stage"-} other=${other%-r*.json}
        [[ -r $path && $other != "${attempt#"$stage-"}" ]] || continue
        if record_says_running "$path" && is_alive "$other"; then
            refuse 3 "stage $stage is running already, as job $other"
        fi
    done
}

record_says_running() {
    local line
    other_host='' other_pid=''
    while IFS= read -r line; do
        case $line in
            *'"state": "'*) [[ $line == *'"running"'* ]] || return 1 ;;
            *'"pid": '*) other_pid=${line##*: } other_pid=${other_pid%,} ;;
            *'"host": {"name": '*) other_host=${line#*'"name": '} other_host=${other_host%%,*} ;;
        esac
    done <"$1"
}

is_alive() {
    if [[ $1 == local-* ]]; then
        json_string "$HOSTNAME"
        [[ $other_host == "$REPLY" && -r /proc/$other_pid/cmdline ]] &&
            [[ $(tr '\0' ' ' <"/proc/$other_pid/cmdline") == *"$script"* ]]
    else
        command -v squeue >/dev/null && [[ -n $(squeue --noheader --jobs "$1" --states running 2>/dev/null) ]]
    fi
}

# The functions from here on leave their text in REPLY: a subshell for every string would cost more
# than the start of the container.

now() {
    TZ=UTC0 printf -v REPLY '%(%Y-%m-%dT%H:%M:%SZ)T' -1
}

json_string() {
    local text=$1 i char escaped='[[:cntrl:]]'
    if [[ $text == *[$'\x80'-$'\xff']* && ! $text =~ $utf8 ]]; then
        escaped=$'[[:cntrl:]\x80-\xff]'
    fi
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    REPLY=$text
    if [[ $text == *$escaped* ]]; then
        # A byte that is not of UTF-8 becomes a lone surrogate, from which a reader can restore it.
        REPLY=
        for ((i = 0; i < ${#text}; i++)); do
            char=${text:i:1}
            # shellcheck disable=SC2254
            case $char in
                [[:cntrl:]]) printf -v char '\\u%04x' "'$char" ;;
                $escaped) printf -v char '\\udc%02x' "'$char" ;;
            esac
            REPLY+=$char
        done
    fi
    REPLY="\"$REPLY\""
}

json_or_null() {
    if [[ -n $1 ]]; then json_string "$1"; else REPLY=null; fi
}

json_list() {
    local item list='' separator=''
    for item in "$@"; do
        json_string "$item"
        list+=$separator$REPLY separator=', '
    done
    REPLY="[$list]"
}

# json_object NAME VALUE...: all values are strings or null.
json_object() {
    local object='' separator=''
    while (($#)); do
        json_or_null "$2"
        object+="$separator\"$1\": $REPLY" separator=', '
        shift 2
    done
    REPLY="{$object}"
}

json_slurm() {
    local name pairs=()
    for name in SLURM_JOB_ID SLURM_JOB_NAME SLURM_CLUSTER_NAME SLURM_JOB_PARTITION SLURM_JOB_ACCOUNT SLURM_JOB_QOS \
        SLURM_JOB_NODELIST SLURM_JOB_NUM_NODES SLURM_NTASKS SLURM_CPUS_PER_TASK SLURM_MEM_PER_NODE SLURM_MEM_PER_CPU \
        SLURM_JOB_GPUS SLURM_RESTART_COUNT SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_SUBMIT_HOST SLURM_SUBMIT_DIR; do
        if [[ -n ${!name:-} ]]; then pairs+=("$name" "${!name}"); fi
    done
    json_object "${pairs[@]}"
}

json_outputs() {
    local i list='' separator=''
    ask_of_outputs stat -Lc %s --
    for ((i = 0; i < ${#outputs[@]}; i++)); do
        json_string "${outputs[i]}"
        list+="$separator"$'\n'"    {\"path\": $REPLY, \"size\": ${answers[i]:-0}, "
        json_or_null "${output_digests[i]:-}"
        list+="\"sha256\": $REPLY}" separator=,
    done
    REPLY="[$list]"
}

# put NAME JSON, put_string NAME TEXT: one field of the record.
put() {
    fields+="${fields:+,$'\n'}  \"$1\": $2"
}

put_string() {
    json_or_null "$2"
    put "$1" "$REPLY"
}

# write_record STATE: whole or not at all.
write_record() {
    local fields='' ended='' elapsed=null runner_json
    recorded=$1
    if [[ $1 != running ]]; then
        now
        ended=$REPLY elapsed=$((SECONDS - started_s))
    fi
    put_string schema_version 1.0
    put_string stage "$stage"
    put_string state "$1"
    json_object scheduler "$scheduler" id "$job_id" task "$task" name "$job_name"
    put job "${REPLY%\}}, \"restart\": $restart}"
    put pid "$$"
    put_string bundle_id "$bundle_id"
    put_string instance "$instance"
    put_string seal "$seal"
    put_string valska_version "$valska_version"
    put_string started_utc "$started"
    put_string ended_utc "$ended"
    put elapsed_s "$elapsed"
    put exit_code "${exit_code:-null}"
    put_string signal "$signal"
    put_string reason "$reason"
    put_string user "$user_name"
    put host "$host_json"
    json_slurm
    put slurm "$REPLY"
    json_object kind "$runner" version "$version"
    runner_json=${REPLY%\}}
    json_list "${command[@]}"
    put runner "$runner_json, \"command\": $REPLY}"
    REPLY=null
    if [[ -n $image_checked ]]; then json_object sha256 "$image_sha256" path "$image" checked "$image_checked"; fi
    put image "$REPLY"
    put environment "${environment_json:-null}"
    put_string site_env_sha256 "$site_env_sha256"
    put site_env "$site_env_json"
    put inputs_checked "$inputs_checked"
    put_string set_aside "$set_aside"
    put_string resumed_from "$resumed_from"
    json_outputs
    put outputs "$REPLY"
    json_list "${missing_outputs[@]}"
    put missing_outputs "$REPLY"
    if ! { printf '{\n%s\n}\n' "$fields" >"$record.tmp" && mv -f -- "$record.tmp" "$record"; }; then
        say "cannot write $record"
        return 1
    fi
}

utf8=$'^([\x01-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|'
utf8+=$'\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})*$'

# check_own STAGE DIRECTORY: what another stage of this run lends is there, whole. This one would
# make it itself, and so would the next.
check_own() {
    newest_attempt . "$1"
    [[ $REPLY == completed ]] || refuse 3 "it needs stage $1, which has not completed: its newest attempt is ${REPLY:-none}"
    [[ -d outputs/$2 ]] || refuse 3 "it needs outputs/$2 of stage $1, which is not there"
}

# newest_attempt UNIT STAGE: its state, into REPLY. One that was refused before it touched the
# outputs does not count.
newest_attempt() {
    local path line state started set_aside newest=''
    REPLY=
    for path in "$1/records/$2"-*.json; do
        [[ -r $path ]] || continue
        state='' started='' set_aside=null
        while IFS= read -r line; do
            case $line in
                '  "state": '*) state=${line#*: \"} ;;
                '  "started_utc": '*) started=${line#*: \"} ;;
                '  "set_aside": '*) set_aside=${line#*: } ;;
                '  "outputs": '*) break ;;
            esac
        done <"$path"
        [[ $state == refused* && $set_aside == null* || $started < $newest ]] && continue
        newest=$started REPLY=${state%%\"*}
    done
}

main "$@"
exit
