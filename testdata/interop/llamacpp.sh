#!/bin/sh
# Prints the directory that node-llama-cpp is installed in, which has llama.cpp prebuilt
# for Linux x86-64. Needs Node 20 and npm.
#
# It is installed into INTEROP_CACHE, once (default: nibble-interop in the user's cache).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nibble-interop}
mkdir -p "$cache"
cp "$here/package.json" "$here/package-lock.json" "$cache/"
if ! cmp -s "$here/package-lock.json" "$cache/installed-lock.json"; then
	echo "installing node-llama-cpp into $cache" >&2
	(cd "$cache" && npm install --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
	cp "$here/package-lock.json" "$cache/installed-lock.json"
fi
echo "$cache"
