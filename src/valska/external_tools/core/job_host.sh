# --- The host runner: the site's set-up lines, nothing else --------------------------------------

activate() { :; }

runner_version() { :; }

