//! How to reach the API: with a kubeconfig (the configured one, or one at a usual path), or with
//! the service account of the agent's own pod.

use std::path::{Path, PathBuf};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::chain;

/// The usual paths of kubeconfigs for CNI plugins and node agents. The first that exists is used.
/// The kubelet's own is enough: it may read this node's pods.
const USUAL: [&str; 3] = [
    "/etc/cni/net.d/ratchet.d/ratchet.kubeconfig",
    "/etc/ratchet/kubeconfig",
    "/etc/kubernetes/kubelet.conf",
];

/// If this file exists, the agent runs as a pod and has a service account.
const IN_CLUSTER_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The value of `kubeconfig` for the service account or one of the usual paths.
const AUTO: &str = "auto";

/// Where the API's address and credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// From a kubeconfig.
    Kubeconfig(PathBuf),
    /// From the service account of the agent's own pod.
    InCluster,
}

/// The API's address or credentials cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A kubeconfig cannot be read or used.
    #[error("kubeconfig {}: {problem}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The pod's service account cannot be used.
    #[error("the pod's service account: {0}")]
    InCluster(String),
    /// `auto`, and nothing was found.
    #[error(
        "\"kubeconfig\" is \"auto\", but there is neither a service account \
         ({IN_CLUSTER_TOKEN}) nor one of {}: set \"kubeconfig\" to the path of a kubeconfig",
        USUAL.join(", ")
    )]
    Nothing,
}

impl Source {
    /// Resolves the value of the setting `kubeconfig`: a path, or `auto`.
    ///
    /// # Errors
    /// When it is `auto` and nothing was found.
    pub fn find(kubeconfig: &str) -> Result<Self, SourceError> {
        if kubeconfig != AUTO {
            return Ok(Self::Kubeconfig(kubeconfig.into()));
        }
        if Path::new(IN_CLUSTER_TOKEN).exists() {
            return Ok(Self::InCluster);
        }
        let usual = USUAL.iter().map(PathBuf::from).find(|path| path.exists());
        usual.map(Self::Kubeconfig).ok_or(SourceError::Nothing)
    }

    /// Makes a client. It sends no request yet.
    ///
    /// # Errors
    /// When the address or the credentials cannot be read.
    pub async fn client(&self) -> Result<Client, SourceError> {
        let config = match self {
            Self::InCluster => {
                Config::incluster().map_err(|e| SourceError::InCluster(chain(&e)))?
            }
            Self::Kubeconfig(path) => {
                let refuse = |problem: String| SourceError::Kubeconfig {
                    path: path.clone(),
                    problem,
                };
                let file = Kubeconfig::read_from(path).map_err(|e| refuse(chain(&e)))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(|e| refuse(chain(&e)))?
            }
        };
        Client::try_from(config).map_err(|e| match self {
            Self::InCluster => SourceError::InCluster(chain(&e)),
            Self::Kubeconfig(path) => SourceError::Kubeconfig {
                path: path.clone(),
                problem: chain(&e),
            },
        })
    }
}

/// Makes a client for the API that the setting `kubeconfig` names, with the credentials as they
/// are now. It sends no request yet. It works on a thread of its own: a kubeconfig may name a
/// program that prints credentials, and the client waits for that program.
///
/// # Errors
/// What is missing, as a text.
pub async fn connect(kubeconfig: &str) -> Result<Client, String> {
    let runtime = tokio::runtime::Handle::current();
    let kubeconfig = kubeconfig.to_owned();
    let make = move || {
        let source = Source::find(&kubeconfig).map_err(|e| e.to_string())?;
        runtime.block_on(source.client()).map_err(|e| e.to_string())
    };
    let made = tokio::task::spawn_blocking(make).await;
    made.unwrap_or_else(|e| Err(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_missing_or_nonsense_is_named() {
        let missing = Source::find("/nowhere/kubeconfig")
            .unwrap()
            .client()
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(
            missing.starts_with("kubeconfig /nowhere/kubeconfig: "),
            "{missing}"
        );
    }
}
