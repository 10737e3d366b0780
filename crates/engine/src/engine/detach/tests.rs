//! Detaches that come at once are done in one go, and none for a namespace that only cannot be
//! entered: real engine, kernel and store, in namespaces of their own.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use ratchet_model::{
    End, PodKey,
    declaration::{Texts, declare},
    leftover::Leftover,
};
use ratchet_protocol::{Attachment, Detach, Failure, FailureKind, Reply, Settings};
use tokio::sync::oneshot;

use crate::{
    engine::{
        Command, NewSandbox,
        testing::{Netns, Node, devices, ip},
    },
    state::StateDir,
    store::open_store,
};

/// A command, and where its answer will be.
type Asked = (Command, oneshot::Receiver<Result<Reply, Failure>>);

/// An engine that is run for some commands at a time.
impl Node {
    /// Starts an engine when all of this is there already; gives the answers.
    fn run(&self, all: Vec<Asked>) -> Vec<Result<Reply, Failure>> {
        self.run_with(all, || ())
    }

    /// The same, with something done after the engine has read what is on disk.
    fn run_with(&self, all: Vec<Asked>, change: impl FnOnce()) -> Vec<Result<Reply, Failure>> {
        let (sender, inbox) = mpsc::channel();
        let engine = self.engine(&sender);
        change();
        let (commands, answers): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        commands
            .into_iter()
            .chain([Command::Stop])
            .for_each(|command| sender.send(command).unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        thread::scope(|scope| {
            // Somebody has to drive it, as the server does in an agent.
            scope.spawn(|| self.runtime.block_on(stopped));
            engine.run(&inbox);
            drop(stop);
        });
        answers
            .into_iter()
            .map(|mut answer| answer.try_recv().expect("an answer"))
            .collect()
    }

    fn sandboxes(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.dir.path().join("sandboxes")).unwrap();
        files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn state_file(&self, pod: &str) -> PathBuf {
        self.dir.path().join(format!("sandboxes/{pod}.json"))
    }

    fn devices(&self) -> Vec<String> {
        devices(&ip("-o link show"))
    }

    /// The pods that the store has records of.
    fn records(&self, pods: &[&str]) -> Vec<String> {
        let own = pods
            .iter()
            .map(|pod| PodKey::new("default", pod).unwrap())
            .collect();
        self.runtime.block_on(async {
            let store = open_store(self.settings.clone()).await.unwrap();
            store
                .read(&own)
                .await
                .unwrap()
                .records
                .into_keys()
                .map(|pod| pod.name().to_owned())
                .collect()
        })
    }
}

fn attachment(pod: &str, interface: &str) -> Attachment {
    Attachment {
        network: "net".into(),
        container_id: pod.parse().unwrap(),
        interface: interface.into(),
    }
}

fn attach(pod: &str, interface: &str, netns: &Netns, peers: &[&str]) -> Asked {
    attach_at(pod, interface, &netns.path(), peers)
}

fn attach_at(pod: &str, interface: &str, netns: &Path, peers: &[&str]) -> Asked {
    let links = peers
        .iter()
        .map(|peer| format!("{{interface: to-{peer}, peer: {peer}/to-{pod}}}"));
    let links = format!("[{}]", links.collect::<Vec<_>>().join(", "));
    let pod_key = PodKey::new("default", pod).unwrap();
    let annotations = [("ratchet.dev/links".to_owned(), links)].into();
    let declaration = declare(&pod_key, &Texts::new(), &annotations);
    let (sender, receiver) = oneshot::channel();
    let attach = NewSandbox {
        attachment: attachment(pod, interface),
        netns: netns.to_owned(),
        settings: Settings::default(),
        kubernetes: ("default".into(), pod.into()),
        use_labels: true,
        declaration: declaration.unwrap().unwrap(),
    };
    (Command::Attach(Box::new(attach), sender), receiver)
}

fn detach(pod: &str, interface: &str) -> Asked {
    let (sender, receiver) = oneshot::channel();
    (
        Command::Detach(
            Detach {
                attachment: attachment(pod, interface),
                netns: None,
            },
            sender,
        ),
        receiver,
    )
}

fn on_a_node(test: impl FnOnce(Node) + Send + 'static) {
    thread::spawn(|| test(Node::new())).join().unwrap();
}

#[test]
fn detaches_that_come_at_once_are_done_in_one_go_and_leave_nothing() {
    on_a_node(|node| {
        let [a, b, c] = ["a", "b", "c"].map(Netns::new);
        let wired = node.run(vec![
            attach("b", "eth0", &b, &["c"]),
            attach("c", "eth0", &c, &[]),
            attach("a", "eth0", &a, &["b", "c", "missing"]),
        ]);
        assert!(wired.iter().all(Result::is_ok), "{wired:?}");
        assert_eq!([&a, &b, &c].map(|netns| netns.devices().len()), [2, 2, 2]);

        let before = *node.progress.borrow();
        // One has no namespace any more, one was never attached, and one comes twice.
        drop(c);
        let answers = node.run(vec![
            detach("c", "eth0"),
            detach("a", "eth0"),
            detach("never", "eth0"),
            detach("b", "eth0"),
            detach("a", "eth0"),
        ]);
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, Ok(Reply::Done))),
            "{answers:?}"
        );
        // Whoever watches is told once after the start, and once after all of them.
        assert_eq!(*node.progress.borrow() - before, 2);
        assert_eq!([&a, &b].map(Netns::devices), [[""; 0], [""; 0]]);
        assert_eq!(
            (node.devices(), node.sandboxes()),
            (vec![], BTreeSet::new())
        );
        assert_eq!(node.records(&["a", "b", "c"]), [""; 0]);
    });
}

