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
