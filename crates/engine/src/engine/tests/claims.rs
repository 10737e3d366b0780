//! Whose claim has an interface of a pod, and for how long: real engine and kernel.

use ratchet_model::declaration::{CrossNamespace, Declaration};

use super::*;

const CLAIM: &str = "[{interface: e1, peer: default/r/e1}]";

fn pod(name: &str) -> PodKey {
    name.parse().unwrap()
}

/// What the pod `namespace/name` declares with these annotations; none where it is empty.
fn declaration(name: &str, links: &str, accept: &str) -> Declaration {
    let annotations = [("links", links), ("accept", accept)];
    let annotations = annotations.into_iter().filter(|(_, text)| !text.is_empty());
    let annotations =
        annotations.map(|(key, text)| (format!("ratchet.dev/{key}"), text.to_owned()));
    let declared = declare(&pod(name), &Texts::new(), &annotations.collect());
    declared.unwrap().unwrap()
}

fn kubernetes(name: &str) -> (String, String) {
    let pod = pod(name);
    (pod.namespace().to_owned(), pod.name().to_owned())
}

/// Attaches the pod `namespace/name`.
fn add_pod(engine: &mut Engine, pod: (&str, &Netns), links: &str, accept: &str) {
    let settings = Settings::default();
    add_with(engine, pod, (links, accept), settings).unwrap();
}

/// The same by a config with these settings.
fn add_with(
    engine: &mut Engine,
    (name, netns): (&str, &Netns),
    (links, accept): (&str, &str),
    settings: Settings,
) -> Result<Reply, Failure> {
    let (answer, mut answered) = oneshot::channel();
    let sandbox = NewSandbox {
        attachment: attachment(pod(name).name()),
        netns: netns.path(),
        settings,
        kubernetes: kubernetes(name),
        use_labels: true,
        declaration: declaration(name, links, accept),
    };
    engine.handle(Command::Attach(Box::new(sandbox), answer));
    answered.try_recv().expect("an answer")
}

/// A running pod declares this from now on.
fn change(engine: &mut Engine, name: &str, links: &str, accept: &str) {
    let declaration = Ok(Some(declaration(name, links, accept)));
    engine.handle(Command::Declared(Box::new(Declared {
        kubernetes: kubernetes(name),
        with_labels: declaration.clone(),
        annotations_only: declaration,
    })));
}

/// The record that the store has of default/r.
fn stored(node: &Node) -> PodRecord {
    let facts = node.runtime.handle().block_on(async {
        let store = open_store(node.settings.clone()).await.unwrap();
        store.read(&[key("r")].into()).await.unwrap()
    });
    facts.records[&key("r")].clone()
}

/// The state of the link that a pod alone declares.
fn state_of(engine: &Engine, declarer: &str) -> String {
    let links = engine.report().links;
    let mut links = links.iter();
    let link = links.find(|link| link.declared_by == [pod(declarer)]);
    let link = link.unwrap_or_else(|| panic!("no link of {declarer}"));
    let reason = link.reason_details.as_ref();
    reason.map_or("up".to_owned(), |reason| reason.code.clone())
}

#[test]
fn a_later_claim_takes_no_interface_from_a_foreign_link_that_is_up() {
    on_a_node(|node| {
        let mut engine = start(node);
        let [r, x, z] = ["r", "x", "z"].map(Netns::new);
        add_pod(&mut engine, ("default/r", &r), "[]", "own-namespace, x");
        assert!(stored(node).given.is_empty());
        add_pod(&mut engine, ("x/x", &x), CLAIM, "");
        let index = ip(&format!("-n {} -o link show e1", r.name()));
        let given = stored(node).given;
        assert_eq!(given.len(), 1, "its record says so: {given:?}");
        add_pod(&mut engine, ("default/z", &z), CLAIM, "");
        for is_restarted in [false, true] {
            if is_restarted {
                engine = start(node);
            }
            resync(&mut engine);
            let states = ["x/x", "default/z"].map(|pod| state_of(&engine, pod));
            assert_eq!(states, ["up", "interface_taken"], "{is_restarted}");
            assert_eq!((x.devices(), z.devices().len()), (vec!["e1".into()], 0));
            let now = ip(&format!("-n {} -o link show e1", r.name()));
            assert_eq!(number(&now), number(&index), "{is_restarted}");
            assert_eq!(stored(node).given, given);
        }
        // The other one has it once this one has gone, and keeps it.
        for _ in 0..2 {
            del(&mut engine, "x");
            resync(&mut engine);
            assert_eq!(state_of(&engine, "default/z"), "up");
            assert!(stored(node).given.is_empty());
            add_pod(&mut engine, ("x/x", &x), CLAIM, "");
            assert_eq!(state_of(&engine, "x/x"), "interface_taken");
            assert_eq!((z.devices(), x.devices().len()), (vec!["e1".into()], 0));
        }
        // The pod's own declaration comes before all.
        change(&mut engine, "default/z", "[]", "");
        resync(&mut engine);
        assert_eq!(state_of(&engine, "x/x"), "up");
        change(&mut engine, "default/r", "[{interface: e1, peer: z}]", "x");
        assert_eq!(state_of(&engine, "x/x"), "interface_taken");
        assert_eq!(state_of(&engine, "default/r"), "up");
        assert!(stored(node).given.is_empty());
    });
}

