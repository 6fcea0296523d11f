//! What integration tests share: a real control plane and the means to talk to it.
//!
//! A test file says `mod support;` and takes what it needs:
//!
//! ```ignore
//! let admin = ControlPlane::shared().await.admin();
//! let namespace = admin.namespace("shop").await;
//! admin.create(running_pod(&namespace, "web-0", "node-1", &[("web", IMAGE, IMAGE_ID)])).await;
//! let listed = admin.kubectl(["get", "pods", "--namespace", &namespace]).await;
//! ```
//!
//! Helpers panic with what they saw: a test has no better use for an error.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test binary is a crate of its own and uses a part of this"
)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails fails its test"
)]

pub mod access;
pub mod audit_log;
pub mod aws_proxy;
pub mod calls;
pub mod chart;
pub mod control_plane;
pub mod http;
pub mod iam;
pub mod ministack;
pub mod objects;
pub mod operator;
pub mod poll;
pub mod postgres;
pub mod programs;
pub mod prometheus;
pub mod proxy;
pub mod records;
pub mod replay;
pub mod servers;
pub mod trail;

pub use access::Access;
pub use aws_proxy::{Answer, AwsProxy};
pub use calls::Calls;
pub use chart::Release;
pub use control_plane::{ControlPlane, Options};
pub use ministack::Ministack;
pub use objects::{container_status, node, pod, running_pod};
pub use poll::eventually;
pub use postgres::Postgres;
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use replay::Replay;
pub use trail::Trail;
