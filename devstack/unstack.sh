#!/usr/bin/env bash
# Stops what stack.sh started; --purge also removes its state.
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$repo/devstack/environment.sh"

[ -x "$venv/bin/python" ] || fail "there is no virtual environment $venv, so stack.sh started nothing with it"
export CELLPLANE_STATE=$(realpath -m -- "${CELLPLANE_STATE:-$repo/.devstack}")
cd "$repo"
exec "$venv/bin/python" -m devstack.unstack "$@"
