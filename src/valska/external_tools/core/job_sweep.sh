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

