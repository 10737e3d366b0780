use serde_json::{Value, json};

use super::*;

fn read(object: Value) -> Topology {
    serde_json::from_value(object).unwrap()
}

#[test]
fn what_kne_writes_is_read() {
    // Go's types write all their fields: empty addresses, and a status of nothing.
    let topology = read(json!({
        "apiVersion": "networkop.co.uk/v1beta1", "kind": "Topology",
        "metadata": {"name": "r1", "namespace": "lab"},
        "spec": {"links": [{"uid": 0, "peer_pod": "r2", "local_intf": "eth1",
            "peer_intf": "eth2", "local_ip": "", "peer_ip": ""}]},
        "status": {"skipped": null, "src_ip": "", "net_ns": "", "container_id": ""},
    }));
    assert_eq!(topology.status, Status::default());
    let [link] = &topology.spec.links[..] else {
        panic!("{topology:?}")
    };
    assert_eq!((&*link.peer_pod, &*link.local_intf), ("r2", "eth1"));
    assert_eq!(
        (link.uid.to_string(), &*link.local_ip),
        ("0".to_owned(), "")
    );
}

#[test]
fn what_the_schema_allows_can_be_read() {
    let metadata = json!({"name": "r1", "namespace": "lab"});
    assert_eq!(read(json!({"metadata": metadata})).spec, Spec::default());
    assert!(read(json!({"spec": {"links": null}})).spec.links.is_empty());
    let uids = [json!(-1), json!(u64::MAX), json!(1e30), json!(null)];
    let links: Vec<Value> = uids.map(|uid| json!({"uid": uid, "local_ip": null})).into();
    assert_eq!(read(json!({"spec": {"links": links}})).spec.links.len(), 4);
}
