use super::*;

#[test]
fn macs_are_checked() {
    assert_eq!(
        "02:0a:00:00:00:01".parse::<Mac>().unwrap().to_string(),
        "02:0a:00:00:00:01"
    );
    for bad in [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "01:00:00:00:00:01",
        "00:00:00:00:00:00",
        "02:0:0:0:0:1",
        "+2:00:00:00:00:01",
    ] {
        assert!(bad.parse::<Mac>().is_err(), "{bad}");
    }
}

#[test]
fn mtu_leaves_room_for_the_tunnel() {
    assert_eq!(
        Mtu::within_underlay(1500, "10.0.0.1".parse().unwrap()).bytes(),
        1450
    );
    assert_eq!(
        Mtu::within_underlay(1500, "fd00::1".parse().unwrap()).bytes(),
        1430
    );
    assert_eq!(
        Mtu::within_underlay(65_536, "10.0.0.1".parse().unwrap()).bytes(),
        65_486
    );
}
