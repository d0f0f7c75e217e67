#!/bin/sh
# Builds the S3 server that the store's tests run against into .tools/bin, where Go is at hand.
tools=$(cd "$(dirname "$0")/.." && pwd)/.tools
go=$(command -v go || command -v /usr/local/go/bin/go) || {
    echo "Go is not here, so versitygw cannot be built: the tests against an S3 server are skipped" >&2
    exit 0
}
mkdir -p "$tools/bin"
if [ ! -w "${HOME:-/nowhere}" ]; then
    export GOPATH="$tools/go" GOCACHE="$tools/go/cache"
fi
echo "building $1 into .tools/bin" >&2
GOBIN="$tools/bin" GOFLAGS="$GOFLAGS -modcacherw" CGO_ENABLED=0 "$go" install "$1" 2>"$tools/versitygw.log" || {
    tail -5 "$tools/versitygw.log" >&2
    echo "versitygw could not be built (see above): the tests against an S3 server are skipped" >&2
}
