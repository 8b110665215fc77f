# --- The conda runner ----------------------------------------------------------------------------

activate() {
    declare -F site_activate >/dev/null ||
        refuse 3 "site.env names no conda environment; set conda in the configuration and run valska submit"
    site_activate || refuse 3 "the conda environment cannot be activated on $HOSTNAME"
}

# The record keeps the environment's explicit package list: what conda needs to make it again.
runner_version() {
    local packages
    version=$(conda --version 2>/dev/null)
    version=${version##* }
    mapfile -t packages < <(conda list --explicit --md5 2>/dev/null)
    json_object name "${CONDA_DEFAULT_ENV:-}"
    environment_json=${REPLY%\}}
    json_list "${packages[@]}"
    environment_json+=", \"explicit\": $REPLY}"
}

