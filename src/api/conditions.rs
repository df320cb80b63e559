//! Condition types and reasons. Both are part of the API: scripts and alerts match on them.

/// Condition types of a `SessionPolicy`.
pub mod types {
    /// Summary: everything that the policy asks for is set up.
    pub const READY: &str = "Ready";
    /// The object that `spec.targetRef` names exists and is not claimed by an older policy.
    pub const TARGET_RESOLVED: &str = "TargetResolved";
    /// Every route that reaches the target has the affinity that the policy asks for.
    pub const AFFINITY_CONFIGURED: &str = "AffinityConfigured";
    /// The store can be reached with the credentials and the TLS that clients get (strategies with a store).
    pub const STORE_READY: &str = "StoreReady";
    /// Every pod of the target contains what the policy adds (strategies that inject).
    pub const INJECTED: &str = "Injected";
    /// The sidecars answer, reach each other and keep up (strategy Replicated).
    pub const SESSIONS_REPLICATED: &str = "SessionsReplicated";
}

/// Reasons, each with the condition that carries it.
pub mod reasons {
    /// Ready: every other condition is True; for a SessionStore: it answers to the operator.
    pub const READY: &str = "Ready";
    /// Any: `spec.suspend` is true; nothing outside status is written.
    pub const SUSPENDED: &str = "Suspended";
    /// Ready: the policy is being deleted and its changes are being undone.
    pub const DELETING: &str = "Deleting";

    /// TargetResolved: the target exists.
    pub const TARGET_FOUND: &str = "TargetFound";
    /// TargetResolved: no object of that kind and name in the namespace.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
    /// TargetResolved: an older policy names the same target; that one wins.
    pub const TARGET_CLAIMED: &str = "TargetClaimed";
    /// AffinityConfigured: the target is not resolved, so nothing can be said of its routes.
    pub const TARGET_UNRESOLVED: &str = "TargetUnresolved";

    /// AffinityConfigured: written and read back on every route.
    pub const AFFINITY_APPLIED: &str = "AffinityApplied";
    /// AffinityConfigured: no Service selects the pods of the target.
    pub const NO_SERVICE: &str = "NoService";
    /// AffinityConfigured: no route in the namespace reaches a Service of the target.
    pub const NO_ROUTE: &str = "NoRoute";
    /// AffinityConfigured: a route belongs to a controller that no adapter knows.
    pub const CONTROLLER_NOT_RECOGNISED: &str = "ControllerNotRecognised";
    /// AffinityConfigured: the setting of one object would also act on other targets.
    pub const SHARED_ROUTE: &str = "SharedRoute";
    /// AffinityConfigured: another manager owns a field with a different value.
    pub const FIELD_CONFLICT: &str = "FieldConflict";
    /// AffinityConfigured: the object's owner would undo a write; the YAML to add is in the message.
    pub const MANUAL_CHANGE_NEEDED: &str = "ManualChangeNeeded";
    /// AffinityConfigured: what was written is not there when read back (pruned or rejected).
    pub const NOT_READ_BACK: &str = "NotReadBack";
    /// AffinityConfigured: somebody keeps removing what the operator writes; it has stopped for a while.
    pub const REMOVED_REPEATEDLY: &str = "RemovedRepeatedly";
    /// AffinityConfigured: the requested mode does not exist on this controller.
    pub const MODE_UNSUPPORTED: &str = "ModeUnsupported";

