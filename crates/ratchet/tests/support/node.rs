//! A node and its agent.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ratchet_protocol::{Client, LinkState, Links, Reply, Request};
use serde_json::Value;

use super::{DEADLINE, Netns, RATCHET, eventually, terminate};

/// A node: a namespace with eth0 on the underlay. It may have an agent.
pub struct Node {
    pub netns: Netns,
    pub name: String,
    pub address: String,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
    pub agent: Option<Child>,
    /// The binary that runs as agent and as plugin.
    pub program: PathBuf,
    /// Variables for the agents that this type starts (not for those that the plugin starts).
    pub environment: BTreeMap<&'static str, PathBuf>,
    pub(super) store: String,
    /// Files that its agents see instead of those of the same name in /etc.
    pub etc: BTreeMap<&'static str, PathBuf>,
    /// The soft limit of open files for its agents.
    pub open_files: Option<u64>,
    /// Whether its agents find no nftables in the kernel.
    pub without_nftables: bool,
    /// Further keys of the config.
    pub(super) keys: BTreeMap<String, Value>,
}

impl Node {
    pub(super) fn new(number: usize, underlay: &Netns, dir: &Path, store: &str) -> Self {
        let name = format!("node{}", number + 1);
        let netns = Netns::new(&name);
        let address = format!("10.91.0.{}", number + 1);
        underlay.sh(&format!(
            "ip link add v{number} type veth peer name eth0 netns {} && \
             ip link set v{number} master br0 up",
            netns.name
        ));
        netns.sh(&format!(
            "ip addr add {address}/24 dev eth0 && ip link set eth0 up && \
             ip route add default dev eth0"
        ));
        let state_dir = dir.join(&name);
        Self {
            socket: dir.join(format!("{name}.run")).join("agent.sock"),
            log: dir.join(format!("{name}.log")),
            agent: None,
            program: PathBuf::from(RATCHET),
            environment: BTreeMap::new(),
            store: store.to_owned(),
            etc: BTreeMap::new(),
            open_files: None,
            without_nftables: false,
            keys: BTreeMap::new(),
            netns,
            name,
            address,
            state_dir,
        }
    }

    /// Starts an agent and waits until it answers.
    pub fn start_agent(&mut self) {
        self.start_agent_with(&[]);
    }

    /// As [`Node::start_agent`], with further arguments.
    pub fn start_agent_with(&mut self, extra: &[&str]) {
        self.spawn_agent(extra);
        // An agent that the plugin has started may still answer for a moment.
        let pid = self.agent.as_ref().map(Child::id);
        eventually("the agent", || match self.agent_pid() {
            answering if answering == pid => Ok(()),
            answering => Err(format!(
                "{answering:?} answers, not {pid:?}; log: {}",
                self.log_text()
            )),
        });
    }