#[test]
fn a_detach_that_fails_fails_no_other() {
    on_a_node(|node| {
        let [a, b, both] = ["a", "b", "both"].map(Netns::new);
        let wired = node.run(vec![
            attach("a", "eth0", &a, &["b", "both"]),
            attach("b", "eth0", &b, &["both"]),
            attach("both", "eth0", &both, &[]),
            attach("both", "eth1", &both, &[]),
        ]);
        assert!(wired.iter().all(Result::is_ok), "{wired:?}");

        // The pod with two attachments stays, but that one has gone cannot be written down.
        let (file, aside) = (node.state_file("both"), node.dir.path().join("aside"));
        let answers = node.run_with(
            vec![
                detach("a", "eth0"),
                detach("both", "eth0"),
                detach("never", "eth0"),
                detach("b", "eth0"),
            ],
            || {
                fs::rename(&file, &aside).unwrap();
                fs::create_dir(&file).unwrap();
            },
        );
        let failed: Vec<Option<FailureKind>> = answers
            .iter()
            .map(|answer| answer.as_ref().err().map(|failure| failure.kind))
            .collect();
        assert_eq!(
            failed,
            [None, Some(FailureKind::Io), None, None],
            "{answers:?}"
        );
        assert_eq!([&a, &b].map(Netns::devices), [[""; 0], [""; 0]]);
        assert_eq!(both.devices().len(), 2, "its interfaces stay");
        assert_eq!(node.sandboxes(), ["both.json".to_owned()].into());

        fs::remove_dir(&file).unwrap();
        fs::rename(&aside, &file).unwrap();
        let answers = node.run(vec![detach("both", "eth0"), detach("both", "eth1")]);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(
            (node.devices(), both.devices(), node.sandboxes()),
            (vec![], vec![], BTreeSet::new())
        );
        assert_eq!(node.records(&["a", "b", "both"]), [""; 0]);
    });
}

/// As when descriptors have run out, say.
#[test]
fn a_namespace_that_cannot_be_entered_is_not_taken_for_one_that_is_gone() {
    on_a_node(|node| {
        let [a, b, c] = ["a", "b", "c"].map(Netns::new);
        let path = node.dir.path().join("netns");
        let lead_to = |target: &Path| {
            let _ = fs::remove_file(&path);
            std::os::unix::fs::symlink(target, &path).unwrap();
        };
        lead_to(&a.path());
        let wired = node.run(vec![
            attach("b", "eth0", &b, &[]),
            attach_at("a", "eth0", &path, &["b"]),
        ]);
        assert!(wired.iter().all(Result::is_ok), "{wired:?}");
        let both = || [a.devices(), b.devices()];
        assert_eq!(both(), [["to-b"], ["to-a"]]);

        // Opening it fails, but it lives: neither a look nor a detach may cut the link for that, or
        // forget what is left to undo.
        lead_to(&path);
        node.run(vec![]);
        assert_eq!(both(), [["to-b"], ["to-a"]]);
        let Reply::Attached(attached) = node.run(vec![attach("c", "eth0", &c, &["a"])])[0]
            .clone()
            .unwrap()
        else {
            panic!("not an answer to an attach")
        };
        assert_eq!(
            (attached.interfaces.len(), attached.pending.len()),
            (0, 1),
            "{attached:?}"
        );
        assert!(node.run(vec![detach("c", "eth0")])[0].is_ok());
        assert!(node.run(vec![detach("a", "eth0")])[0].is_ok());
        assert_eq!(both(), [["to-b"], ["to-a"]]);
        assert_eq!(
            node.sandboxes(),
            ["a.leaving", "b.json"].map(str::to_owned).into()
        );

        lead_to(&a.path());
        node.run(vec![]);
        assert_eq!(
            (a.devices(), b.devices()),
            (vec![], vec!["to-a".to_owned()])
        );
        assert!(node.run(vec![detach("b", "eth0")])[0].is_ok());
        assert_eq!(
            (node.devices(), b.devices(), node.sandboxes()),
            (vec![], vec![], BTreeSet::new())
        );
        assert_eq!(node.records(&["a", "b"]), [""; 0]);
    });
}

/// An agent died while a device was being replaced, and the next one finds that it is no longer
/// wanted.
#[test]
fn what_was_to_be_inherited_goes_when_there_is_nobody_to_inherit_it() {
    on_a_node(|node| {
        let [a, b] = ["a", "b"].map(Netns::new);
        node.run(vec![
            attach("a", "eth0", &a, &["b"]),
            attach("b", "eth0", &b, &[]),
        ]);
        let states = StateDir::open(node.dir.path()).unwrap();
        let left = |sandbox: &str| Leftover {
            link: "00000000000000ff".parse().unwrap(),
            end: End::A,
            sandbox: sandbox.parse().unwrap(),
            index: 7,
            addresses: vec!["10.9.0.1/24".parse().unwrap()],
            routes: Vec::new(),
        };
        states.save_leftovers(&[&left("a"), &left("gone")]).unwrap();
        node.run(vec![]);
        assert_eq!(states.load_leftovers(), []);
        node.run(vec![detach("a", "eth0"), detach("b", "eth0")]);
        states.save_leftovers(&[&left("gone")]).unwrap();
        node.run(vec![]);
        assert_eq!(states.load_leftovers(), []);
    });
}
