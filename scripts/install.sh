#!/usr/bin/env bash
# For a coordinator's or a hospital's machine: sets everything up, and says where the two commands are.
set -euo pipefail
# shellcheck source=scripts/bootstrap.sh
. "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
bootstrap base
say "Ready. For this shell:  export PATH=\"$CAMEO_VENV/bin:\$PATH\""
say "Then: cameo --help (coordinator, researchers), cameo-node --help (a hospital)"