    /// Starts an agent and does not wait for it.
    pub fn spawn_agent(&mut self, extra: &[&str]) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let mut command = self.netns.command(&self.program);
        self.restrict(&mut command);
        command
            .args(["agent", "--store", &self.store, "--node", &self.name])
            .args(["--parent-interface", "eth0"])
            .args(["--parent-address", &self.address, "--log-level", "debug"])
            .arg("--socket")
            .arg(&self.socket)
            .arg("--state-dir")
            .arg(&self.state_dir)
            .args(extra)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.agent = Some(command.spawn().unwrap());
    }

    /// Makes an agent start with the node's files in /etc and its limit of open files.
    fn restrict(&self, command: &mut Command) {
        if !self.etc.is_empty() {
            let etc: Vec<_> = self
                .etc
                .iter()
                .map(|(name, file)| (Path::new("/etc").join(name), file.clone()))
                .collect();
            // SAFETY: unshare and mount are plain system calls, safe between fork and exec; the
            // paths were made before the fork.
            unsafe {
                command.pre_exec(move || Ok(mount_over(&etc)?));
            }
        }
        if self.without_nftables {
            // SAFETY: prctl is a plain system call, safe between fork and exec.
            unsafe {
                command.pre_exec(|| Ok(refuse_nfnetlink()?));
            }
        }
        if let Some(soft) = self.open_files {
            // SAFETY: getrlimit and setrlimit are plain system calls, safe between fork and exec.
            unsafe {
                command.pre_exec(move || {
                    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
                    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?)
                });
            }
        }
    }

    /// Waits until any agent answers.
    #[track_caller]
    pub fn wait_for_agent(&self) {
        eventually("the agent", || {
            match Client::call(&self.socket, &Request::Hello, DEADLINE) {
                Ok(Reply::Hello(_)) => Ok(()),
                other => Err(format!("{other:?}; log: {}", self.log_text())),
            }
        });
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends SIGKILL to the agent and waits for its end.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// The process id of the agent that answers, also of one that the plugin has started.
    pub fn agent_pid(&self) -> Option<u32> {
        match Client::call(&self.socket, &Request::Hello, DEADLINE) {
            Ok(Reply::Hello(hello)) => Some(hello.pid),
            _ => None,
        }
    }

    /// Stops the agent that this type or the plugin has started, if there is one.
    pub fn stop_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            terminate(agent.id());
            agent.wait().unwrap();
        } else if let Some(pid) = self.agent_pid() {
            terminate(pid);
            let deadline = Instant::now() + DEADLINE;
            while Path::new(&format!("/proc/{pid}")).exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// What `ratchet links` reports.
    pub fn links(&self) -> Links {
        match Client::call(&self.socket, &Request::Links { watch: false }, DEADLINE) {
            Ok(Reply::Links(links)) => links,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until exactly `count` links are up and none is in another state.
    #[track_caller]
    pub fn wait_for_links(&self, count: usize) {
        eventually(
            &format!("{count} links that are up on {}", self.name),
            || {
                let links = self.links().links;
                let up = links
                    .iter()
                    .filter(|link| link.state == LinkState::Up)
                    .count();
                if up == count && links.len() == count {
                    Ok(())
                } else {
                    Err(format!("{links:#?}"))
                }
            },
        );
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop_agent();
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log_text());
        }
    }
}

/// Has the kernel answer this process, and those that it starts, as one without nfnetlink does:
/// socket(AF_NETLINK, …, NETLINK_NETFILTER) fails with EPROTONOSUPPORT (net/netlink/af_netlink.c,
/// `netlink_create`).
fn refuse_nfnetlink() -> nix::Result<()> {
    use nix::libc;
    // The parts of `struct seccomp_data` (include/uapi/linux/seccomp.h), little-endian: the number
    // of the call, and its first and third argument.
    const CALL: u32 = 0;
    const FAMILY: u32 = 16;
    const PROTOCOL: u32 = 32;
    let load = |at| (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let unless = |value, skip| (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value);
    let answer = |value| (libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let number = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let lines = [
        load(CALL),
        unless(number(libc::SYS_socket), 5),
        load(FAMILY),
        unless(number(libc::AF_NETLINK.into()), 3),
        load(PROTOCOL),
        unless(number(libc::NETLINK_NETFILTER.into()), 1),
        answer(libc::SECCOMP_RET_ERRNO | number(libc::EPROTONOSUPPORT.into())),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let mut program = lines.map(|(code, jt, jf, k)| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf,
        k,
    });
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or_default(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `filter` and the program that it points to live until the call is over.
    let done = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    nix::errno::Errno::result(done).map(drop)
}

/// Moves this process to a new mount namespace and mounts files over others: (over, file). It still
/// sees network namespaces that are mounted on the machine later (MS_SLAVE).
fn mount_over(files: &[(PathBuf, PathBuf)]) -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_SLAVE | MsFlags::MS_REC,
        None::<&str>,
    )?;
    files.iter().try_for_each(|(over, file)| {
        mount(
            Some(file),
            over,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
    })
}
