#!/usr/bin/env bash
# The first hour on a GPU, unattended: see `first_hour.sh --help` and docs/gpu.md. Installs nothing, needs no network.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# The Python at hand: the one that is named, else the first of these that has torch.
find_python() {
    local each
    if [[ -n ${PYTHON:-} ]]; then
        printf '%s\n' "$PYTHON"
        return
    fi
    for each in /tmp/rz/bin/python "$root/.venv/bin/python" python3; do
        if command -v "$each" >/dev/null && "$each" -c 'import importlib.util as i; exit(i.find_spec("torch") is None)'; then
            printf '%s\n' "$each"
            return
        fi
    done
    echo "no Python with torch here (looked at /tmp/rz, $root/.venv and python3): name one in PYTHON" >&2
    return 1
}

python=$(find_python)
cd "$root"
PYTHONPATH=$root exec "$python" -m tests.gpu.first_hour "$@"
