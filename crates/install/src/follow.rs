//! Installs, and does it again when something changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::AsFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

use crate::{
    Directories, InstallError,
    config::{self, FILE, File, Verdict},
    entry::Entry,
    files::{self, Identity},
    system,
};

/// How often it looks without being told of a change.
const LOOK: Duration = Duration::from_secs(60);
/// How often it looks while a file is broken or something failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a broken file is taken for one that is being written.
const BROKEN: Duration = Duration::from_secs(10);
/// The least time between two writes, so that two programs that disagree do not keep a node busy.
const BETWEEN_WRITES: Duration = Duration::from_millis(200);

/// Whether the runtime calls the plugin for new pods, as the last look has found it.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Mutex<Result<(), String>>>);

impl Readiness {
    /// If not, the error says why.
    ///
    /// # Errors
    /// When pods that start now would get no links.
    pub fn get(&self) -> Result<(), String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, ready: Result<(), String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ready;
    }
}

/// Installs this program on its node.
pub struct Installer {
    program: PathBuf,
    directories: Directories,
    own: Entry,
    /// The program that is known to be the right one.
    installed: Option<Identity>,
    /// Files that are broken, and since when.
    broken: BTreeMap<String, Instant>,
    /// What was logged last, so that it is logged once.
    told: BTreeSet<String>,
    readiness: Readiness,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// All is as it must be, as far as that is possible now.
    Settled,
    /// Something was written.
    Wrote,
    /// A file is broken, perhaps because it is being written.
    Waiting,
}

impl Installer {
    pub(crate) fn new(directories: Directories, own: Entry) -> Self {
        Self {
            program: "/proc/self/exe".into(),
            directories,
            own,
            installed: None,
            broken: BTreeMap::new(),
            told: BTreeSet::new(),
            readiness: Readiness(Arc::new(Mutex::new(Err(
                "the network config is not written yet".to_owned(),
            )))),
        }
    }

    /// Tells whether the runtime calls the plugin, for as long as the process lives.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Installs, and follows changes in a thread of its own for as long as the process lives. It
    /// may be killed at any moment.
    ///
    /// # Errors
    /// When there can be no thread, or no watch.
    pub fn start(mut self) -> Result<(), InstallError> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(|errno| system("watch files")(errno.into()))?;
        thread::Builder::new()
            .name("install".to_owned())
            .spawn(move || self.follow(&inotify))
            .map_err(system("start the installer's thread"))?;
        Ok(())
    }

    fn follow(&mut self, inotify: &Inotify) {
        loop {
            // Before each look, so that no change is missed. The same directory has one watch only.
            let watched = self.watch(inotify);
            let looked = watched.and_then(|()| self.look());
            let pause = match looked {
                Ok(Looked::Settled) => LOOK,
                Ok(Looked::Waiting) => LOOK_AGAIN,
                Ok(Looked::Wrote) => {
                    thread::sleep(BETWEEN_WRITES);
                    continue;
                }
                Err(error) => {
                    self.tell(BTreeSet::from([error.to_string()]));
                    LOOK_AGAIN
                }
            };
            wait(inotify, pause);
        }
    }

    fn watch(&self, inotify: &Inotify) -> Result<(), InstallError> {
        let dir = &self.directories.cni_dir;
        let doing = || format!("watch {}", dir.display());
        fs::create_dir_all(dir).map_err(system(doing()))?;
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        let watched = inotify.add_watch(dir, changes);
        watched.map_err(|errno| system(doing())(errno.into()))?;
        Ok(())
    }

    /// Compares what is there with what must be there, and writes what differs. First the program:
    /// a config without it would keep pods from starting.
    ///
    /// # Errors
    /// When a file cannot be read or written. The next look tries again.
    pub fn look(&mut self) -> Result<Looked, InstallError> {
        let program = self.install_program()?;
        let files = self.read()?;
        let given_up = self.given_up(&files);
        let verdict = config::decide(&files, &self.own, &given_up);
        if let Verdict::Wait(why) = verdict {
            self.tell(BTreeSet::from([format!(
                "waiting for a file to be complete: {why}"
            )]));
            return Ok(Looked::Waiting);
        }
        let config = self.settle(verdict, &files)?;
        let files = if config { self.read()? } else { files };
        self.readiness.set(config::calls_us(&files));
        Ok(if program || config {
            Looked::Wrote
        } else {
            Looked::Settled
        })
    }

    /// The broken files that are no longer waited for.
    fn given_up(&mut self, files: &[File]) -> BTreeSet<String> {
        let (broken, now) = (config::broken(files), Instant::now());
        self.broken.retain(|name, _| broken.contains(name));
        for name in broken {
            self.broken.entry(name).or_insert(now);
        }
        let given_up = self
            .broken
            .iter()
            .filter(|(_, since)| now - **since >= BROKEN);
        given_up.map(|(name, _)| name.clone()).collect()
    }

    fn install_program(&mut self) -> Result<bool, InstallError> {
        let dir = &self.directories.cni_bin_dir;
        let path = dir.join(files::PROGRAM);
        if self.installed.is_some() && self.installed == files::identity(&path) {
            return Ok(false);
        }
        let is_new = files::install_program(&self.program, dir)?;
        self.installed = files::identity(&path);
        if is_new {
            tracing::info!(path = %path.display(), "plugin installed");
        }
        Ok(is_new)
    }

    /// The files that runtimes read.
    fn read(&self) -> Result<Vec<File>, InstallError> {
        let dir = &self.directories.cni_dir;
        let doing = || format!("read {}", dir.display());
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(system(doing()))? {
            let entry = entry.map_err(system(doing()))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let content = match fs::read(entry.path()) {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                // It has gone meanwhile, or is a directory.
                Err(error) if is_no_file(&error) => continue,
                Err(error) => Err(error.to_string()),
            };
            files.push(File { name, content });
        }
        Ok(files)
    }

    /// Does what was decided. Returns whether it wrote.
    fn settle(&mut self, verdict: Verdict, files: &[File]) -> Result<bool, InstallError> {
        let (text, source, warnings) = match verdict {
            Verdict::Write {
                text,
                source,
                warnings,
            } => (text, source, warnings),
            Verdict::Leave(why) | Verdict::Wait(why) => {
                self.tell(BTreeSet::from([why]));
                return Ok(false);
            }
        };
        self.tell(warnings.into_iter().collect());
        let ours = files.iter().find(|file| file.name == FILE);
        if ours.is_some_and(|file| file.content.as_ref() == Ok(&text)) {
            return Ok(false);
        }
        files::write_config(&self.directories.cni_dir.join(FILE), &text)?;
        tracing::info!(around = source, "network config written: {FILE}");
        Ok(true)
    }

    /// Logs what was not told at the last look.
    fn tell(&mut self, texts: BTreeSet<String>) {
        for text in texts.difference(&self.told) {
            tracing::warn!("install: {text}");
        }
        self.told = texts;
    }
}

fn is_no_file(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::IsADirectory].contains(&error.kind())
}

/// Waits for a change, or until some time has passed.
fn wait(inotify: &Inotify, pause: Duration) {
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
    let mut changes = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
    // A signal ends it early, which is one look more.
    if poll(&mut changes, timeout).is_err() {
        return;
    }
    // Which file has changed does not matter. Without a change, this is EAGAIN.
    while !matches!(
        inotify.read_events(),
        Err(Errno::EAGAIN) | Err(Errno::EBADF)
    ) {}
}
