#!/usr/bin/env bash
# Real editors for the end-to-end tests, beside the system's packages and without touching them.
#
#   get_editors.sh DIR             afterwards: DIR/bin/{nvim,hx}, DIR/root/usr/share/emacs/site-lisp/elpa-src/*
#   get_editors.sh DIR SUITE       afterwards: DIR/bin/nvim, as that suite of Debian's has it
#
# Packages of Debian's unstable suite are unpacked under DIR and started through that suite's own dynamic loader.
set -euo pipefail
dir=$(mkdir -p "${1:?usage: get_editors.sh DIR [SUITE]}" && cd "$1" && pwd)
suite=${2:-sid}
sources=/etc/apt/sources.list.d/debian.sources
[ -r "$sources" ] || { echo "get_editors.sh: $sources is missing; this set-up needs a Debian system" >&2; exit 1; }
mirror=$(awk '/^URIs/ {print $2; exit}' "$sources")
work=$dir/apt
mkdir -p "$work"/{lists/partial,cache/archives/partial,none} "$dir"/{root,bin}
: >"$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/suite.list"

apt_here() {
  apt-get -qq \
    -o Dir::Etc::sourcelist="$work/suite.list" -o Dir::Etc::sourceparts="$work/none" \
    -o Dir::Etc::preferencesparts="$work/none" -o Dir::State::lists="$work/lists" \
    -o Dir::Cache="$work/cache" -o Dir::State::status="$work/status" \
    -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false "$@"
}

apt_here update
if [ "$suite" = sid ]; then
  apt_here install -y --no-install-recommends --download-only neovim hx >/dev/null
  (
    cd "$work/cache/archives"
    apt_here download elpa-lsp-mode elpa-dash elpa-f elpa-ht elpa-s elpa-lv elpa-spinner elpa-markdown-mode >/dev/null
  )
else
  apt_here install -y --no-install-recommends --download-only neovim >/dev/null
fi
for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$dir/root"; done

libraries=$(dirname "$(find "$dir/root/usr/lib" -name libc.so.6 | head -1)")
loader=$(find "$libraries/" -maxdepth 1 -name 'ld-linux*.so*' | head -1)

wrap() { # NAME PROGRAM VARIABLE=VALUE
  cat >"$dir/bin/$1" <<WRAPPER
#!/bin/sh
export $3
exec "$loader" --inhibit-cache --library-path "$libraries" --argv0 $1 "$2" "\$@"
WRAPPER
  chmod +x "$dir/bin/$1"
}
wrap nvim "$dir/root/usr/bin/nvim" "VIMRUNTIME='$dir/root/usr/share/nvim/runtime'"
[ "$suite" != sid ] || wrap hx "$dir/root/usr/lib/hx/hx" "HELIX_RUNTIME='$dir/root/usr/lib/hx/runtime'"
rm -rf "$work"
"$dir/bin/nvim" --version | head -1
[ "$suite" != sid ] || "$dir/bin/hx" --version
