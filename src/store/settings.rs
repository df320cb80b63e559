//! What the installation says about stores: images, and the user that they run as.

use clap::Args;

use crate::api::session_store::Engine;

/// Arguments about stores.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// Image with valkey-server and valkey-cli
    #[arg(
        long,
        env = "SESSION_OPERATOR_VALKEY_IMAGE",
        value_name = "IMAGE",
        default_value = "docker.io/valkey/valkey:9.1.2"
    )]
    pub valkey_image: String,

    /// Image with redis-server and redis-cli
    #[arg(
        long,
        env = "SESSION_OPERATOR_REDIS_IMAGE",
        value_name = "IMAGE",
        default_value = "docker.io/library/redis:7.2.11"
    )]
    pub redis_image: String,

    /// Image with memcached
    #[arg(
        long,
        env = "SESSION_OPERATOR_MEMCACHED_IMAGE",
        value_name = "IMAGE",
        default_value = "docker.io/library/memcached:1.6.39"
    )]
    pub memcached_image: String,

    /// User and group id that stores run as; none = what the image or the cluster says
    #[arg(long, env = "SESSION_OPERATOR_STORE_USER", value_name = "ID")]
    pub store_user: Option<i64>,

    /// Secrets with the credentials for the images, in the namespace of each store, separated by commas
    #[arg(
        long,
        env = "SESSION_OPERATOR_STORE_PULL_SECRETS",
        value_name = "NAME,…",
        value_delimiter = ','
    )]
    pub store_pull_secrets: Vec<String>,
}

impl StoreArgs {
    /// The image of an engine.
    pub fn image(&self, engine: Engine) -> &str {
        match engine {
            Engine::Valkey => &self.valkey_image,
            Engine::Redis => &self.redis_image,
            Engine::Memcached => &self.memcached_image,
        }
    }
}
