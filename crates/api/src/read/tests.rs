use ratchet_model::Route as ModelRoute;

use super::*;

fn end() -> LinkEnd {
    LinkEnd {
        namespace: "lab".to_owned(),
        pod: Some("r1".to_owned()),
        interface: "eth1".to_owned(),
        addresses: vec!["10.0.0.1/24".to_owned(), "fd00::1/64".to_owned()],
        mac: Some("02:00:00:00:00:01".to_owned()),
        routes: vec![Route {
            dst: "10.1.0.0/16".to_owned(),
            via: Some("10.0.0.2".to_owned()),
            metric: Some(7),
        }],
        vtep: Some("192.0.2.1".to_owned()),
        ..LinkEnd::default()
    }
}

#[test]
fn what_is_declared_of_an_end_survives_the_way_into_a_link_and_back() {
    let declared = end().declared().unwrap().unwrap();
    assert_eq!(declared.pod.to_string(), "lab/r1");
    let route = ModelRoute {
        dst: "10.1.0.0/16".parse().unwrap(),
        via: Some("10.0.0.2".parse().unwrap()),
        metric: Some(7),
    };
    assert_eq!(declared.routes, Some(vec![route]));
    let vtep = end().vtep;
    let again = LinkEnd {
        vtep,
        ..LinkEnd::of_declared(&declared)
    };
    assert_eq!(again, end());
    assert_eq!(
        end().vtep_address().unwrap().unwrap().to_string(),
        "192.0.2.1"
    );
}

#[test]
fn an_end_without_a_pod_declares_nothing_yet() {
    let end = LinkEnd { pod: None, ..end() };
    assert_eq!(end.declared(), Ok(None));
}

#[test]
fn a_bad_value_is_named_with_its_field() {
    let error = |change: fn(&mut LinkEnd)| {
        let mut end = end();
        change(&mut end);
        end.declared().unwrap_err().to_string()
    };
    let address = error(|end| end.addresses[1] = "10.0.0.1".to_owned());
    assert_eq!(
        address,
        "addresses: \"10.0.0.1\": invalid IP address syntax"
    );
    let interface = error(|end| end.interface = "lo".to_owned());
    assert!(
        interface.starts_with("interface: interface name \"lo\""),
        "{interface}"
    );
    let via = error(|end| end.routes[0].via = Some("r2".to_owned()));
    assert!(via.starts_with("routes.via: \"r2\""), "{via}");
}

#[test]
fn the_parts_of_a_topologys_link_belong_to_its_endpoints() {
    let link = TopologyLink {
        endpoints: vec!["r1:eth1".to_owned(), "far/r2:eth2".to_owned()],
        addresses: vec![vec![], vec!["10.0.0.2/24".to_owned()]],
        macs: vec!["".to_owned(), "02:00:00:00:00:02".to_owned()],
        ..TopologyLink::default()
    };
    let [first, second] = link.ends().unwrap();
    assert_eq!(first.endpoint.to_string(), "r1:eth1");
    assert_eq!((first.addresses.len(), first.mac), (0, None));
    assert_eq!(second.endpoint.to_string(), "far/r2:eth2");
    assert_eq!(second.addresses, ["10.0.0.2/24"]);
    assert_eq!(second.mac, Some("02:00:00:00:00:02"));
    assert!(second.routes.is_empty());
}

#[test]
fn a_topologys_link_has_two_endpoints() {
    let link = TopologyLink {
        endpoints: vec!["r1:eth1".to_owned()],
        ..TopologyLink::default()
    };
    assert_eq!(
        link.ends().unwrap_err().to_string(),
        "endpoints: expected two, found 1"
    );
}
