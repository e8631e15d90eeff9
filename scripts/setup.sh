#!/bin/sh
# Makes .venv hold exactly what requirements.lock names, and this project, editable.
# Quick when nothing changed. Both stamps are written last, so an interrupted run is never taken for a whole one.
# PYTHON=/path/to/python chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
venv_python=$venv/bin/python
lock_stamp=$venv/.requirements-stamp
project_stamp=$venv/.project-stamp

say() { printf '%s\n' "setup: $*" >&2; }
fail() {
  say "$*"
  exit 1
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# PYTHON if it is given; otherwise the first of the usual names that is new enough.
choose_python() {
  if [ -n "${PYTHON:-}" ]; then
    is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON does not run, or is older than Python 3.11. Name one that is 3.11 or newer."
    printf '%s\n' "$PYTHON"
    return
  fi
  for name in python3.11 python3 python3.12 python3.13; do
    if is_new_enough "$name"; then
      printf '%s\n' "$name"
      return
    fi
  done
  fail "no Python 3.11 or newer was found ($(python3 --version 2>&1 || true))." \
    "Install one (Debian, Ubuntu: apt install python3.11 python3.11-venv; Fedora: dnf install python3.11)," \
    "or name yours: make PYTHON=/path/to/python3.11 setup"
}

# The folder counts: a .venv holds absolute paths and does not survive being moved.
digest() { { pwd && cat "$@"; } | cksum_of_stdin; }
cksum_of_stdin() { "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

holds() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

make_venv() {
  if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    fail "$python has no venv module. Install it (Debian, Ubuntu: apt install python3-venv)," \
      "or name another Python: make PYTHON=/path/to/python3.11 setup"
  fi
  rm -rf "$venv"
  "$python" -m venv "$venv"
}

install_requirements() {
  say "installing what requirements.lock names into $venv (a minute or so, once)"
  make_venv
  "$venv_python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
  printf '%s\n' "$1" >"$lock_stamp"
}

install_project() {
  "$venv_python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --no-deps --no-build-isolation --editable .
  printf '%s\n' "$1" >"$project_stamp"
}

# Two `make` at once must not build the same .venv; without flock(1) they are only asked not to.
if command -v flock >/dev/null 2>&1; then
  exec 9>.venv.lock
  flock 9
fi

python=$(choose_python)
lock_digest=$(digest requirements.lock)
if ! holds "$lock_stamp" "$lock_digest" || ! "$venv_python" -c '' >/dev/null 2>&1; then
  install_requirements "$lock_digest"
fi
# An editable install maps the packages it found, so new ones in generated/ count as a change.
project_digest=$(find generated -mindepth 1 -maxdepth 1 2>/dev/null | LC_ALL=C sort | digest pyproject.toml -)
if ! holds "$project_stamp" "$project_digest"; then
  install_project "$project_digest"
fi
