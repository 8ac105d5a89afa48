#!/usr/bin/env bash
# Builds the programs of a real cluster from source with the ordinary `go`
# command, once: the result is kept in a cache outside the repository.
#
#   build.sh [COMPONENT...]          build what is missing, then print where it is
#   build.sh --print COMPONENT...    the same; the folders on stdout, one a line
#   build.sh --list                  the components that exist
#
# A component is a folder beside this file with a go.mod, whose `tool` lines
# are the programs to build, and perhaps a prepare.sh, which runs in a copy of
# the folder before the build. To add a MetalLB version, add such a folder.
#
# Environment:
#   L2LB_CACHE           where to keep things (default: ~/.cache/l2lb)
#   KUBEBUILDER_ASSETS   a folder with etcd, kube-apiserver and kubectl, which
#                        are then not built
set -euo pipefail
shopt -s inherit_errexit

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${L2LB_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/l2lb}/tools
defaults=(kubernetes helm helm-unittest definitions metallb-0.16.2 metallb-0.15.2)
heartbeat=10 # seconds between signs of life while a compiler runs

fail() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

say() {
    printf '  %4ds  %s\n' "$SECONDS" "$*" >&2
}

components() {
    local mod
    for mod in "$tools"/*/go.mod; do
        basename "$(dirname "$mod")"
    done
}

# The packages named by the `tool` lines of a go.mod.
packages() {
    awk '/^tool \(/ { inside = 1; next }
         inside && /^\)/ { exit }
         inside { print $1 }
         /^tool [^(]/ { print $2 }' "$1"
}

# The version that a go.mod requires of a module.
required() {
    awk -v module="$2" '$1 == module && $2 ~ /^v/ { print $2; exit }
         $1 == "require" && $2 == module { print $3; exit }' "$1"
}

# The name a package's program has in the cache.
program() {
    case $1 in
    go.etcd.io/etcd/server/v3) echo etcd ;;
    *) basename "$1" ;;
    esac
}

# Programs that KUBEBUILDER_ASSETS brings along.
asset() {
    [[ -n ${KUBEBUILDER_ASSETS:-} ]] || return 1
    case $1 in
    etcd | kube-apiserver | kubectl) [[ -x $KUBEBUILDER_ASSETS/$1 ]] ;;
    *) return 1 ;;
    esac
}

# The folder of a component: its name holds everything that decides what is in
# it, of this file only what builds.
folder() {
    local component=$1 recipe
    recipe=$(
        cd "$tools/$component"
        {
            go env GOVERSION GOOS GOARCH
            if [[ $component == kubernetes* ]]; then echo "${KUBEBUILDER_ASSETS:-}"; fi
            sha256sum -- *
            declare -f program asset build_programs copy_metallb_charts build
        } | sha256sum
    )
    echo "$cache/$component-${recipe:0:16}"
}

# Runs a command with its output in a log, and shows that it is alive.
run() {
    local what=$1 log=$2 pid ticks=0
    shift 2
    "$@" >>"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        ticks=$((ticks + 1))
        if ((ticks % (heartbeat * 5) == 0)); then say "$what: still compiling"; fi
    done
    if ! wait "$pid"; then
        tail -n 30 "$log" >&2
        fail "$what could not be built (the whole output: $log)"
    fi
}

build_programs() {
    local component=$1 src=$2 bin=$3 log=$4 version ldflags='-s -w' package name
    if [[ $component == kubernetes* ]]; then
        version=$(required "$src/go.mod" k8s.io/kubernetes)
        local key=k8s.io/component-base/version numbers
        IFS=. read -ra numbers <<<"${version#v}"
        ldflags+=" -X $key.gitVersion=$version -X $key.gitMajor=${numbers[0]} -X $key.gitMinor=${numbers[1]}"
    fi
    local all=() number=0
    mapfile -t all < <(packages "$src/go.mod")
    for package in "${all[@]}"; do
        name=$(program "$package")
        number=$((number + 1))
        if asset "$name"; then
            ln -s "$(cd "$KUBEBUILDER_ASSETS" && pwd)/$name" "$bin/$name"
            say "$component: $name is taken from KUBEBUILDER_ASSETS"
            continue
        fi
        say "$component: building $name ($number of ${#all[@]})"
        (cd "$src" && run "$component: $name" "$log" env CGO_ENABLED=0 GOWORK=off \
            go build -trimpath -buildvcs=false -ldflags="$ldflags" -o "$bin/$name" "$package")
    done
}

# MetalLB's own chart and CRDs come with its module.
copy_metallb_charts() {
    local src=$1 to=$2 module
    module=$(cd "$src" && GOWORK=off go list -m -f '{{.Dir}}' go.universe.tf/metallb)
    cp -r "$module/charts/metallb" "$to/chart"
    cp -r "$module/config/crd/bases" "$to/crds"
    chmod -R u+w "$to/chart" "$to/crds"
}

build() {
    local component=$1 to=$2 work
    work=$to.work
    # What an interrupted build left is of no use to anyone.
    rm -rf "$work" "$to"
    mkdir -p "$work/src" "$work/out/bin"
    cp "$tools/$component"/* "$work/src/"
    if [[ -x $work/src/prepare.sh ]]; then
        say "$component: preparing the sources"
        (cd "$work/src" && run "$component: prepare.sh" "$work/log" ./prepare.sh)
    fi
    say "$component: fetching modules"
    (cd "$work/src" && GOWORK=off run "$component: fetching modules" "$work/log" go mod download)
    build_programs "$component" "$work/src" "$work/out/bin" "$work/log"
    case $component in
    metallb-*) copy_metallb_charts "$work/src" "$work/out" ;;
    esac
    touch "$work/out/complete"
    mv "$work/out" "$to"
    rm -rf "$work"
    say "$component: done"
}

# Builds a component unless it is there, one builder at a time.
ensure() {
    local component=$1 to
    [[ -f $tools/$component/go.mod ]] ||
        fail "there is no component $component; there are: $(components | paste -sd ' ')"
    to=$(folder "$component")
    if [[ ! -f $to/complete ]]; then
        mkdir -p "$cache"
        exec 9>"$cache/$component.lock"
        if ! flock --nonblock 9; then
            say "$component: waiting for another build of it"
            flock 9
        fi
        [[ -f $to/complete ]] || build "$component" "$to"
        exec 9>&-
    fi
    echo "$to"
}

main() {
    local print=false component to
    case ${1:-} in
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        return
        ;;
    --list)
        components
        return
        ;;
    --print)
        print=true
        shift
        ;;
    -*) fail "unknown option $1; try --help" ;;
    esac
    local wanted=("$@")
    ((${#wanted[@]})) || wanted=("${defaults[@]}")
    command -v go >/dev/null ||
        fail "go is missing: install Go 1.26 or newer (it builds Kubernetes, helm and MetalLB)"
    command -v flock >/dev/null || fail "flock is missing: install util-linux"
    for component in "${wanted[@]}"; do
        to=$(ensure "$component")
        if $print; then echo "$to"; else printf '%-16s %s\n' "$component" "$to"; fi
    done
}

main "$@"
