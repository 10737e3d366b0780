//! The agent's life: start, serve, stop. A node has one agent, however many are started: a managed
//! agent takes over from one that was started on demand.

use std::{
    convert::Infallible,
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use ratchet_engine::{
    Command, Commands, Engine, Setup, StateDir, SystemClock, boot_id, create_private, open_store,
};
use ratchet_install::Readiness;
use ratchet_kernel::{Kernel, NodeKey};
use ratchet_protocol::{Client, ClientError, DEFAULT_SOCKET, Reply, Request};
use tokio::{
    net::UnixListener,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{
    carriers,
    health::AgentHealth,
    labels::{self, Labels},
    logging,
    options::AgentOptions,
    server::Server,
};

/// How long another agent may take to give way.
const GIVE_WAY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the agent could not start, or why it failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A system call failed.
    #[error("cannot {doing}: {cause}")]
    System {
        /// What was attempted.
        doing: String,
        /// The system's error.
        cause: io::Error,
    },
    /// Not root, or without the right to configure networks.
    #[error("the agent must run as root: it makes network devices in other network namespaces")]
    NotRoot,
    /// The kernel does not answer over netlink.
    #[error(transparent)]
    Kernel(#[from] ratchet_kernel::KernelError),
    /// It cannot install itself.
    #[error(transparent)]
    Install(#[from] ratchet_install::InstallError),
    /// There is no node key.
    #[error(transparent)]
    Key(#[from] ratchet_kernel::KeyError),
    /// Another agent runs and does not give way.
    #[error("{0}")]
    Occupied(String),
    /// The engine's thread has panicked.
    #[error("the engine has failed; see the log")]
    Engine,
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> AgentError {
    let doing = doing.into();
    move |cause| AgentError::System { doing, cause }
}

/// Runs the agent until it is told to stop: by SIGTERM, by SIGINT, or by another agent.
///
/// # Errors
/// When it cannot start. Once it runs, it retries what fails.
pub fn run(options: &AgentOptions) -> Result<(), AgentError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(AgentError::NotRoot);
    }
    create_private(options.local.state_dir()).map_err(system(format!(
        "make {}",
        options.local.state_dir().display()
    )))?;
    logging::start(&options.local).map_err(system("start logging"))?;
    let Some(_lock) = take_the_node(options)? else {
        tracing::info!("another agent runs already");
        return Ok(());
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %options.local.socket().display(),
        state_dir = %options.local.state_dir().display(),
        on_demand = options.on_demand,
        "agent starts"
    );
    if let Err(error) = open_as_many_files_as_allowed() {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the async runtime"))?;
    let ran = run_on(&runtime, options);
    // A program that a kubeconfig names may still run: nothing waits for it.
    runtime.shutdown_background();
    ran
}

fn run_on(runtime: &Runtime, options: &AgentOptions) -> Result<(), AgentError> {
    let (commands, inbox) = mpsc::channel();
    let progress = watch::Sender::new(0);
    let labels = Labels::start(labels::Setup {
        settings: options.settings.clone(),
        managed: !options.on_demand,
        connect: labels::connector(),
        engine: commands.clone(),
        progress: progress.clone(),
        runtime: runtime.handle().clone(),
    });
    let engine = Engine::new(Setup {
        settings: options.settings.clone(),
        managed: !options.on_demand,
        states: StateDir::open(options.local.state_dir())
            .map_err(system("open the state directory"))?,
        boot_id: boot_id().map_err(system("read the boot id"))?,
        kernel: Box::new(Kernel::new()?.with_key(NodeKey::open(&options.local.node_key())?)),
        clock: Arc::new(SystemClock),
        open_store: Arc::new(|settings| Box::pin(open_store(settings))),
        events: Box::new(labels.clone()),
        runtime: runtime.handle().clone(),
        commands: commands.clone(),
        progress: progress.clone(),
    })
    .map_err(system("read the state directory"))?;
    let listener = runtime.block_on(async { listen(options.local.socket()) })?;
    // Only now: a runtime that finds the plugin before an agent could not start pods.
    let installed = install(options)?;
    carriers::listen(commands.clone()).map_err(system("start the thread of carriers"))?;
    let _health = serve_health(options, &commands, installed)?;
    let (release, released) = tokio::sync::mpsc::channel(1);
    let server = Server {
        engine: commands.clone(),
        labels,
        progress: progress.subscribe(),
        release,
        managed: !options.on_demand,
    };
    let mut thread = EngineThread::start(engine, inbox)?;
    let reason = serve(
        runtime,
        server,
        listener,
        options,
        released,
        &mut thread.ended,
    );
    tracing::info!(reason, "agent stops");
    thread.stop(runtime, &commands)?;
    // Another agent may be waiting for the lock: remove the socket first. The lock ends with this
    // process.
    let _ = fs::remove_file(options.local.socket());
    Ok(())
}

/// Installs Ratchet on the node, if that is wanted, and returns how far it is.
fn install(options: &AgentOptions) -> Result<Option<Readiness>, AgentError> {
    let Some(directories) = &options.install else {
        return Ok(None);
    };
    let installer = ratchet_install::installer(directories, &options.settings, &options.local);
    let readiness = installer.readiness();
    installer.start()?;
    Ok(Some(readiness))
}

/// Serves health and metrics, if that is wanted.
fn serve_health(
    options: &AgentOptions,
    engine: &Commands,
    installed: Option<Readiness>,
) -> Result<Option<ratchet_health::Server>, AgentError> {
    let serve = |address| {
        let needs_store = options.settings.store_declares();
        let health = AgentHealth::new(engine.clone(), needs_store, installed.clone());
        ratchet_health::Server::start(address, Arc::new(health))
    };
    let served = options.local.health.map(serve).transpose();
    served.map_err(system("start the thread of health and metrics"))
}

/// The engine's thread.
struct EngineThread {
    thread: JoinHandle<()>,
    /// Closed when the thread has ended, also by a panic.
    ended: oneshot::Receiver<Infallible>,
}

impl EngineThread {
    fn start(engine: Engine, inbox: mpsc::Receiver<Command>) -> Result<Self, AgentError> {
        let (running, ended) = oneshot::channel::<Infallible>();
        let thread = thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                let _running = running;
                engine.run(&inbox);
            })
            .map_err(system("start the engine's thread"))?;
        Ok(Self { thread, ended })
    }

    /// Lets the engine finish its current command. Requests that still wait get the answer to try
    /// again.
    fn stop(self, runtime: &Runtime, commands: &Commands) -> Result<(), AgentError> {
        // A thread that has ended takes no command.
        let _ = commands.send(Command::Stop);
        if !self.ended.is_terminated() {
            let _closed = runtime.block_on(self.ended);
        }
        self.thread.join().map_err(|_| AgentError::Engine)
    }
}

/// Raises the limit on open files to the hard limit. Work in a namespace takes two descriptors, and
/// a pod may have any number of peers. The usual soft limit of 1,024 is for programs that use
/// select(2) (systemd.exec(5), "LimitNOFILE").
fn open_as_many_files_as_allowed() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

/// Serves until there is a reason to stop, and returns it.
fn serve(
    runtime: &Runtime,
    server: Server,
    listener: UnixListener,
    options: &AgentOptions,
    mut released: tokio::sync::mpsc::Receiver<()>,
    engine_ended: &mut oneshot::Receiver<Infallible>,
) -> &'static str {
    runtime.block_on(async {
        let (Ok(mut terminate), Ok(mut interrupt)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            return "cannot catch signals";
        };
        tokio::select! {
            () = server.serve(listener, options.local.socket()) => "the socket is closed",
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = released.recv() => "another agent takes over",
            _closed = engine_ended => "the engine has failed",
        }
    })
}

/// Takes the lock on the state directory. While it has the lock, it is the node's only agent.
/// `None`: another agent runs, and this one is not needed.
fn take_the_node(options: &AgentOptions) -> Result<Option<Flock<File>>, AgentError> {
    let path = options.local.state_dir().join("agent.lock");
    let deadline = Instant::now() + GIVE_WAY_TIMEOUT;
    let mut ask_at = Instant::now();
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(system(format!("open {}", path.display())))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            // An agent that holds the lock and does not listen may be exiting: its connections are
            // closed before its files.
            Err((_, Errno::EWOULDBLOCK))
                if options.on_demand && UnixStream::connect(options.local.socket()).is_ok() =>
            {
                return Ok(None);
            }
            Err((_, Errno::EWOULDBLOCK)) => {}
            Err((_, errno)) => {
                return Err(system(format!("lock {}", path.display()))(errno.into()));
            }
        }
        // Ask again from time to time: the plugin may have started another agent since.
        if !options.on_demand
            && ask_at <= Instant::now()
            && ask_to_give_way(options.local.socket())?
        {
            ask_at = Instant::now() + Duration::from_millis(500);
        }
        if Instant::now() > deadline {
            return Err(AgentError::Occupied(format!(
                "another agent holds {} and does not give way; stop it first",
                path.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks the running agent to give way. Returns whether it will.
fn ask_to_give_way(socket: &Path) -> Result<bool, AgentError> {
    match Client::call(socket, &Request::Release, GIVE_WAY_TIMEOUT) {
        Ok(Reply::Error(failure)) => Err(AgentError::Occupied(failure.message)),
        Ok(_) => Ok(true),
        // It may be starting or stopping.
        Err(ClientError::NoAgent { .. } | ClientError::Broken { .. }) => Ok(false),
        Err(error) => Err(AgentError::Occupied(error.to_string())),
    }
}

/// Listens on the socket, for root only.
fn listen(socket: &Path) -> Result<UnixListener, AgentError> {
    let doing = || format!("listen on {}", socket.display());
    // The usual directory is ours alone; the kubelet makes it readable for all if it is to be
    // mounted. Another one that exists may be anybody's.
    if let Some(dir) = socket.parent()
        && (!dir.exists() || socket == Path::new(DEFAULT_SOCKET))
    {
        create_private(dir).map_err(system(format!("make {}", dir.display())))?;
    }
    // The holder of the lock is the only agent: an existing socket is left from an earlier one.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(system(doing())(error));
        }
        _ => {}
    }
    // Bound under another name, and renamed when only root may connect, so that it is never open to
    // others.
    let mut name = socket.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(system(doing()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(system(doing()))?;
    fs::rename(&fresh, socket).map_err(system(doing()))?;
    Ok(listener)
}
