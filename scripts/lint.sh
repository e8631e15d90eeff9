#!/bin/sh
# All checks of style, in one go: each runs even if an earlier one failed, and the exit status says whether any did.
# usage: scripts/lint.sh <python sources…>
set -eu
cd "$(dirname "$0")/.."

# buf wants a folder to write to, and an account without a home has none.
export BUF_CACHE_DIR="$PWD/.venv/buf-cache"

failed=0
check() {
  printf 'lint: %s\n' "$*"
  "$@" || failed=1
}

check .venv/bin/python -m ruff check --quiet "$@"
check .venv/bin/python -m ruff format --check --quiet "$@"
check .venv/bin/buf lint
check .venv/bin/buf format --diff --exit-code --path protos/zap
check scripts/breaking.sh
check .venv/bin/python scripts/generate.py --check
check .venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml tests/containers/overlay.yml
for file in Dockerfile tests/containers/*.Dockerfile tests/containers/stand_ins/*.Dockerfile; do
  check .venv/bin/hadolint "$file"
done
if command -v shellcheck >/dev/null 2>&1; then
  check shellcheck scripts/*.sh tests/containers/stand_ins/*.sh .ci/run
else
  echo 'lint: shellcheck is not installed here; scripts not checked'
fi
exit "$failed"
