//! Tests with operators of their own: one namespace that is served, and the chart installed for it alone.

use std::sync::LazyLock;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::operator::{CLASSES, Operator};
use crate::stage::{self, Stage};
use crate::world::World;

/// Held for reading by tests that need the API server as it is, for writing by those that change it for everybody.
static PEACE: LazyLock<RwLock<()>> = LazyLock::new(RwLock::default);

/// The stage of tests with operators of their own.
pub static STAGE: &LazyLock<Stage> = &stage::FAULTS;

/// The API server stays as it is while this lives.
pub async fn peace() -> RwLockReadGuard<'static, ()> {
    PEACE.read().await
}

/// Nobody else uses the API server while this lives.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    PEACE.write().await
}

/// A namespace, and the chart installed for it.
pub struct Own {
    /// The namespace.
    pub world: World,
    /// Namespace of the release.
    pub release: String,
}

impl Own {
    /// Makes both; no operator runs yet.
    pub async fn new(name: &str) -> Self {
        let world = World::on(STAGE, name).await;
        let release = format!("{}-release", world.namespace);
        STAGE.install_chart(&release, &[&world.namespace]);
        STAGE.apply_manifests(CLASSES);
        Self { world, release }
    }

    /// Starts one more replica.
    pub async fn start(&self) -> Operator {
        let operator = Operator::start(STAGE, &self.release, &[&self.world.namespace]);
        operator.until_ready().await;
        operator
    }

    /// Starts a replica and waits until it leads.
    pub async fn start_leader(&self) -> Operator {
        let operator = self.start().await;
        operator.until_leading().await;
        operator
    }
}