    /// StoreReady: the store answered to the credentials and over the TLS that clients get.
    pub const STORE_REACHED: &str = "StoreReached";
    /// StoreReady: the SessionStore that is named does not exist.
    pub const STORE_NOT_FOUND: &str = "StoreNotFound";
    /// StoreReady: the SessionStore is not ready; its own condition is in the message.
    pub const STORE_NOT_READY: &str = "StoreNotReady";
    /// StoreReady: the store keeps the sessions of one key prefix, and another one has it.
    pub const KEY_PREFIX_TAKEN: &str = "KeyPrefixTaken";
    /// StoreReady: the Secret that is named does not exist or lacks a key.
    pub const SECRET_INCOMPLETE: &str = "SecretIncomplete";
    /// StoreReady: no connection to the store.
    pub const STORE_UNREACHABLE: &str = "StoreUnreachable";
    /// StoreReady: the TLS handshake with the store failed.
    pub const TLS_FAILED: &str = "TlsFailed";
    /// StoreReady: the store refused the credentials.
    pub const AUTHENTICATION_FAILED: &str = "AuthenticationFailed";
    /// StoreReady, Ready of a SessionStore: the store refuses writes (memory or disk full, read-only replica).
    pub const STORE_REFUSES_WRITES: &str = "StoreRefusesWrites";

    /// Ready of a SessionStore: its server is being made or is starting.
    pub const STORE_STARTING: &str = "StoreStarting";
    /// Ready of a SessionStore: an object of a name that it needs belongs to somebody else.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// Ready of a SessionStore: the image of the server cannot be pulled.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// Ready of a SessionStore: its volume claim is not bound.
    pub const VOLUME_PENDING: &str = "VolumePending";
    /// Ready of a SessionStore: the volume is larger than the spec wants it.
    pub const VOLUME_CANNOT_SHRINK: &str = "VolumeCannotShrink";
    /// Ready of a SessionStore: the volume's class does not let it grow; the server works.
    pub const VOLUME_CANNOT_GROW: &str = "VolumeCannotGrow";
    /// Ready of a SessionStore: the namespace's quota does not let its pod be made.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// Ready of a SessionStore: its pod may not be made for another reason.
    pub const POD_REFUSED: &str = "PodRefused";
    /// Ready of a SessionStore: no node takes its pod.
    pub const POD_UNSCHEDULABLE: &str = "PodUnschedulable";
    /// Ready of a SessionStore: its server was killed for using more memory than its limit.
    pub const OUT_OF_MEMORY: &str = "OutOfMemory";
    /// Ready of a SessionStore: its server ends as soon as it has started, or cannot be started.
    pub const SERVER_FAILING: &str = "ServerFailing";

    /// Ready of a SessionStore with topology Replicated: no server may serve now, and none can be made to.
    pub const NO_PRIMARY: &str = "NoPrimary";
    /// Ready of a SessionStore with topology Replicated: no server that answers has sessions, and one that does not may.
    pub const MEMBERS_UNSEEN: &str = "MembersUnseen";
    /// Ready of a SessionStore with topology Replicated: it serves, with fewer replicas that have everything than asked for.
    pub const REPLICAS_MISSING: &str = "ReplicasMissing";
    /// Ready of a SessionStore with topology Replicated or Cluster: it serves, and a replica cannot write to its volume.
    pub const VOLUME_FAILING: &str = "VolumeFailing";
    /// Ready of a SessionStore with topology Replicated: it serves, and a planned restart waits for a replica.
    pub const RESTART_WAITS: &str = "RestartWaits";
    /// Event of a SessionStore with topology Replicated: another server is the primary.
    pub const FAILED_OVER: &str = "FailedOver";
    /// Event of a SessionStore with topology Replicated: its first server was made primary.
    pub const PRIMARY_MADE: &str = "PrimaryMade";
    /// Part of the sessions of a cluster is out of reach: slots have no primary that serves them.
    pub const SLOTS_UNSERVED: &str = "SlotsUnserved";
    /// Sessions were lost with all servers that had them.
    pub const SESSIONS_LOST: &str = "SessionsLost";
    /// Slots move from shard to shard, as there are to be more or fewer of them.
    pub const SCALING: &str = "Scaling";
    /// As many shards as were asked for share the slots.
    pub const SCALED: &str = "Scaled";
    /// Fewer shards could not hold what is in use.
    pub const SCALE_IN_REFUSED: &str = "ScaleInRefused";
    /// Every slot of a new cluster has a primary.
    pub const CLUSTER_FORMED: &str = "ClusterFormed";

