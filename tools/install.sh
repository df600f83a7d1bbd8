#!/usr/bin/env bash
# Makes the virtual environment with everything that `make demo` and `make test` need. Called by the Makefile.
#
#   tools/install.sh VENV test-tools   the browser that tests open reports in, where we may install it
#   tools/install.sh VENV          PYTHON       interpreter to build it with (default python3)
#                                  TORCH_INDEX  package index for torch alone, e.g. PyTorch's CPU wheels (default: pip's)
set -euo pipefail

VENV=$1
PYTHON=${PYTHON:-python3}
TORCH_INDEX=${TORCH_INDEX:-}
# Shared libraries that Open3D's wheel needs and does not bring.
SYSTEM_LIBRARIES="libusb-1.0-0 libgl1 libegl1 libgomp1 libx11-6"
BROWSER="chromium chromium-driver"

# Without a browser the tests that need one are skipped, so nothing stops here.
if [ "${2:-}" = test-tools ]; then
    if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $BROWSER; } \
            || echo "note: no browser could be installed; tests of the report's page are skipped" >&2
    else
        echo "note: tests of the report's page are skipped without a browser; install one with" >&2
        echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $BROWSER" >&2
    fi
    exit 0
fi

# apt_install PACKAGES REASON: installs when we may, otherwise says the exact command and stops.
apt_install() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $1
    else
        echo "error: $2; install it with" >&2
        echo "    sudo apt-get update && sudo apt-get install -y $1" >&2
        echo "(or the same packages of your system), then run make again" >&2
        exit 1
    fi
}

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: $PYTHON is $("$PYTHON" --version 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.11 ..." >&2
    exit 1
fi
if ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
    apt_install python3-venv "$PYTHON can't make virtual environments"
fi

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
PIP="$VENV/bin/python -m pip --disable-pip-version-check"
TORCH=$(grep '^torch==' constraints.txt)
if [ -n "$TORCH_INDEX" ]; then
    $PIP install -q --index-url "$TORCH_INDEX" "$TORCH"
else
    $PIP install -q "$TORCH"
fi
$PIP install -q -c constraints.txt -e ".[dev,train,heic]"

if ! "$VENV/bin/python" -c 'import open3d' >/dev/null 2>&1; then
    apt_install "$SYSTEM_LIBRARIES" "Open3D can't be imported: a system library is missing"
    "$VENV/bin/python" -c 'import open3d'  # still failing: its own message says what is wrong
fi
