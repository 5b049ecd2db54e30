#!/usr/bin/env bash
# Installs the generators that make clients of docs/openapi.json, for the test that drives the server with them:
#   scripts/clients.sh FOLDER
# Needs python3 with venv, node and npm, and their registries; exits 3, and says why, where one is missing.
set -euo pipefail
folder=${1:?usage: scripts/clients.sh FOLDER}
missing() { echo "clients cannot be generated here: $1" >&2; exit 3; }
command -v python3 >/dev/null || missing "no python3"
command -v node >/dev/null || missing "no node"
command -v npm >/dev/null || missing "no npm"
mkdir -p "$folder"
if [ ! -x "$folder/py/bin/openapi-python-client" ]; then
    python3 -m venv "$folder/py" 2>/dev/null || missing "python3 has no venv (Debian: python3-venv)"
    "$folder/py/bin/pip" -q install --disable-pip-version-check openapi-python-client==0.29.1 || missing "pip finds nothing"
fi
if [ ! -x "$folder/node_modules/.bin/tsc" ]; then
    (cd "$folder" && npm install --silent --no-audit --no-fund --prefix . \
        openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9.3 @types/node@20 @redocly/cli@2) || missing "npm finds nothing"
fi