    /// SessionsReplicated: every sidecar answers, reaches all others and keeps up.
    pub const IN_SYNC: &str = "InSync";
    /// SessionsReplicated: the same, but the application sends commands that sidecars do not speak.
    pub const COMMANDS_UNSUPPORTED: &str = "CommandsUnsupported";
    /// SessionsReplicated: a sidecar does not answer, or two of them do not reach each other.
    pub const MEMBERS_APART: &str = "MembersApart";
    /// SessionsReplicated: changes wait to be confirmed.
    pub const REPLICATION_LAGS: &str = "ReplicationLags";
    /// SessionsReplicated: a sidecar has hardly any memory left.
    pub const MEMBERS_NEARLY_FULL: &str = "MembersNearlyFull";

    /// Event of a SessionStore: only the new passwords are good.
    pub const PASSWORDS_ROTATED: &str = "PasswordsRotated";
    /// Event of a SessionStore: every server presents a certificate of the new authority.
    pub const CERTIFICATES_ROTATED: &str = "CertificatesRotated";

    /// Injected: every pod contains what its revision says.
    pub const PODS_INJECTED: &str = "PodsInjected";
    /// Injected: the preflight is still running.
    pub const PREFLIGHT_RUNNING: &str = "PreflightRunning";
    /// Injected: the preflight could not be run, or gave no answer.
    pub const PREFLIGHT_FAILED: &str = "PreflightFailed";
    /// Injected: the image lacks what the framework's session handler needs.
    pub const HANDLER_MISSING: &str = "HandlerMissing";
    /// Injected: a container defines a variable that the policy would set.
    pub const ENV_CONFLICT: &str = "EnvConflict";
    /// Injected: a container that is named does not exist in the pod template.
    pub const CONTAINER_NOT_FOUND: &str = "ContainerNotFound";
    /// Injected: admission does not yet add what the revision says; the template is marked once it does.
    pub const ADMISSION_PENDING: &str = "AdmissionPending";
    /// Injected: a revision waits for `kubectl session rollout` (rollout Manual).
    pub const ROLLOUT_NEEDED: &str = "RolloutNeeded";
    /// Injected: pods are being replaced.
    pub const ROLLOUT_RUNNING: &str = "RolloutRunning";
    /// Injected: old and new pods never run at the same time, so nobody is there to take the sessions.
    pub const NO_OVERLAP: &str = "NoOverlap";
    /// Injected: the pods use the network of their nodes.
    pub const HOST_NETWORK: &str = "HostNetwork";
    /// Injected: a node that may take pods has a kubelet without native sidecars.
    pub const KUBELET_TOO_OLD: &str = "KubeletTooOld";
    /// Injected: pods have less time to end than handing over their sessions may take.
    pub const GRACE_PERIOD_TOO_SHORT: &str = "GracePeriodTooShort";
    /// Injected: the Deployment's selector cannot be that of a Service.
    pub const PEERS_NOT_SELECTABLE: &str = "PeersNotSelectable";
    /// Injected: sessions are on their way between a store and the pods.
    pub const SESSIONS_MOVING: &str = "SessionsMoving";
    /// Injected: sessions cannot move between the store and the pods.
    pub const SESSIONS_NOT_MOVABLE: &str = "SessionsNotMovable";
    /// Injected: each session is to be on more pods than there are.
    pub const TOO_FEW_REPLICAS: &str = "TooFewReplicas";
    /// Injected: pods cannot be replaced: refused by quota or admission, image not pullable, no node.
    pub const ROLLOUT_BLOCKED: &str = "RolloutBlocked";
    /// Injected: pods run without what their revision says.
    pub const PODS_NOT_INJECTED: &str = "PodsNotInjected";

    /// Ready, AffinityConfigured: a request to the API server failed; it is retried.
    pub const API_ERROR: &str = "ApiError";
    /// Ready: the spec holds something that the schema cannot refuse.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// Ready: undoing took longer than its limit and was given up.
    pub const CLEANUP_GIVEN_UP: &str = "CleanupGivenUp";
}
