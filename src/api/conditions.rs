//! Condition types and reasons. Both are part of the API: scripts and alerts match on them.

/// Condition types of a `SessionPolicy`.
pub mod types {
    /// Summary: everything that the policy asks for is set up.
    pub const READY: &str = "Ready";
    /// The object that `spec.targetRef` names exists and is not claimed by an older policy.
    pub const TARGET_RESOLVED: &str = "TargetResolved";
    /// Every route that reaches the target has the affinity that the policy asks for.
    pub const AFFINITY_CONFIGURED: &str = "AffinityConfigured";
}

/// Reasons, each with the condition that carries it.
pub mod reasons {
    /// Ready: every other condition is True.
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
    /// Ready, AffinityConfigured: a request to the API server failed; it is retried.
    pub const API_ERROR: &str = "ApiError";
    /// Ready: the spec holds something that the schema cannot refuse.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// Ready: undoing took longer than its limit and was given up.
    pub const CLEANUP_GIVEN_UP: &str = "CleanupGivenUp";
}
