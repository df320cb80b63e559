# shellcheck shell=bash
# long: what does not fit CI's budget. The api stage on the oldest and a middle API server; presets of all frameworks; all
# applications through all events; users behind Contour; what users do to injected pods; the release with Helm 3.

# older_versions: the API servers before the present one that are supported.
older_versions() { awk '!/^#/ && NF {print $1}' e2e/cluster/go/kubernetes/older-versions; }

long() {
    local version
    for version in $(older_versions); do
        echo "--- api stage on Kubernetes $version"
        CLUSTER_KUBERNETES=$version e2e/stage api "$@"
    done
    echo "--- presets of all frameworks"
    e2e/stage frameworks
    $cluster tools long
    e2e_up long
    echo "--- all applications through all events (writes docs/survival.md)"
    cargo test --locked --workspace --test survival -- --nocapture
    echo "--- users behind Contour"
    cargo test --locked --workspace --test routes -- long:: --test-threads 2
    echo "--- what users do to injected pods, and hostile neighbours"
    cargo test --locked --workspace --test sessions -- long:: --test-threads 3
    cargo test --locked --workspace --test nodes -- long:: --test-threads 1
    cargo test --locked --workspace --test operator -- long:: --test-threads 1
    echo "--- the life of a release with Helm 3"
    HELM=$($cluster tool helm3) cargo test --locked --workspace --test operator -- --test-threads 1 release::
}
