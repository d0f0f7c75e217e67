#!/bin/sh
# Starts bootstrap.py with the first Python 3 that really starts; bootstrap.py then looks for the best one.
here=$(dirname "$0")
shims=$(dirname "$(command -v python3 || echo /usr/bin/python3)")
for python in "$PYTHON" python3 python3.12 python3.13 python3.11 python \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3 "$shims"/../versions/3.*/bin/python3; do
    [ -n "$python" ] || continue
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1 || continue
    exec "$python" -B "$here/bootstrap.py" "$@"
done
echo "no Python 3 starts here; install Python 3.12 (Debian: apt install python3 python3-venv), then run this again" >&2
exit 1
