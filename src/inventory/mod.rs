//! What runs: pods decoded into a few fields and kept in a compact index, by the image's repository.
//!
//! Two ways lead in: [`watch`] follows the Kubernetes API, [`read`] reads what `kubectl get -o json`
//! wrote. Both decode with [`object`] and feed the same [`Index`], which knows nothing of either and
//! is asked by repository, since that is what an assessment is about. Pods that run no image of a
//! private ECR registry, and pods that have finished, leave no trace in it.

mod image;
mod index;
mod intern;
pub mod object;
pub mod read;
mod scope;
mod split;
pub mod watch;
mod workload;

pub use index::{Changes, Index, Kind};
pub use object::{Namespace, Node, Pod};
pub use scope::Scope;
pub use watch::Inventory;

#[cfg(test)]
mod tests;
