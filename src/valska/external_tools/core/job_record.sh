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
