//! The part of the CRI that a kubelet needs to start and stop a pod: a dozen messages, written by
//! hand.
//!
//! Names and numbers are from `runtime/v1/api.proto` (k8s.io/cri-api). The crate k8s-cri has them,
//! but needs another version of tonic and the protobuf compiler.

use std::{collections::HashMap, path::Path};

use prost::Message;
use tonic::{
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{image::IMAGE, support::eventually};

#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct LinuxSandbox {
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
}

/// `PodSandboxConfig`.
#[derive(Clone, PartialEq, Message)]
pub struct Sandbox {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    pub hostname: String,
    #[prost(map = "string, string", tag = "7")]
    pub annotations: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct RunSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<Sandbox>,
}

/// All requests and answers with only an id, or without fields.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct StatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
}

/// `PodSandboxStatus`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, optional, tag = "5")]
    network: Option<Network>,
}

#[derive(Clone, PartialEq, Message)]
struct Network {
    #[prost(string, tag = "1")]
    ip: String,
}

/// The answer to `Status`.
#[derive(Clone, PartialEq, Message)]
struct RuntimeAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<Condition>,
}

/// `RuntimeCondition`.
#[derive(Clone, PartialEq, Message)]
struct Condition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sandboxes {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Id>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    /// `ImageSpec`, whose first field is the image.
    #[prost(message, optional, tag = "2")]
    image: Option<Id>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<Sandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct Exec {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ExecAnswer {
    #[prost(bytes = "vec", tag = "1")]
    stdout: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    stderr: Vec<u8>,
    #[prost(int32, tag = "3")]
    exit_code: i32,
}

/// A kubelet's connection.
pub struct Cri {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Cri {
    /// Connects. Fails while containerd does not answer.
    pub fn connect(socket: &Path) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        let channel = runtime
            .block_on(endpoint.connect())
            .map_err(|error| format!("{error:?}"))?;
        let cri = Self { runtime, channel };
        cri.call::<_, Id>("Version", Id::default())?;
        Ok(cri)
    }

    fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, String>
    where
        Q: Message + Send + Sync + Default + 'static,
        A: Message + Send + Sync + Default + 'static,
    {
        let path: PathAndQuery = format!("/runtime.v1.RuntimeService/{method}")
            .parse()
            .unwrap();
        self.runtime.block_on(async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready()
                .await
                .map_err(|error| format!("{method}: {error}"))?;
            let answer = grpc
                .unary(
                    tonic::Request::new(request),
                    path,
                    ProstCodec::<Q, A>::default(),
                )
                .await;
            Ok(answer
                .map_err(|status| format!("{method}: {}", status.message()))?
                .into_inner())
        })
    }

    /// Waits until containerd has loaded a network config, as a kubelet does before it starts pods.
    ///
    /// A RunPodSandbox before that is not only refused. The DEL that undoes it is refused, too, so
    /// containerd keeps the failed sandbox, and its name stays reserved for it.
    #[track_caller]
    pub fn wait_for_network(&self) {
        eventually("the network config", || {
            let answer: RuntimeAnswer = self.call("Status", Id::default())?;
            let conditions = answer.status.unwrap_or_default().conditions;
            let network = conditions.iter().find(|one| one.kind == "NetworkReady");
            match network {
                Some(network) if network.status => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// RunPodSandbox.
    pub fn run(&self, sandbox: &Sandbox) -> Result<String, String> {
        Ok(self
            .call::<_, Id>(
                "RunPodSandbox",
                RunSandbox {
                    config: Some(sandbox.clone()),
                },
            )?
            .id)
    }

    /// StopPodSandbox.
    pub fn stop(&self, id: &str) -> Result<(), String> {
        self.call::<_, Id>("StopPodSandbox", Id { id: id.to_owned() })
            .map(drop)
    }

    /// RemovePodSandbox.
    pub fn remove(&self, id: &str) -> Result<(), String> {
        self.call::<_, Id>("RemovePodSandbox", Id { id: id.to_owned() })
            .map(drop)
    }

    /// The pod's address that Kubernetes sees.
    pub fn address(&self, id: &str) -> String {
        let answer: StatusAnswer = self
            .call("PodSandboxStatus", Id { id: id.to_owned() })
            .unwrap();
        answer
            .status
            .and_then(|status| status.network)
            .map(|network| network.ip)
            .unwrap_or_default()
    }

    /// ListPodSandbox.
    pub fn sandboxes(&self) -> Vec<String> {
        let answer: Sandboxes = self.call("ListPodSandbox", Id::default()).unwrap();
        answer.items.into_iter().map(|sandbox| sandbox.id).collect()
    }

    /// Creates and starts a container that sleeps.
    pub fn container(&self, sandbox: &str, config: &Sandbox) -> String {
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: "main".into(),
            }),
            image: Some(Id { id: IMAGE.into() }),
            command: ["/bin/sleep", "100000"].map(str::to_owned).into(),
        };
        let create = CreateContainer {
            sandbox: sandbox.to_owned(),
            config: Some(container),
            sandbox_config: Some(config.clone()),
        };
        let id = self.call::<_, Id>("CreateContainer", create).unwrap().id;
        self.call::<_, Id>("StartContainer", Id { id: id.clone() })
            .unwrap();
        id
    }

    /// Runs a command in a container. Returns its output if it succeeds.
    pub fn exec(&self, container: &str, command: &str) -> Result<String, String> {
        let command = command.split(' ').map(str::to_owned).collect();
        let answer: ExecAnswer = self.call(
            "ExecSync",
            Exec {
                container: container.to_owned(),
                command,
                timeout: 10,
            },
        )?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let stdout = text(&answer.stdout);
        if answer.exit_code == 0 {
            Ok(stdout)
        } else {
            Err(format!("{stdout}{}", text(&answer.stderr)))
        }
    }
}
