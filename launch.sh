#!/usr/bin/env bash
# ./launch.sh jobs/embed.yaml --limit=100        a first taste: 100 rows, seconds
# ./launch.sh jobs/embed.yaml                    the main job: about a minute on 2 cores
# ./launch.sh test                               the tests
#
# Finds or makes the environment, then hands over to `python -m batchinfer`. The environment is .venv beside this
# file, installed once from requirements/ (pinned, hashed); BATCHINFER_PYTHON=/path/to/python uses another one as it is.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$root/.venv"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

fail() { printf 'launch.sh: %s\n' "$1" >&2; exit 2; }

find_python() {
  local name
  for name in "${PYTHON:-}" python3.11 python3.12 python3; do
    [ -n "$name" ] && "$name" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
      && { printf '%s' "$name"; return; }
  done
  fail "needs Python 3.11 or 3.12 on the PATH (or PYTHON=/path/to/python)"
}

# ensure NAME: installs requirements/NAME-3.x.lock into .venv unless its stamp says that is done.
ensure() {
  local python minor lock stamp sum
  if [ ! -x "$venv/bin/python" ]; then
    python="$(find_python)"
    echo "launch.sh: making $venv (once)" >&2
    "$python" -m venv "$venv"
  fi
  minor="$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
  lock="$root/requirements/$1-$minor.lock"
  stamp="$venv/.installed-$1"
  [ -f "$lock" ] || fail "there is no $lock for Python $minor"
  sum="$(cksum < "$lock")"
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ] && return
  echo "launch.sh: installing $(basename "$lock") (once)" >&2
  # The lock is complete: --no-deps keeps pip from adding anything to it.
  "$venv/bin/python" -m pip install --quiet --no-deps --require-hashes --disable-pip-version-check -r "$lock" >&2 \
    || fail "pip could not install $lock; mend that and run the same command again"
  printf '%s' "$sum" > "$stamp"
}

prepare() {
  [ -n "${BATCHINFER_PYTHON:-}" ] && return
  mkdir -p "$root/.cache"
  exec 9> "$root/.cache/launch.lock"   # two first launches at once: the second waits for the first
  flock 9
  local name
  for name in "$@"; do ensure "$name"; done
  exec 9>&-
}

if [ "${1:-}" = test ]; then
  shift
  prepare run test
  cd "$root"
  exec "${BATCHINFER_PYTHON:-$venv/bin/python}" -m pytest -n "${TEST_WORKERS:-2}" --dist=worksteal "$@"
fi
prepare run
exec "${BATCHINFER_PYTHON:-$venv/bin/python}" -m batchinfer "$@"
