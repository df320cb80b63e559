# shellcheck shell=bash
# Builds images with buildah, keeps each as an archive in the cache, and imports archives into nodes.

PAUSE_IMAGE=localhost/pause:1
COREDNS_IMAGE=localhost/coredns:1
BUSYBOX_IMAGE=localhost/busybox:1
TRAEFIK_IMAGE=
CONTOUR_IMAGE=
ENVOY_IMAGE=
BASE_IMAGE=localhost/debian:bookworm-slim
REDIS_IMAGE=localhost/redis:1
VALKEY_IMAGE=localhost/valkey:1
MEMCACHED_IMAGE=localhost/memcached:1
# The base's root file system in the cache. Another name makes it anew.
BASE_ARCHIVE=bookworm-2.tar

# Older archives of the same image that stay in the cache: other checkouts may be using them.
IMAGE_ARCHIVES_KEPT=4

# Images of the test cluster itself, by set.
declare -A IMAGE_SETS=(
  [cluster]="pause coredns"
  [demo]="pause coredns traefik base redis valkey memcached"
  [all]="pause coredns traefik busybox base redis valkey memcached contour envoy"
)

# The tag of a proxy's image is its version; the entry point calls this when the tools are known.
init_images() {
  TRAEFIK_IMAGE=localhost/traefik:$(tool_version traefik)
  CONTOUR_IMAGE=localhost/contour:$(tool_version contour)
  ENVOY_IMAGE=localhost/envoy:$(tool_version envoy)
}

# builder COMMAND…: buildah with a storage of its own, without a daemon and without namespaces of its own.
builder() {
  BUILDAH_ISOLATION=chroot buildah --root "$CACHE/containers" --runroot "/run/session-operator/containers" "$@"
}

# trust_options: where a proxy looks into TLS, packages come under an authority that only this machine knows. Builds see the
# machine's authorities in a folder, and stages that declare the argument of their package manager are told of it; nothing
# of it stays in the image.
trust_options() {
  local folder=/run/authorities
  [ -e /etc/ssl/certs/ca-certificates.crt ] || return 0
  printf '%s\n' "--volume=/etc/ssl/certs:$folder:ro"
  printf -- '--build-arg=%s\n' "PIP_CERT=$folder/ca-certificates.crt" "NODE_EXTRA_CA_CERTS=$folder/ca-certificates.crt"
  if [ -e /etc/ssl/certs/java/cacerts ]; then
    printf -- '--build-arg=%s\n' "MAVEN_OPTS=-Djavax.net.ssl.trustStore=$folder/java/cacerts"
  fi
}

# image_folder REFERENCE: where the archives of this image are kept.
image_folder() { printf '%s/images/%s' "$CACHE" "$(printf '%s' "$1" | tr -c 'A-Za-z0-9.-' '_')"; }

# image_link REFERENCE: names the archive that this run last built under REFERENCE.
image_link() { printf '%s/%s.tar' "$(image_folder "$1")" "$SUFFIX"; }

# build_image REFERENCE CONTEXT [--file FILE] [--build-arg NAME=VALUE]…: builds if anything in the context,
# the arguments or the base changed since the last time; prints the archive.
build_image() {
  local reference=$1 context=$2 file='' arguments=() trust folder key archive lock
  shift 2
  while (($#)); do
    case $1 in
    --file) file=$2 ;;
    --build-arg) arguments+=(--build-arg "$2") ;;
    *) die "image build: unknown option $1" ;;
    esac
    shift 2
  done
  [ -d "$context" ] || die "image build $reference: there is no folder $context"
  file=${file:-$context/Containerfile}
  [ -f "$file" ] || die "image build $reference: there is no file $file"
  folder=$(image_folder "$reference")
  mkdir -p "$folder" "$CACHE/locks"
  key=$(image_key "$context" "$file" "${arguments[@]}")
  archive=$folder/$key.tar
  exec {lock}>"$CACHE/locks/image-${folder##*/}"
  flock "$lock"
  if [ ! -e "$archive" ]; then
    restore_bases "${arguments[@]}"
    mapfile -t trust < <(trust_options)
    builder build --quiet --layers --network host --pull-never --file "$file" --tag "$reference" "${trust[@]}" "${arguments[@]}" \
      "$context" >&2
    rm -f "$archive.new"
    builder push --quiet "$reference" "docker-archive:$archive.new:$reference" >&2
    mv "$archive.new" "$archive"
  fi
  ln -sfn "$key.tar" "$(image_link "$reference")"
  prune_archives "$folder" "$archive"
  exec {lock}>&-
  printf '%s\n' "$archive"
}

