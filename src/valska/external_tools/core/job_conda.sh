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

