#!/bin/sh
# Tests the adapters and examples/ray with the packages that they are for, which go into .venv-adapters, outside the
# environment.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv} folder=.venv-adapters
packages="xares==0.1.3 loguru==0.7.3 pandas==3.1.1 pytorch-ignite==0.5.5 torchmetrics==1.9.0 lightning-utilities==0.15.3
webdataset==1.0.2 braceexpand==0.1.7 requests==2.34.2 urllib3==2.8.0 certifi==2026.10.19.post1 charset-normalizer==3.5.3
mteb==2.26.24 datasets==5.2.0 dill==0.4.1 multiprocess==0.70.19 xxhash==4.1.0 sentence-transformers==6.2.0
pytrec-eval-terrier==0.5.11 polars==2.1.0 polars-runtime-32==2.1.0 s3prl==0.4.18
ray==2.60.0 msgpack==1.2.4 jsonschema==4.26.0 jsonschema-specifications==2025.9.1 referencing==0.37.0 rpds-py==2026.9.1
attrs==26.1.0"

if [ ! -f "$folder/.installed" ] || [ "$(cat "$folder/.installed")" != "$packages" ]; then
    rm -rf "$folder"
    # Without dependencies: the environment already has torch and transformers, and they must not be replaced.
    # shellcheck disable=SC2086
    "$venv/bin/python" -m uv pip install --quiet --no-deps --python "$venv/bin/python" --target "$folder" $packages
    echo "$packages" >"$folder/.installed"
fi
PYTHONPATH=$folder exec "$venv/bin/python" -m pytest -q -rs tests/adapters "$@"
