# shellcheck shell=bash
# bench: figures of the operator and of every strategy on an otherwise idle cluster. `e2e/stage bench strategies` makes one
# table alone (operator, strategies, sizes, failover), `e2e/stage bench stores` what watching many stores costs: real servers, but
# no cluster around them.

bench_stores() {
    # shellcheck source=e2e/stages/frameworks.sh
    source e2e/stages/frameworks.sh
    install_missing bwrap:bubblewrap redis-server:redis-server redis-cli:redis-tools
    e2e/install binaries
    API_TEST_OPERATOR=$(realpath "$target_folder/$(rustc -vV | sed -n 's/^host: //p')/operator/session-operator") \
        e2e/stage api many_stores::
}

bench() {
    local status=0
    if [ "${1:-stores}" = stores ]; then
        bench_stores || status=1
        (($# == 0)) || return "$status"
    fi
    e2e_up
    cargo build --locked --workspace --bin bench
    "$target_folder/debug/bench" --binary "$target_folder/$(rustc -vV | sed -n 's/^host: //p')/operator/session-operator" "$@"
    return "$status"
}
