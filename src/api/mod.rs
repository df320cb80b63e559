//! The API of the operator: custom resources, their conditions, and nothing else.
//!
//! Types only. This module depends on nothing of ours, so that a client of the API can use it alone.

pub mod conditions;
pub mod session_injection;
pub mod session_policy;
pub mod session_store;

pub use session_injection::{SessionInjection, SessionInjectionSpec};
pub use session_policy::{
    Affinity, Binds, Cookie, DeploymentKind, Event, Outcome, SameSite, SessionPolicy, SessionPolicySpec,
    SessionPolicyStatus, SharedRoutes, Sticky, StickyController, StickyMode, Strategy, Survival,
    TargetApiVersion, TargetRef,
};
pub use session_store::{SessionStore, SessionStoreSpec, SessionStoreStatus};

/// API group of every kind of this project.
pub const GROUP: &str = "session-operator.dev";

/// API version of every kind of this project.
pub const VERSION: &str = "v1alpha1";

/// Finalizer that a [`SessionPolicy`] carries while something outside it has to be undone.
pub const FINALIZER: &str = "session-operator.dev/cleanup";

/// Annotation of a [`SessionPolicy`] that holds the values which stood in foreign list entries before
/// the operator patched them, so that they can be put back exactly.
pub const RESTORE_ANNOTATION: &str = "session-operator.dev/restore";

/// Prefix of the field manager used on foreign objects; the policy's uid follows.
///
/// One manager per policy: with a single manager, the apply of a second policy would remove the keys of
/// the first.
pub const FOREIGN_FIELD_MANAGER_PREFIX: &str = "session-operator.";

/// Field manager of the status subresource.
pub const STATUS_FIELD_MANAGER: &str = "session-operator/status";

/// Field manager of the operator's own objects, finalizers and annotations on policies.
pub const FIELD_MANAGER: &str = "session-operator";

/// Label of pod templates (and so of pods) that names the [`SessionInjection`] which admission adds.
pub const INJECTION_LABEL: &str = "session-operator.dev/injection";

/// Label of everything that belongs to a policy and is no child of it by ownerReference: its name.
pub const POLICY_LABEL: &str = "session-operator.dev/policy";

/// Label of everything that belongs to a [`SessionStore`]: its name.
pub const STORE_LABEL: &str = "session-operator.dev/store";

/// Annotation of a [`SessionPolicy`]: the [`SessionInjection`] that `kubectl session rollout` accepted.
pub const ROLLOUT_ANNOTATION: &str = "session-operator.dev/rollout";

/// Annotation of a [`SessionStore`]: another value asks for other passwords of all its users.
pub const ROTATE_PASSWORDS_ANNOTATION: &str = "session-operator.dev/rotate-passwords";

/// Annotation of a [`SessionStore`]: another value asks for another authority and another certificate.
pub const ROTATE_CERTIFICATES_ANNOTATION: &str = "session-operator.dev/rotate-certificates";

/// Annotation of a [`SessionInjection`] whose pods use a [`SessionStore`]: when the password was made that they are started
/// with, and a hash of the certificates that they trust.
pub const CREDENTIALS_ANNOTATION: &str = "session-operator.dev/store-credentials";

/// Annotation of a [`SessionInjection`]: a hash of what it was made from, which tells a change of the policy from a change
/// of the operator.
pub const INPUTS_ANNOTATION: &str = "session-operator.dev/inputs";

/// Annotation of everything that belongs to a policy and is no child of it by ownerReference: its uid.
pub const POLICY_UID_ANNOTATION: &str = "session-operator.dev/policy-uid";