/// An engine whose store hangs when it is told to.
fn start_moody(node: &Node, moody: &Arc<Moody>, managed: bool) -> Engine {
    let (commands, _inbox) = mpsc::channel();
    let setup = Setup {
        open_store: moody.opener(),
        clock: Arc::new(Hasty::default()),
        managed,
        ..node.setup(&commands)
    };
    let mut engine = Engine::new(setup).unwrap();
    engine.start();
    engine
}

#[test]
fn consent_that_is_withdrawn_counts_while_the_store_is_offline() {
    on_a_node(|node| {
        let moody = Arc::new(Moody::default());
        let mut engine = start_moody(node, &moody, true);
        let [r, x] = ["r", "x"].map(Netns::new);
        let with_e2 = "[{interface: e2, peer: w}]";
        add_pod(&mut engine, ("default/r", &r), with_e2, "x");
        add_pod(&mut engine, ("x/x", &x), CLAIM, "");
        assert_eq!([r.devices(), x.devices()], [["e1"], ["e1"]]);

        moody.set_hanging(true);
        change(&mut engine, "default/r", "[]", "own-namespace");
        assert_eq!([r.devices(), x.devices()], [[""; 0]; 2]);
        assert_eq!(state_of(&engine, "x/x"), "no_consent");
        assert_eq!(
            state_of(&engine, "default/r"),
            "peer_unknown",
            "the store is to say so"
        );
        // Nothing brings it back meanwhile.
        change(&mut engine, "x/x", CLAIM, "none");
        resync(&mut engine);
        assert_eq!([r.devices(), x.devices()], [[""; 0]; 2]);
        let said = moody.published(&key("r")).unwrap();
        assert!(said.accept.includes(&key("r"), &pod("x/x")));

        moody.set_hanging(false);
        engine.handle(Command::StoreBack);
        resync(&mut engine);
        assert_eq!([r.devices(), x.devices()], [[""; 0]; 2]);
        let said = moody.published(&key("r")).unwrap();
        assert!(
            !said.accept.includes(&key("r"), &pod("x/x")),
            "the store was told"
        );
        assert!(said.links.is_empty() && said.given.is_empty());
    });
}

#[test]
fn a_setting_that_denies_links_counts_while_the_store_is_offline() {
    on_a_node(|node| {
        let moody = Arc::new(Moody::default());
        let mut engine = start_moody(node, &moody, false);
        let [r, x, w] = ["r", "x", "w"].map(Netns::new);
        let allow = || node.settings.clone();
        let deny = Settings {
            cross_namespace: Some(CrossNamespace::Deny),
            ..allow()
        };
        add_with(&mut engine, ("default/r", &r), ("[]", "x"), allow()).unwrap();
        add_with(&mut engine, ("x/x", &x), (CLAIM, ""), allow()).unwrap();
        assert_eq!([r.devices(), x.devices()], [["e1"], ["e1"]]);
        moody.set_hanging(true);
        add_with(&mut engine, ("default/w", &w), ("[]", ""), deny).unwrap_err();
        engine.work();
        engine.work();
        assert_eq!([r.devices(), x.devices()], [[""; 0]; 2]);
        assert_eq!(state_of(&engine, "x/x"), "no_consent");
    });
}
