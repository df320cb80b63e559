# shellcheck shell=bash
# e2e: the whole cluster, real ingress controllers, the operator from its chart, users of a real application.

e2e_down() {
    local status=$?
    trap - EXIT
    if ((status != 0)); then
        $cluster logs "$PWD/e2e/logs/e2e" || true
        echo "stage: logs are in e2e/logs" >&2
    fi
    $cluster down
    exit "$status"
}

# e2e_up [SET]: brings up the cluster of this run with everything that the tests use, and the applications of a set (core,
# long) with their presets.
e2e_up() {
    local applications=${1:-core} presets=(php tomcat)
    [ "$applications" = core ] || presets=()
    export CLUSTER_SUFFIX=$run
    rm -rf e2e/logs
    trap e2e_down EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # shellcheck source=e2e/stages/frameworks.sh
    source e2e/stages/frameworks.sh
    # shellcheck disable=SC2086
    install_missing $agents_packages
    # Built first: the cluster is idle meanwhile, and two cores are few.
    e2e/install binaries
    cargo build --locked --workspace --test routes --test sessions --test nodes --test stores --test operator
    $cluster tools demo
    $cluster up
    $cluster addon traefik
    $cluster addon traefik-nginx
    e2e/install agents "${presets[@]}"
    e2e/install replicator
    e2e/install operator
    e2e/install app-images "$applications"
    e2e/install store-images
    KUBECTL_SESSION=$(realpath "$target_folder/$(rustc -vV | sed -n 's/^host: //p')/operator/kubectl-session")
    export KUBECTL_SESSION
    eval "$($cluster env)"
}

e2e() {
    e2e_up
    cargo test --locked --workspace --test routes -- "$@" --skip long:: --test-threads 4
    cargo test --locked --workspace --test sessions -- "$@" --skip long:: --skip handover --test-threads 3
    # This one counts failed requests: an overloaded proxy makes them, too.
    (($#)) || cargo test --locked --workspace --test sessions -- handover --test-threads 1
    # Each has up to eight servers beside users who notice when a server is slow; and some have to be back in time.
    if (($#)); then
        cargo test --locked --workspace --test stores -- "$@" --test-threads 1
    else
        cargo test --locked --workspace --test stores -- --skip in_time --test-threads 2
        cargo test --locked --workspace --test stores -- in_time --test-threads 1
    fi
    # These cut nodes off.
    cargo test --locked --workspace --test nodes -- "$@" --skip long:: --test-threads 1
    # These stop and replace the operator that all share.
    cargo test --locked --workspace --test operator -- "$@" --skip long:: --test-threads 1
}
