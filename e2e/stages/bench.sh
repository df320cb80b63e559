# shellcheck shell=bash
# bench: figures of the operator on an otherwise idle cluster.

bench() {
    e2e_up
    cargo build --locked --workspace --bin bench
    "$target_folder/debug/bench" --binary "$target_folder/$(rustc -vV | sed -n 's/^host: //p')/operator/session-operator"
}
