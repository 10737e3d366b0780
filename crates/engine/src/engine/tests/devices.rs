//! How many devices a node makes for links.

use super::*;

/// The links that are up, and the reason codes of the others.
fn ups(engine: &Engine) -> (usize, Vec<String>) {
    let (up, others): (Vec<_>, Vec<_>) = links(engine)
        .into_iter()
        .partition(|(state, _)| *state == LinkState::Up);
    (up.len(), others.into_iter().map(|(_, code)| code).collect())
}

#[test]
fn a_node_has_no_more_devices_than_it_may_and_those_that_it_has_stay() {
    on_a_node(|node| {
        publish_far(node, "far");
        let settings = Settings {
            max_devices: Some(3.try_into().unwrap()),
            ..node.settings.clone()
        };
        let start = || start_with(node, settings.clone());
        let mut engine = start();
        let [a, b, c] = ["a", "b", "c"].map(Netns::new);
        add(&mut engine, "a", &a, &["b", "far"]).unwrap();
        add(&mut engine, "b", &b, &[]).unwrap();
        assert_eq!(ups(&engine), (2, vec![]));
        let attached = add(&mut engine, "c", &c, &["a", "far"]).unwrap();
        assert_eq!((attached.interfaces.len(), attached.pending.len()), (0, 2));
        let full = || "too_many_devices".to_owned();
        assert_eq!(ups(&engine), (2, vec![full(), full()]));

        let before = a.devices();
        let mut engine = start();
        resync(&mut engine);
        assert_eq!((a.devices(), c.devices().len()), (before, 0));

        // The survivor keeps its end, and the node the other one.
        del(&mut engine, "b");
        resync(&mut engine);
        assert_eq!(c.devices(), [""; 0]);
        assert!(ups(&engine).1.contains(&full()));
        del(&mut engine, "a");
        resync(&mut engine);
        assert_eq!(c.devices(), ["to-far"]);
        assert_eq!(ups(&engine), (1, vec!["peer_gone".to_owned()]));
    });
}
