//! `ratchet lab up`: checks everything, then makes the lab, and undoes all of it when a step fails.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, ExitCode},
};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use crate::{
    agent,
    cli::{UpArgs, name_option},
    cni::{self, Calls},
    down,
    interrupt::{self, Interrupted},
    ip,
    manifest::Manifest,
    plan::{Input, PARENT_INTERFACE, Plan},
    process::ProcessId,
    progress::{Progress, say, warn},
    sandbox,
    state::{LabDir, State, make_dir},
};

/// The underlay's bridge, in a network namespace of its own.
const BRIDGE: &str = "underlay";

/// Brings up a lab.
pub(crate) fn up(args: &UpArgs, ratchet: &Path) -> Result<ExitCode> {
    let manifest = Manifest::read(&args.file)?;
    for note in &manifest.notes {
        warn(&format!("note: {note}"));
    }
    let Plan { state, inputs } = check(&manifest, args, ratchet)?;
    interrupt::catch()?;
    let dir = LabDir::create(&args.name)?;
    let mut build = Build {
        dir: Some(dir),
        state,
        progress: Progress::start(),
        agents: Vec::new(),
        scripts: Vec::new(),
    };
    match build.run(&inputs, &args.log_level) {
        Ok(()) => {
            build.commit();
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let outcome = match build.undo() {
                Ok(()) => "everything that was made has been removed again",
                Err(error) => {
                    warn(&format!("{error:#}"));
                    "not everything could be removed"
                }
            };
            if let Some(Interrupted(signal)) = error.root_cause().downcast_ref() {
                warn(&format!("{error:#}; {outcome}"));
                // As shells report a process that a signal has ended.
                let code = u8::try_from(128 + *signal as i32).unwrap_or(1);
                return Ok(ExitCode::from(code));
            }
            let what = format!(
                "the lab '{}' could not be brought up ({outcome})",
                args.name
            );
            Err(error.context(what))
        }
    }
}

/// Plans the lab and checks all that it needs, before anything is made.
fn check(manifest: &Manifest, args: &UpArgs, ratchet: &Path) -> Result<Plan> {
    let existing = LabDir::at(&args.name);
    if existing.exists() {
        bail!(existing.already_exists());
    }
    let plan = Plan::new(manifest, args, ratchet)?;
    ip::check()?;
    cni::check_loopback(&plan.state.cni_path)?;
    for netns in plan.state.namespaces() {
        netns.clone().begin()?;
    }
    Ok(plan)
}

/// A lab being made. If it is dropped before [`Build::commit`], it undoes what it has made.
#[derive(Debug)]
struct Build {
    /// `None` once the lab is committed or undone.
    dir: Option<LabDir>,
    state: State,
    progress: Progress,
    /// In the order of the state's nodes.
    agents: Vec<Child>,
    /// The pods' scripts, kept so that they can be reaped.
    scripts: Vec<Child>,
}

impl Drop for Build {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            warn(&format!("{error:#}"));
        }
    }
}

impl Build {
    fn run(&mut self, inputs: &[Input], log_level: &str) -> Result<()> {
        // The first record has all names and ids, so from here on `down` can find everything.
        self.save()?;
        self.write_files(inputs)?;
        self.make_underlay()?;
        for index in 0..self.state.nodes.len() {
            self.make_node(index, log_level)?;
        }
        for index in 0..self.agents.len() {
            let (dir, node) = (dir(&self.dir)?, &self.state.nodes[index]);
            agent::wait_ready(&mut self.agents[index], node, dir)?;
            self.progress
                .done(&format!("agent of {} answers", node.name));
        }
        for (index, input) in inputs.iter().enumerate() {
            self.make_pod(index, input)?;
        }
        interrupt::check()?;
        self.state.complete = true;
        self.save()
    }

    /// Saves the record. As this comes before each step, it also checks for an interrupt.
    fn save(&self) -> Result<()> {
        if !self.state.complete {
            interrupt::check()?;
        }
        dir(&self.dir)?.save(&self.state)
    }

    fn write_files(&self, inputs: &[Input]) -> Result<()> {
        let dir = dir(&self.dir)?;
        for (pod, input) in self.state.pods.iter().zip(inputs) {
            let pod_dir = dir.pod(pod);
            make_dir(&pod_dir)?;
            sandbox::make_run_dir(dir, pod)?;
            let config = pod_dir.join("cni.json");
            fs::write(&config, input.config.to_string())
                .with_context(|| config.display().to_string())?;
            // A volume may be empty, so its directory is made even without a file.
            for mount in &pod.mounts {
                let source = pod_dir.join(&mount.source);
                let is_file = input.files.contains_key(&mount.source);
                make_volume_dir(
                    &pod_dir,
                    if is_file {
                        source.parent()
                    } else {
                        Some(&source)
                    },
                )?;
            }
            for (path, content) in &input.files {
                let path = pod_dir.join(path);
                make_volume_dir(&pod_dir, path.parent())?;
                fs::write(&path, content).with_context(|| path.display().to_string())?;
                set_mode(&path, 0o644)?;
            }
        }
        Ok(())
    }

