#!/bin/sh
# Builds what the images hold, without Docker: dist/authority and dist/sidecar, static
# binaries, and below dist/rootfs a root file system for each.
#
#     deploy/dist.sh             # or make dist; VERSION, GOOS, GOARCH and DIST from the environment
#
# What is empty is as good as not set: go builds for the machine that it is on.
set -eu
umask 022
cd "$(dirname "$0")/.."

VERSION=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo dev)}
DIST=${DIST:-dist} # where it goes: an absolute path, or one from the root of the repository

roots=
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  if [ -s "$file" ]; then
    roots=$file
    break
  fi
done
if [ -z "$roots" ]; then
  echo "dist: no CA certificates on this machine: install ca-certificates" >&2
  exit 1
fi

for name in authority sidecar; do
  root=$DIST/rootfs/$name
  rm -rf "$root"
  mkdir -p "$root/etc/ssl/certs" "$root/etc/revcast" "$root/var/lib/revcast" "$root/tmp"
  chmod 1777 "$root/tmp"
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X github.com/revcast/revcast/cmd/internal/cli.version=$VERSION" \
    -o "$root/$name" "./cmd/$name"
  cp "$roots" "$root/etc/ssl/certs/ca-certificates.crt"
  echo 'revcast:x:65532:65532:revcast:/var/lib/revcast:/sbin/nologin' >"$root/etc/passwd"
  echo 'revcast:x:65532:' >"$root/etc/group"
  cp "$root/$name" "$DIST/$name"
done
(cd "$DIST" && sha256sum authority sidecar >SHA256SUMS)
echo "dist: authority and sidecar $VERSION"
