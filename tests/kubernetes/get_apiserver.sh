#!/usr/bin/env bash
# Puts kube-apiserver and etcd into the cache folder that tests/kubernetes looks in: built from Debian's source package
# of Kubernetes (about 4 minutes on 2 cores, 2 GB of disk meanwhile). Installs nothing. Does nothing where they are there.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/raycelery/kubernetes
if [ -n "${RAYCELERY_KUBE_APISERVER:-}" ] || { [ -x "$cache/kube-apiserver" ] && [ -x "$cache/etcd" ]; }; then exit 0; fi
if ! command -v apt-get >/dev/null || ! [ -e /etc/apt/sources.list.d/debian.sources ]; then
    echo "no API server is built here, which is no Debian 12 or later: name one in RAYCELERY_KUBE_APISERVER (etcd beside it)"
    exit 0  # the tests that need it are skipped
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p lists/partial cache/archives/partial root k8s parts "$cache"
# The machine's own sources, as those of source packages.
sed 's/^Types: *deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >parts/source.sources
apt=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/parts" -o "Dir::State::lists=$work/lists"
    -o "Dir::Cache=$work/cache")
apt-get -qq "${apt[@]}" update
apt-get -qq "${apt[@]}" source --download-only kubernetes
apt-get -qq download golang-1.19-go golang-1.19-src etcd-server rsync libpopt0 golang-github-modern-go-reflect2-dev
for package in *.deb; do dpkg -x "$package" root; done
cp root/usr/bin/etcd "$cache/"
tar xzf kubernetes_*.orig.tar.gz -C k8s --strip-components=1
cd k8s
# The one that is vendored crashes under Go 1.18 and later.
rm -rf vendor/github.com/modern-go/reflect2
cp -r ../root/usr/share/gocode/src/github.com/modern-go/reflect2 vendor/github.com/modern-go/reflect2
rm -f vendor/github.com/modern-go/reflect2/go.mod
mkdir -p .go/src/k8s.io
ln -sfn ../../.. .go/src/k8s.io/kubernetes
export GOROOT="$work/root/usr/lib/go-1.19" GOPATH="$PWD/.go" CGO_ENABLED=0 GOPROXY=off HOME="$work/home"
export PATH="$GOROOT/bin:$work/root/usr/bin:$PATH"
LD_LIBRARY_PATH=$(echo "$work"/root/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH
make WHAT=cmd/kube-apiserver >"$work/build.log" 2>&1 || { tail -20 "$work/build.log"; exit 1; }
cp _output/bin/kube-apiserver "$cache/"
"$cache/kube-apiserver" --version
