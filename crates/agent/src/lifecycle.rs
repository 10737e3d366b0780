//! The agent's life: one a node, however many are started; a managed one takes over from one that
//! was started on demand.

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
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use ratchet_engine::{
    Command, Engine, Setup, StateDir, SystemClock, boot_id, create_private, open_store,
};
use ratchet_kernel::Kernel;
use ratchet_protocol::{Client, ClientError, Reply, Request};
use tokio::{
    net::UnixListener,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{logging, options::AgentOptions, server::Server};

/// How long an agent that is to give way may take to do so.
const GIVING_WAY: Duration = Duration::from_secs(30);

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Something about the system.
    #[error("{doing}: {source}")]
    System {
        /// What was attempted.
        doing: String,
        /// What the system says.
        source: io::Error,
    },
    /// Not root, or without the right to configure networks.
    #[error("the agent must run as root: it makes network devices in other network namespaces")]
    NotRoot,
    /// The kernel cannot be talked to.
    #[error("{0}")]
    Kernel(#[from] ratchet_kernel::KernelError),
    /// Another agent is there and stays.
    #[error("{0}")]
    Occupied(String),
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> AgentError {
    let doing = doing.into();
    move |source| AgentError::System { doing, source }
}

/// Runs the agent until it is told to stop: by SIGTERM, SIGINT, or by another agent.
///
/// # Errors
/// When it cannot start. Once it runs, whatever fails is tried again.
pub fn run(options: &AgentOptions) -> Result<(), AgentError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(AgentError::NotRoot);
    }
    create_private(&options.state_dir)
        .map_err(system(format!("make {}", options.state_dir.display())))?;
    logging::start(options).map_err(system("start logging"))?;
    let Some(_lock) = take_the_node(options)? else {
        tracing::info!("another agent is there already");
        return Ok(());
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %options.socket.display(),
        state_dir = %options.state_dir.display(),
        on_demand = options.on_demand,
        "agent starts"
    );

    if let Err(error) = open_as_many_files_as_allowed() {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the async runtime"))?;
    let (engine_commands, engine_inbox) = mpsc::channel();
    let progress = watch::Sender::new(0);
    let engine = Engine::new(Setup {
        settings: options.settings(),
        managed: !options.on_demand,
        states: StateDir::open(&options.state_dir).map_err(system("open the state directory"))?,
        boot_id: boot_id().map_err(system("read the boot id"))?,
        kernel: Box::new(Kernel::new()?),
        clock: Arc::new(SystemClock),
        open_store: Arc::new(|settings| Box::pin(open_store(settings))),
        runtime: runtime.handle().clone(),
        commands: engine_commands.clone(),
        progress: progress.clone(),
    })
    .map_err(system("read the state directory"))?;

    let listener = runtime.block_on(async { listen(&options.socket) })?;
    let (release, released) = tokio::sync::mpsc::channel(1);
    let server = Server {
        engine: engine_commands.clone(),
        progress: progress.subscribe(),
        release,
        managed: !options.on_demand,
    };
    // Closed once the thread has ended, in whatever way.
    let (running, mut ended) = oneshot::channel::<Infallible>();
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            let _running = running;
            engine.run(&engine_inbox);
        })
        .map_err(system("start the engine's thread"))?;
    let reason = serve(&runtime, server, listener, options, released, &mut ended);
    tracing::info!(reason, "agent stops");
    // The engine ends what it is at; requests that are still waiting are told to come again.
    let _ = engine_commands.send(Command::Stop);
    if !ended.is_terminated() {
        let _closed = runtime.block_on(ended);
    }
    if thread.join().is_err() {
        return Err(AgentError::Occupied(
            "the engine has failed; see the log".to_owned(),
        ));
    }
    // Another agent may be waiting for the lock: first the socket goes, then the lock with this
    // process.
    let _ = fs::remove_file(&options.socket);
    Ok(())
}

/// A namespace that is worked in takes two descriptors, and a pod may have any number of peers; the
/// usual limit of 1,024 is only meant for programs that use select(2). (systemd's documentation,
/// "File Descriptor Limits".)
fn open_as_many_files_as_allowed() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

/// Serves until there is a reason to stop, and gives it.
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
            return "signals cannot be caught";
        };
        tokio::select! {
            () = server.serve(listener, &options.socket) => "the socket is closed",
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = released.recv() => "another agent takes over",
            _closed = engine_ended => "the engine has failed",
        }
    })
}

/// Becomes the node's only agent: holds the lock on the state directory for as long as it lives.
/// `None`: another agent is there, and this one is not needed.
fn take_the_node(options: &AgentOptions) -> Result<Option<Flock<File>>, AgentError> {
    let path = options.state_dir.join("agent.lock");
    let deadline = Instant::now() + GIVING_WAY;
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
            // One that holds the lock and does not listen may be dying: its connections are closed
            // before its files.
            Err((_, Errno::EWOULDBLOCK))
                if options.on_demand && UnixStream::connect(&options.socket).is_ok() =>
            {
                return Ok(None);
            }
            Err((_, Errno::EWOULDBLOCK)) => {}
            Err((_, errno)) => {
                return Err(system(format!("lock {}", path.display()))(errno.into()));
            }
        }
        // Asked again now and then: between two agents the plugin may have started yet another one.
        if !options.on_demand && ask_at <= Instant::now() && ask_to_give_way(&options.socket)? {
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

/// Asks the agent that is there to give way; gives whether it will.
fn ask_to_give_way(socket: &Path) -> Result<bool, AgentError> {
    match Client::call(socket, &Request::Release, GIVING_WAY) {
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
    if let Some(dir) = socket.parent()
        && !dir.exists()
    {
        create_private(dir).map_err(system(format!("make {}", dir.display())))?;
    }
    // Whoever holds the lock is the only agent: a socket that is there is a dead one's.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(system(doing())(error));
        }
        _ => {}
    }
    // Bound under another name and renamed when it is root's alone, so that nobody ever finds it
    // open.
    let mut name = socket.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(system(doing()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(system(doing()))?;
    fs::rename(&fresh, socket).map_err(system(doing()))?;
    Ok(listener)
}
