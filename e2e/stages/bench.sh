# shellcheck shell=bash
# bench: figures of the operator and of every strategy on an otherwise idle cluster. `e2e/stage bench strategies` makes one
# table alone (operator, strategies, sizes, failover).

bench() {
    e2e_up
    cargo build --locked --workspace --bin bench
    "$target_folder/debug/bench" --binary "$target_folder/$(rustc -vV | sed -n 's/^host: //p')/operator/session-operator" "$@"
}
