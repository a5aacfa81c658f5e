#!/usr/bin/env bash
# Kills one part of a federation on this machine again and again, and checks that nothing was lost or doubled.
#   scripts/soak.sh coordinator|superlink|server-app|hospital [--kills N] [--out DIR] [--seed N]
# Without --kills: 50 of the coordinator, 20 of the others. It takes from ten minutes to an hour.
set -euo pipefail
# shellcheck source=scripts/bootstrap.sh
. "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
bootstrap base
exec "$CAMEO_VENV/bin/python" -m cameo_lab.soak "$@"
