//! The inside of a pod: its network, hostname, volumes and its own /run.
//!
//! No process keeps a pod's mount namespace. Everything in it comes from the pod's directory, so
//! each command that enters the pod builds an equal one. `exec` therefore sees the sockets and
//! files of the pod's script, and works when the script has ended.

use std::{
    fs::{self, File},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::Mode,
};

use crate::{
    netns::in_thread,
    plan::is_private,
    process::{MARK, new_session},
    state::{LabDir, Pod, State, make_dir},
};

const SCRIPT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the directory that is a pod's /run.
pub(crate) fn make_run_dir(dir: &LabDir, pod: &Pod) -> Result<()> {
    let run = run_dir(dir, pod);
    make_dir(&run)?;
    // Programs in the pod may run as other users and must reach files in it. Outside of the pod,
    // only root can read its parent.
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755))
        .with_context(|| run.display().to_string())
}

fn run_dir(dir: &LabDir, pod: &Pod) -> PathBuf {
    dir.pod(pod).join("run")
}

/// Starts a pod's script in the background, in a new session.
pub(crate) fn run_script(state: &State, pod: &Pod, dir: &LabDir, script: &str) -> Result<Child> {
    let log = dir.pod_log(pod);
    let log = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    in_thread(|| {
        enter(dir, pod)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            // As in a container, the user's environment is not visible.
            .env_clear()
            .env("PATH", SCRIPT_PATH)
            .env("HOME", "/root")
            .env("HOSTNAME", &pod.name)
            .env(MARK, &state.id)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        new_session(&mut command)
            .spawn()
            .context("cannot start /bin/sh")
    })
    .with_context(|| {
        format!(
            "the ratchet.dev/lab-run script of pod {}/{}",
            pod.namespace, pod.name
        )
    })
}

/// Moves the calling thread into a pod. The thread does not come back.
pub(crate) fn enter(dir: &LabDir, pod: &Pod) -> Result<()> {
    pod.netns.enter()?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .context("cannot make mount and UTS namespaces")?;
    // MS_SLAVE: nothing mounted here is seen outside, but what is mounted and unmounted outside is
    // seen here. Otherwise a pod would keep removed namespaces of /run/netns alive.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .context("cannot make the pod's mounts private")?;
    fs::write("/proc/sys/kernel/hostname", &pod.name).context("cannot set the hostname")?;
    fresh_sysfs();
    mount_private(dir, pod).with_context(|| {
        format!(
            "cannot mount the volumes of pod {}/{}",
            pod.namespace, pod.name
        )
    })
}

fn mount_private(dir: &LabDir, pod: &Pod) -> Result<()> {
    // The sources are below /run: they are opened before another directory is mounted there.
    let run = hold(&run_dir(dir, pod))?;
    let namespaces = hold(Path::new("/run/netns"))?;
    let sources: Vec<_> = pod
        .mounts
        .iter()
        .map(|m| hold(&dir.pod(pod).join(&m.source)))
        .collect::<Result<_>>()?;

    bind(&run, Path::new("/run"), MsFlags::empty())?;
    if !Path::new("/var/run").is_symlink() {
        bind(&run, Path::new("/var/run"), MsFlags::empty())?;
    }
    fs::create_dir_all("/run/netns").context("/run/netns")?;
    bind(&namespaces, Path::new("/run/netns"), MsFlags::MS_REC)?;
    for (wanted, source) in pod.mounts.iter().zip(&sources) {
        let target = &wanted.target;
        if is_private(target) {
            make_mount_point(
                target,
                fs::metadata(held(source)).is_ok_and(|meta| meta.is_dir()),
            )?;
        }
        bind(source, target, MsFlags::empty())?;
        // ConfigMap volumes are read-only in Kubernetes, too.
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, target, None::<&str>, read_only, None::<&str>)
            .with_context(|| format!("cannot make {} read-only", target.display()))?;
    }
    Ok(())
}

fn make_mount_point(target: &Path, is_dir: bool) -> Result<()> {
    let dir = if is_dir {
        Some(target)
    } else {
        target.parent()
    };
    dir.map_or(Ok(()), fs::create_dir_all)
        .with_context(|| target.display().to_string())?;
    if !is_dir {
        File::options()
            .create(true)
            .append(true)
            .open(target)
            .with_context(|| target.display().to_string())?;
    }
    Ok(())
}

/// Mounts a sysfs that shows the pod's devices in /sys/class/net. Where that is not allowed, the
/// machine's sysfs stays, and only listings of devices in /sys are wrong.
fn fresh_sysfs() {
    let cgroups = hold(Path::new("/sys/fs/cgroup"));
    if mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .is_ok()
        && let Ok(cgroups) = cgroups
    {
        // A fresh sysfs has an empty directory there.
        let _ = bind(&cgroups, Path::new("/sys/fs/cgroup"), MsFlags::MS_REC);
    }
}

fn hold(path: &Path) -> Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {}", path.display()))
}

fn held(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn bind(source: &OwnedFd, target: &Path, more: MsFlags) -> Result<()> {
    mount(
        Some(held(source).as_str()),
        target,
        None::<&str>,
        MsFlags::MS_BIND | more,
        None::<&str>,
    )
    .with_context(|| format!("cannot mount on {}", target.display()))
}
