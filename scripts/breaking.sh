#!/bin/sh
# Do the protos break callers? Compared with the last release (a tag); without one, with where this branch left main.
# A clone without tags, without main or without history has nothing to compare with: that is said, and is no failure.
set -eu
cd "$(dirname "$0")/.."

export BUF_CACHE_DIR="${BUF_CACHE_DIR:-$PWD/.venv/buf-cache}"
say() { printf 'breaking: %s\n' "$*"; }

merge_base() {
  for main in origin/main main; do
    if git merge-base HEAD "$main" 2>/dev/null; then
      return
    fi
  done
}

base=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || merge_base)
if [ -z "$base" ]; then
  say "nothing to compare with (no release tag and no main branch in this clone)"
  exit 0
fi
if ! git cat-file -e "$base:protos/zap" 2>/dev/null || ! git cat-file -e "$base:buf.yaml" 2>/dev/null; then
  say "nothing to compare with ($base has no protos)"
  exit 0
fi

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
# An archive, not buf's own git reader: that one clones, which a worktree and a shallow clone do not allow.
git archive --output "$before/protos.tar" "$base" protos buf.yaml
mkdir "$before/tree"
tar -xf "$before/protos.tar" -C "$before/tree"
say "comparing with $(git log -1 --format='%h %s' "$base")"
.venv/bin/buf breaking --against "$before/tree"
