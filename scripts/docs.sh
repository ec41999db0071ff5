#!/bin/sh
# Builds the documentation site into build/docs/html; a warning, such as a broken link, is an error. The generator (extra
# "docs") goes into .venv-docs, outside the environment. `docs.sh -b linkcheck` asks for the addresses of other sites.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv} folder=.venv-docs build=build/docs
packages=$("$venv/bin/python" -c "print(*$(sed -n 's/^DOCS = \(\[.*]\).*/\1/p' setup.py))")

if [ ! -f "$folder/.installed" ] || [ "$(cat "$folder/.installed")" != "$packages" ]; then
    rm -rf "$folder"
    # shellcheck disable=SC2086
    "$venv/bin/python" -m uv pip install --quiet --python "$venv/bin/python" --target "$folder" $packages
    echo "$packages" >"$folder/.installed"
fi
rm -rf "$build"
mkdir -p "$build/source"
"$venv/bin/python" scripts/docs_pages.py "$build/source"
PYTHONPATH=$folder:. "$venv/bin/python" -m sphinx --quiet --fail-on-warning --keep-going --conf-dir docs \
    "$@" "$build/source" "$build/html"
[ ! -f "$build/html/README.html" ] || cp "$build/html/README.html" "$build/html/index.html"
echo "docs: $build/html/index.html"
