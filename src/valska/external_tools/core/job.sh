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

