# shellcheck shell=bash
# Makes .venv ready in this checkout: finds Python, installs the pinned releases, and is quick when repeated.
# Sourced by demo.sh and test.sh, which call `bootstrap` (or `bootstrap dev`). Needs bash >= 3.2; no root.
#
# What a person may set:
#   CAMEO_PYTHON     the Python to use (3.11-3.13); otherwise the first on PATH that runs
#   TORCH_INDEX_URL  where to take torch from, for example a mirror
#   CAMEO_GPU=1      take the default build of torch, also when it is a CUDA build of several GB
#   PIP_*            pip's own settings (index, certificates, time-outs) hold as always

CAMEO_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
CAMEO_VENV="$CAMEO_ROOT/.venv"
CAMEO_STAMP="$CAMEO_VENV/cameo-stamp"
CAMEO_CPU_INDEX="https://download.pytorch.org/whl/cpu"
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }

# fail CODE WHAT DO: the shape of every error of Cameo.
fail() {
    say "error: $1: $2"
    say "  do: $3"
    exit 2
}

# runs_as_python FILE: prints "major.minor" if FILE is a Python that really runs (a pyenv shim may exist and fail).
runs_as_python() {
    "$1" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' </dev/null 2>/dev/null
}

supported() { case "$1" in 3.11 | 3.12 | 3.13) return 0 ;; *) return 1 ;; esac }

# find_python: prints the path of a supported Python that can make virtual environments.
find_python() {
    local name file version without_venv="" seen=""
    for name in ${CAMEO_PYTHON:+"$CAMEO_PYTHON"} python3.11 python3.12 python3.13 python3 python; do
        while IFS= read -r file; do
            version="$(runs_as_python "$file")" || continue
            supported "$version" || { seen="$seen $version"; continue; }
            if "$file" -I -c 'import ensurepip, venv' </dev/null 2>/dev/null; then
                printf '%s\n' "$file"
                return 0
            fi
            without_venv="$version"
        done < <(type -ap "$name")
        if [ -n "${CAMEO_PYTHON:-}" ]; then
            fail python-unusable "CAMEO_PYTHON=$CAMEO_PYTHON is not a Python 3.11-3.13 that runs and has venv" \
                "name another one, or unset CAMEO_PYTHON"
        fi
    done
    if [ -n "$without_venv" ]; then
        fail python-without-venv "Python $without_venv is here, but its venv module is not" \
            "on Debian or Ubuntu: sudo apt-get install python$without_venv-venv; then run this again"
    fi
    fail python-missing "no Python 3.11, 3.12 or 3.13 that runs is on PATH${seen:+ (found only:$seen)}" \
        "install one (apt-get install python3.11 python3.11-venv · dnf install python3.12 · brew install python@3.12 · pyenv install 3.12), or set CAMEO_PYTHON to its path"
}

# fingerprint: prints one line that changes whenever the environment has to be made anew or brought up to date.
fingerprint() {
    "$CAMEO_VENV/bin/python" -I -S -c '
import hashlib, sys
digest = hashlib.sha256()
for name in sys.argv[2:]:
    with open(name, "rb") as file:
        digest.update(hashlib.sha256(file.read()).digest())
print("%d.%d.%d" % sys.version_info[:3], digest.hexdigest(), sys.argv[1])
' "$CAMEO_ROOT" "$CAMEO_ROOT/pyproject.toml" "$CAMEO_ROOT/constraints.txt" </dev/null 2>/dev/null
}

# stamped FEATURES: true when the last set-up finished, had these features, and nothing has changed since.
stamped() {
    local now have features feature
    [ -f "$CAMEO_STAMP" ] || return 1
    now="$(fingerprint)" || return 1
    { IFS= read -r have && IFS= read -r features; } <"$CAMEO_STAMP" || return 1
    [ "$have" = "$now" ] || return 1
    for feature in $1; do
        case " $features " in *" $feature "*) ;; *) return 1 ;; esac
    done
}

# doing LOG: what pip is doing now: the last line of its log, without control characters.
doing() {
    local line
    line="$(tail -n 1 "$1" 2>/dev/null | tr -cd '[:print:]')"
    line="${line#"${line%%[! ]*}"}"
    printf '%s' "${line:0:100}"
}

# step TITLE COMMAND…: runs a program with its output in a log; shows what it is doing and for how long.
# On failure prints the end of the log and what to do, and ends the script.
step() {
    local title="$1" log start pid width status=0 shown=0
    shift
    log="$(mktemp "${TMPDIR:-/tmp}/cameo-setup.XXXXXX")"
    start=$SECONDS
    width="$(tput cols 2>/dev/null || echo 80)"
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    # A background child of a script ignores Ctrl-C, so it is ended by hand.
    trap 'kill "$pid" 2>/dev/null; rm -f "$log"; say ""; say "interrupted; run the same command again to go on"; exit 130' INT TERM
    [ -t 2 ] || say "$title …"
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.1
        if [ -t 2 ]; then
            printf '\r\033[K%.*s' "$((width - 1))" "$title … $((SECONDS - start))s  $(doing "$log")" >&2
        elif [ $((SECONDS - start - shown)) -ge 20 ]; then
            shown=$((SECONDS - start))
            say "  … ${shown}s  $(doing "$log")"
        fi
    done
    wait "$pid" || status=$?
    trap - INT TERM
    [ ! -t 2 ] || printf '\r\033[K' >&2
    if [ "$status" -ne 0 ]; then
        say "$title: failed. The end of $log:"
        tail -n 25 "$log" | sed 's/^/  | /' >&2
        fail setup-failed "$title (exit status $status)" \
            "read the lines above: network, disk space and certificates are the usual causes, and a mirror is set with PIP_INDEX_URL and TORCH_INDEX_URL. Then run the same command again"
    fi
    rm -f "$log"
    say "$title: done in $((SECONDS - start))s"
}

