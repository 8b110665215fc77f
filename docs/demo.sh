#!/usr/bin/env bash
# The main job from nothing: a real pyuvsim simulation, bundled, run in its container by the local
# scheduler, and verified. Needs valska on the PATH (make demo sees to it); leaves demo/ behind.
set -euo pipefail

root=$(cd -P -- "$(dirname -- "$0")/.." && pwd)
results=$root/demo
start=$SECONDS

title() {
    printf '\n== %s\n' "$1"
}

# The command as a reader would type it, then its own output.
try() {
    printf '$ %s\n' "$*"
    "$@"
}

title "Apptainer"
"$root/tests/cluster/apptainer.sh"
apptainer --version

title "The image, from containers/pyuvsim.def"
"$root/containers/build-images.sh" pyuvsim

title "Bundle: everything that the run needs, in one directory"
run_id=demo-$(date -u +%Y%m%dT%H%M%SZ)
bundle=$results/$run_id
try valska bundle pyuvsim --template hera_small --run-id "$run_id" -o "$bundle"

title "Submit: the local scheduler runs the same script that Slurm would"
try valska submit "$bundle" --scheduler local --wait

title "Verify: every file against its manifest"
try valska verify "$bundle"

title "Plot: the simulated visibilities"
try valska plot "$bundle" -o "$results/$run_id.png"

title "What is there"
(cd "$results" && find "$run_id" -type f | sort | sed 's/^/  /')

title "What was proved"
python - "$bundle/manifest.json" "$bundle"/records/*.json <<'PY'
import json
import sys

manifest, record = (json.load(open(path)) for path in sys.argv[1:3])
output = record["outputs"][0]
print(f"  bundle id   {manifest['bundle_id']}")
print(f"  seal        {record['seal']}")
print(f"  image       {record['image']['sha256']} (checked by the job: {record['image']['checked']})")
base = manifest["image"]["base"]
print(f"  base        {base['original'] if not base['replaced'] else 'a Debian base made here, as no registry answered'}")
print(f"  ran         {manifest['stages'][0]['argv'][0]} on {record['host']['name']}, Apptainer {record['runner']['version']}")
print(f"  ended       {record['state']}, exit code {record['exit_code']}, after {record['elapsed_s']} s")
print(f"  wrote       {output['path']}, {output['size']} bytes")
print(f"              sha256 {output['sha256']}")
PY
printf '\nDone in %d s. The bundle: %s\n' "$((SECONDS - start))" "${bundle#"$PWD"/}"
