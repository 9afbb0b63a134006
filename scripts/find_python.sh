#!/bin/sh
# Print a Python 3.11-3.13 that can make virtual environments, or say how to get one. PYTHON=... chooses.
usable='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 \
    "$HOME"/.pyenv/versions/3.11.*/bin/python "$HOME"/.pyenv/versions/3.1[23].*/bin/python}; do
    if "$candidate" -c "$usable" 2>/dev/null; then
        "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
        exit 0
    fi
done
cat >&2 <<'REMEDY'
No Python 3.11, 3.12 or 3.13 with venv and ensurepip was found. One of these gives it, then run the same command again:
  Debian 12, Ubuntu 24.04    sudo apt install python3 python3-venv
  without root               curl -LsSf https://astral.sh/uv/install.sh | sh; uv python install 3.11
                             make PYTHON="$(uv python find 3.11)" ...
  it is somewhere else       make PYTHON=/path/to/python3.12 ...
REMEDY
exit 1
