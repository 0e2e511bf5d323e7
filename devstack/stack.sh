#!/usr/bin/env bash
# Brings up a Cellplane cloud on this machine and proves that it boots servers. `devstack/stack.sh --help` names the options.
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$repo/devstack/environment.sh"

export CELLPLANE_STATE=$(realpath -m -- "${CELLPLANE_STATE:-$repo/.devstack}")
cd "$repo"

# A wrong option is told before anything is installed; --help ends here.
python=$venv/bin/python; [ -x "$python" ] || python=$(find_python)
if [ -n "$python" ]; then
    "$python" -m devstack.options "$@"
    for option in "$@"; do
        case $option in -h | --help) exit 0 ;; esac
    done
fi

prepare_environment devstack
exec "$venv/bin/python" -m devstack.stack "$@"