PIP_INSTALL=("$CAMEO_VENV/bin/python" -m pip install --progress-bar off -c "$CAMEO_ROOT/constraints.txt")

# torch_choice PIN: asks pip what it would get. Prints "have", "default" (a CPU build) or "cuda".
torch_choice() {
    local report
    report="$("$CAMEO_VENV/bin/python" -m pip install --dry-run --no-deps -qq --report - "$1" </dev/null)" || return 1
    "$CAMEO_VENV/bin/python" -I -c '
import json, sys
chosen = [item["metadata"] for item in json.load(sys.stdin)["install"]]
if not chosen:
    print("have")
else:
    needs = [name.lower() for name in chosen[0].get("requires_dist", [])]
    gpu = any(name.startswith(("nvidia-", "cuda-", "triton")) for name in needs)
    print("cuda" if gpu and "+cpu" not in chosen[0]["version"] else "default")
' <<<"$report"
}

# install_torch: puts in the pinned torch, a CPU build unless CAMEO_GPU=1.
install_torch() {
    local pin choice
    pin="$(grep -E '^torch==' "$CAMEO_ROOT/constraints.txt")"
    if [ "${CAMEO_GPU:-}" = 1 ]; then
        step "Installing $pin, the default build (may be several GB)" \
            "${PIP_INSTALL[@]}" --no-deps --force-reinstall "$pin"
        return
    fi
    [ "$(uname -s)" = Linux ] || return 0 # elsewhere the default is a CPU build, and comes with the rest
    say "Asking pip which build of $pin it would get …"
    choice="$(torch_choice "$pin")" || fail torch-unknown "pip could not say which build of $pin it would get" \
        "check the network and pip's index, or set TORCH_INDEX_URL to an index that has a CPU build"
    if [ "$choice" = have ]; then
        return
    elif [ -n "${TORCH_INDEX_URL:-}" ]; then
        step "Installing $pin from TORCH_INDEX_URL" \
            "${PIP_INSTALL[@]}" --no-deps --index-url "$TORCH_INDEX_URL" "$pin"
    elif [ "$choice" = cuda ]; then
        step "Installing $pin, the CPU build (CAMEO_GPU=1 takes the CUDA build)" \
            "${PIP_INSTALL[@]}" --no-deps --index-url "$CAMEO_CPU_INDEX" "$pin"
    else
        step "Installing $pin" "${PIP_INSTALL[@]}" --no-deps "$pin"
    fi
}

# usable_venv: true when .venv runs, is supported, has pip, and lies where it was made (its commands name that folder).
usable_venv() {
    local version
    version="$(runs_as_python "$CAMEO_VENV/bin/python")" && supported "$version" || return 1
    case "$(sed -n 's/^command = //p' "$CAMEO_VENV/pyvenv.cfg")" in *" $CAMEO_VENV") ;; *) return 1 ;; esac
    "$CAMEO_VENV/bin/python" -m pip --version >/dev/null 2>&1 </dev/null
}

make_venv() {
    local python
    ! usable_venv || return 0
    [ ! -e "$CAMEO_VENV" ] || say ".venv was moved, or its Python does not run: making it anew"
    python="$(find_python)" || exit $?
    step "Making .venv with $python" "$python" -m venv --clear "$CAMEO_VENV"
}

# hold_lock: waits until no other script sets up this checkout. The lock is on an open file, so it ends with us.
hold_lock() {
    local python
    python="$(find_python)" || exit $?
    exec 9<>"$CAMEO_ROOT/constraints.txt"
    "$python" -I -S -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null && return 0
    say "another script is setting up this checkout; waiting for it"
    "$python" -I -S -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 2>/dev/null ||
        fail lock-failed "constraints.txt cannot be locked" "put the checkout on a local file system, then run this again"
}

# bootstrap base|dev: afterwards $CAMEO_VENV/bin holds python, cameo and cameo-node (with dev, the test tools too).
bootstrap() {
    local features="base" extras="" had=""
    [ "${1:-}" != dev ] || features="base dev"
    [ "${CAMEO_GPU:-}" != 1 ] || features="$features gpu"
    stamped "$features" && return 0
    [ -f "$CAMEO_ROOT/constraints.txt" ] || fail checkout-incomplete "constraints.txt is missing" "git restore constraints.txt"
    hold_lock
    if stamped "$features"; then
        exec 9>&-
        return 0
    fi
    say "Setting up Cameo in $CAMEO_VENV (once; takes a minute or two)"
    make_venv
    # What was there stays there: a demo after the tests does not take the test tools away.
    ! stamped "base" || had="$(sed -n 2p "$CAMEO_STAMP")"
    rm -f "$CAMEO_STAMP"
    case " $features $had " in *" dev "*) extras="[dev]" ;; esac
    install_torch
    step "Installing the build tools" "${PIP_INSTALL[@]}" hatchling editables
    step "Installing the pinned packages" "${PIP_INSTALL[@]}" --no-build-isolation -e "$CAMEO_ROOT$extras"
    { fingerprint && printf '%s\n' "$had $features"; } >"$CAMEO_STAMP.new"
    mv -f "$CAMEO_STAMP.new" "$CAMEO_STAMP"
    exec 9>&-
}