    fn make_underlay(&mut self) -> Result<()> {
        self.state.underlay.begin()?;
        self.save()?;
        self.state.underlay.make(&self.state.id)?;
        self.save()?;
        let name = self.state.underlay.name.clone();
        let bridge = format!(
            "link add {BRIDGE} type bridge stp_state 0 forward_delay 0\nlink set {BRIDGE} up\n"
        );
        ip::batch(&name, &bridge, &self.state.id)?;
        self.progress
            .done(&format!("underlay {} (netns {name})", self.state.cidr));
        Ok(())
    }

    fn make_node(&mut self, index: usize, log_level: &str) -> Result<()> {
        self.state.nodes[index].netns.begin()?;
        self.save()?;
        self.state.nodes[index].netns.make(&self.state.id)?;
        self.save()?;

        let (state, dir) = (&self.state, dir(&self.dir)?);
        let node = &state.nodes[index];
        let port = format!("port{}", index + 1);
        let netns = &node.netns.name;
        // Both ends are created in the lab's namespaces: the machine's own namespace never sees
        // them.
        let veth = format!(
            "link add {port} type veth peer name {PARENT_INTERFACE} netns {netns}\n\
             link set {port} master {BRIDGE} up\n"
        );
        ip::batch(&state.underlay.name, &veth, &state.id)?;
        let address = IpNet::new(node.address, state.cidr.prefix_len())?;
        let no_dad = if node.address.is_ipv6() { " nodad" } else { "" };
        let up = format!(
            "link set {PARENT_INTERFACE} up\n\
             address add {address} dev {PARENT_INTERFACE}{no_dad}\n"
        );
        ip::batch(netns, &up, &state.id)?;

        make_dir(&dir.node(&node.name))?;
        let child = agent::start(state, node, dir, log_level)?;
        let agent = i32::try_from(child.id()).ok().and_then(ProcessId::of);
        self.agents.push(child);
        self.state.nodes[index].agent = agent;
        self.save()?;
        let node = &self.state.nodes[index];
        self.progress.done(&format!(
            "node {} at {} (netns {})",
            node.name, node.address, node.netns.name
        ));
        Ok(())
    }

    fn make_pod(&mut self, index: usize, input: &Input) -> Result<()> {
        self.state.pods[index].netns.begin()?;
        self.save()?;
        self.state.pods[index].netns.make(&self.state.id)?;
        self.state.pods[index].attached = true;
        self.save()?;

        let (state, dir) = (&self.state, dir(&self.dir)?);
        let pod = &state.pods[index];
        let node = state
            .node(&pod.node)
            .with_context(|| format!("no node {}", pod.node))?;
        Calls {
            state,
            node,
            pod,
            dir,
        }
        .add()?;
        interrupt::check()?;
        let mut line = format!(
            "pod {} on {} (netns {})",
            pod.title(),
            node.name,
            pod.netns.name
        );
        if let Some(script) = &input.script {
            self.scripts
                .push(sandbox::run_script(state, pod, dir, script)?);
            let _ = write!(line, ", its script runs");
        }
        self.progress.done(&line);
        Ok(())
    }

    fn commit(mut self) {
        let lab = name_option(&self.state.name);
        self.dir = None;
        let Some(pod) = self.state.pods.first() else {
            return;
        };
        let title = pod.title();
        self.progress
            .done(&format!("the lab '{}' is up", self.state.name));
        let netns = &pod.netns.name;
        say(&format!(
            "
Look at it:
  ratchet lab status{lab}
  ratchet lab exec{lab} {title} -- ip address
  ratchet lab exec{lab} {title} -- ping -c 3 ADDRESS
  ip netns exec {netns} ip -d link
Remove it:
  ratchet lab down{lab}"
        ));
    }

    fn undo(&mut self) -> Result<()> {
        let Some(dir) = self.dir.take() else {
            return Ok(());
        };
        let result = down::remove(dir, &self.state, None);
        for child in self.agents.iter_mut().chain(&mut self.scripts) {
            // It has ended; this only reaps it.
            let _ = child.try_wait();
        }
        result
    }
}

fn dir(dir: &Option<LabDir>) -> Result<&LabDir> {
    dir.as_ref().context("the lab is being removed")
}

/// Makes a directory below a pod's `volumes`, readable by all users from `volumes` down.
fn make_volume_dir(pod_dir: &Path, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    make_dir(path)?;
    for path in path.ancestors().take_while(|path| *path != pod_dir) {
        set_mode(path, 0o755)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| path.display().to_string())
}