# restore_bases ARGUMENT…: the images that arguments name must be in the builder's storage; one that was
# built long ago may only be in the cache.
restore_bases() {
  local argument reference
  for argument in "$@"; do
    reference=${argument#*=}
    if [ -e "$(image_link "$reference")" ] && ! builder inspect --type image "$reference" >/dev/null 2>&1; then
      builder pull --quiet "docker-archive:$(readlink -f "$(image_link "$reference")")" >&2
    fi
  done
}

# image_key CONTEXT FILE ARGUMENT…: a hash of all that goes into an image. An argument that names one of our
# own images stands for that image's archive.
image_key() {
  local context=$1 file=$2 argument link
  shift 2
  {
    cat "$file"
    for argument in "$@"; do
      printf '%s\n' "$argument"
      link=$(image_link "${argument#*=}")
      [ ! -L "$link" ] || readlink "$link"
    done
    (cd "$context" && find . ! -type d -printf '%m %P -> %l\n' | LC_ALL=C sort)
    (cd "$context" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum)
  } | sha256sum | cut -c1-24
}

# prune_archives FOLDER KEPT
prune_archives() {
  local old
  find "$1" -name '*.tar' -type f ! -path "$2" -printf '%T@ %p\n' | sort -rn | cut -d' ' -f2- |
    tail -n "+$((IMAGE_ARCHIVES_KEPT))" | while read -r old; do rm -f "$old"; done
}

# --- the cluster's own images ----------------------------------------------------------------------------

# image_reference NAME
image_reference() {
  case $1 in
  pause) printf '%s' "$PAUSE_IMAGE" ;;
  coredns) printf '%s' "$COREDNS_IMAGE" ;;
  busybox) printf '%s' "$BUSYBOX_IMAGE" ;;
  traefik) printf '%s' "$TRAEFIK_IMAGE" ;;
  contour) printf '%s' "$CONTOUR_IMAGE" ;;
  envoy) printf '%s' "$ENVOY_IMAGE" ;;
  base) printf '%s' "$BASE_IMAGE" ;;
  redis) printf '%s' "$REDIS_IMAGE" ;;
  valkey) printf '%s' "$VALKEY_IMAGE" ;;
  memcached) printf '%s' "$MEMCACHED_IMAGE" ;;
  *) die "there is no image named $1 among ${IMAGE_SETS[all]}" ;;
  esac
}

# queue_images SET: queues a step for each image of the set that this run has not built from its present parts.
queue_images() {
  local name
  [ -n "${IMAGE_SETS[$1]:-}" ] || die "there is no set of images named $1; expected one of: ${!IMAGE_SETS[*]}"
  for name in ${IMAGE_SETS[$1]}; do
    queue_image "$name"
  done
}

# queue_image_set SET: the images and, before them, the tools that go into them.
queue_image_set() {
  case $1 in
  cluster) queue_tools cluster ;;
  all) queue_tools long ;;
  *) queue_tools demo ;;
  esac
  queue_images "$1"
}

queue_image() {
  local link
  link=$(image_link "$(image_reference "$1")")
  if [ ! -e "$link" ] || [ "$(readlink "$link.parts")" != "$(image_parts "$1")" ]; then
    queue_step "image $1" make_image "$1"
  fi
}

# image_parts NAME: what the image is made of, as one short word that is cheap to compute.
image_parts() {
  {
    (cd "$CLUSTER_HOME/images/$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
    case $1 in
    coredns | traefik | valkey | contour | envoy) tool_version "$1" ;;
    base) printf '%s\n' "$BASE_ARCHIVE" ;;
    esac
  } | sha256sum | cut -c1-24
}

# make_image NAME: puts the parts into a folder and builds from there.
make_image() {
  local name=$1 context reference arguments=()
  context=$(mktemp -d)
  reference=$(image_reference "$name")
  cp "$CLUSTER_HOME/images/$name/Containerfile" "$context/"
  case $name in
  pause) cc -Os -static -o "$context/pause" "$CLUSTER_HOME/images/pause/pause.c" ;;
  busybox) cp /bin/busybox "$context/" ;;
  coredns | traefik | contour | envoy) cp "$(tool_file "$name")" "$context/" ;;
  valkey)
    cp "$(tool_file valkey)" "$context/valkey-server-without-tls"
    cp "$CLUSTER_HOME/images/valkey/valkey-server" "$context/"
    ;;
  base) make_base_archive "$context/base.tar" ;;
  esac
  case $name in
  redis | valkey | memcached | envoy) arguments=(--build-arg "BASE=$BASE_IMAGE") ;;
  esac
  build_image "$reference" "$context" "${arguments[@]}"
  rm -rf "$context"
  ln -sfn "$(image_parts "$name")" "$(image_link "$reference").parts"
}

# make_base_archive FILE: the root file system of a minimal Debian, made once.
make_base_archive() {
  local archive=$CACHE/images/$BASE_ARCHIVE
  if [ ! -e "$archive" ]; then
    rm -f "$archive.new"
    # mmdebstrap hands the new root's folder to its hook as $1.
    # shellcheck disable=SC2016
    mmdebstrap --quiet --format=tar --variant=minbase \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --customize-hook="copy-in $CLUSTER_HOME/images/base/apt-small.conf /etc/apt/apt.conf.d" \
      --customize-hook='rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb "$1"/var/log/*.log' \
      bookworm "$archive.new"
    mv "$archive.new" "$archive"
  fi
  cp "$archive" "$1"
}

# --- into the nodes --------------------------------------------------------------------------------------

# load_image REFERENCE-OR-FILE NODE…
load_image() {
  local what=$1 archive=$1 node pids=() pid
  shift
  [ -f "$archive" ] || archive=$(image_link "$what")
  [ -e "$archive" ] ||
    die "load: $what is neither a file nor an image built for the suffix $SUFFIX; run 'cluster image build $what CONTEXT' first"
  archive=$(readlink -f "$archive")
  for node in "$@"; do
    import_image "$node" "$archive" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || die "load: importing $archive failed"
  done
}

# import_image NODE ARCHIVE: skipped if it is what the node last imported for that image. Archives in the
# cache are named after what is in them; other files are always imported.
import_image() {
  local node=$1 archive=$2 mark=''
  if [[ $archive == "$CACHE"/images/*/* ]]; then
    mark=$(node_folder "$node")/imported/$(basename "$(dirname "$archive")")
    [ "$(cat "$mark" 2>/dev/null)" != "${archive##*/}" ] || return 0
  fi
  on_node "$node" ctr --namespace k8s.io images import - <"$archive" >/dev/null
  [ -n "$mark" ] || return 0
  mkdir -p "${mark%/*}"
  printf '%s\n' "${archive##*/}" >"$mark"
}
