module session-operator.dev/e2e/cluster/netpol

go 1.26
