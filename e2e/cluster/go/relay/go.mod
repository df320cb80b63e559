module session-operator.dev/e2e/cluster/relay

go 1.26
