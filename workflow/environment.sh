#!/bin/sh
# Makes .venv from requirements.lock. Safe to kill at any moment: the stamp comes last, and a venv whose
# installation was cut short is made anew.
set -eu
cd "$(dirname "$0")/.."
venv=.venv

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3.12 python3 python; do
    if fits "$candidate"; then python=$candidate; break; fi
  done
fi
if [ -z "$python" ] || ! fits "$python"; then
  found=$("${python:-python3}" --version 2>&1 || true)
  echo "ulm needs Python 3.11 or newer; found ${found:-none}. Install one, or name it: make PYTHON=/path/to/python3.11" >&2
  exit 2
fi

# Another installation here, perhaps of a `make` that was killed: let it end.
marker=$venv/.installing
while other=$(cat "$marker" 2>/dev/null) && [ -n "$other" ] && kill -0 "$other" 2>/dev/null; do
  [ -n "${waiting:-}" ] || echo "another installation into $venv is at work (process $other); waiting for it to end"
  waiting=1
  sleep 1
done
done=$venv/.installed
if [ -n "${waiting:-}" ] && [ "$done" -nt requirements.lock ] && [ "$done" -nt pyproject.toml ]; then exit 0; fi

if [ -e "$marker" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$venv"
  mkdir "$venv"
  echo $$ >"$marker"
  "$python" -m venv "$venv" || { echo "could not make $venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
fi
echo $$ >"$marker"
echo "installing the locked environment into $venv (a few minutes the first time)"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check -r requirements.lock
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
rm -f "$marker"
touch "$done"
