#!/usr/bin/env bash
# The main job on this machine: sets everything up, then 1 coordinator and 4 hospitals, and opens the report.
#   scripts/demo.sh [--data synthetic|heart] [--data-dir DIR] [--out DIR]     (everything goes to `cameo demo`)
set -euo pipefail
# shellcheck source=scripts/bootstrap.sh
. "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
bootstrap base
exec "$CAMEO_VENV/bin/cameo" demo "$@"
