#!/usr/bin/env bash
# Every check there is: style, types, import walls, tests. Sets everything up first.
#   scripts/test.sh                      all of it
#   scripts/test.sh tests/lab -k report  only these tests (everything goes to pytest)
# CAMEO_TEST_WORKERS (default 2) is how many test processes run at once.
set -euo pipefail
# shellcheck source=scripts/bootstrap.sh
. "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
bootstrap dev
cd "$CAMEO_ROOT"
bin="$CAMEO_VENV/bin"
# One computing thread a process: the workers and the hospitals of a test share the cores already.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
[ $# -eq 0 ] || exec "$bin/python" -m pytest "$@"

summary="" failed=0

# check TITLE COMMAND…: runs one check, shows its output, and remembers the outcome.
check() {
    local title="$1" start=$SECONDS outcome=ok
    shift
    printf '\n── %s\n' "$title"
    "$@" || { outcome=FAILED failed=1; }
    summary="$summary$(printf '%-24s %-8s %4ds' "$title" "$outcome" "$((SECONDS - start))")"$'\n'
}

check "ruff check" "$bin/ruff" check .
check "ruff format" "$bin/ruff" format --check .
check "mypy --strict" "$bin/mypy" --strict
check "import walls" "$bin/lint-imports"
check "pytest" "$bin/python" -m pytest -n "${CAMEO_TEST_WORKERS:-2}" --dist loadfile \
    --doctest-modules protocol/cameo_protocol tests

printf '\n── summary\n%s' "$summary"
exit "$failed"
