use super::*;

fn passage(port: u16, vni: u32, remote: &str) -> Passage {
    Passage {
        port,
        vni: vni.try_into().unwrap(),
        local: "10.0.0.1".parse().unwrap(),
        remote: remote.parse().unwrap(),
        source: None,
    }
}

/// A change leads from the elements before to those after, and touches no others.
fn check(table: &mut Table, permit: &[Passage], forbid: &[Passage]) -> Change {
    let mut elements = table.elements();
    let change = table.change(permit, forbid);
    assert!(elements.is_superset(&change.removed));
    elements.retain(|element| !change.removed.contains(element));
    elements.extend(change.added.iter().cloned());
    assert_eq!(elements, table.elements());
    change
}

#[test]
fn a_change_is_of_its_own_elements_only() {
    let mut table = Table::default();
    let one = passage(4789, 11, "10.0.0.2");
    let other = passage(4789, 12, "10.0.0.2");
    assert_eq!(check(&mut table, &[one], &[]).added.len(), 4);
    // The port stays when one of two goes.
    assert_eq!(check(&mut table, &[other], &[]).added.len(), 4);
    assert_eq!(check(&mut table, &[], &[one]).removed.len(), 3);
    assert_eq!(check(&mut table, &[], &[other]).removed.len(), 4);
    assert!(table.is_empty());
    assert!(check(&mut table, &[], &[other]).is_empty());
}

#[test]
fn a_tunnel_that_is_pointed_elsewhere_keeps_its_vni() {
    let mut table = Table::default();
    let (before, after) = (passage(4789, 11, "10.0.0.2"), passage(4789, 11, "10.0.0.3"));
    check(&mut table, &[before], &[]);
    let change = check(&mut table, &[after], &[before]);
    let sets = |elements: &BTreeSet<Element>| -> Vec<&str> {
        elements.iter().map(|(set, _)| set.name()).collect()
    };
    assert_eq!(sets(&change.added), ["arriving4", "anyport4"]);
    assert_eq!(sets(&change.removed), ["arriving4", "anyport4"]);
    assert!(check(&mut table, &[after], &[after]).is_empty());
}

#[test]
fn a_port_goes_with_its_last_passage() {
    let mut table = Table::default();
    let (one, other) = (passage(4789, 11, "10.0.0.2"), passage(8472, 11, "10.0.0.2"));
    check(&mut table, &[one, other], &[]);
    let removed = check(&mut table, &[], &[one]).removed;
    let names: Vec<&str> = removed.iter().map(|(set, _)| set.name()).collect();
    assert_eq!(names, ["ports", "ours"]);
}
