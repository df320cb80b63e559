//! session-operator: session affinity, replication and sharing for existing Deployments.
