//! What is noted of links' VNIs.

use super::*;
use crate::testing::link;

fn number(vni: u32) -> Vni {
    vni.try_into().unwrap()
}

fn claim(link: &Link) -> VniClaim {
    VniClaim {
        link: link.id,
        pods: [link.a.pod.clone(), link.z.pod.clone()],
        fixed: link.vni,
        former: None,
    }
}

fn grant(vnis: &mut Vnis, link: &Link, grant: VniGrant) -> bool {
    vnis.take_grants(&[claim(link)], [(link.id, grant)].into())
}

#[test]
fn a_device_is_made_only_of_a_vni_that_is_held() {
    let link = link("a", None);
    let mut vnis = Vnis::default();
    vnis.merge(&[link.id].into(), [(link.id, number(12))].into());
    assert_eq!(vnis.state(&link), VniState::None, "known from facts alone");
    assert!(vnis.must_claim(&link));
    assert!(!grant(&mut vnis, &link, VniGrant::Granted(number(12))));
    assert!(!vnis.must_claim(&link));
    assert_eq!(vnis.state(&link), VniState::Granted(number(12)));
}

#[test]
fn a_link_asks_for_the_vni_that_the_store_has_lost_and_takes_another_if_it_must() {
    let link = link("a", None);
    let mut vnis = Vnis::default();
    grant(&mut vnis, &link, VniGrant::Granted(number(12)));
    vnis.merge(&[link.id].into(), BTreeMap::new());
    assert_eq!(
        (vnis.get(link.id), vnis.former(link.id)),
        (None, Some(number(12)))
    );
    assert_eq!(vnis.state(&link), VniState::Granted(number(12)));
    grant(&mut vnis, &link, VniGrant::Granted(number(14)));
    assert_eq!(
        (vnis.get(link.id), vnis.former(link.id)),
        (Some(number(14)), None)
    );
    let old = vnis.held_besides(link.id, Some(number(14)));
    vnis.let_go(link.id, &old);
    assert_eq!(*vnis.leaving(), [number(12)].into());
    vnis.forget(&[link.id].into());
    assert_eq!(vnis.state(&link), VniState::None);
}

#[test]
fn what_is_held_leaves_when_no_device_of_it_can_be_there() {
    let (one, other) = (link("a", None), link("b", None));
    let mut vnis = Vnis::default();
    grant(&mut vnis, &one, VniGrant::Granted(number(11)));
    grant(&mut vnis, &other, VniGrant::Granted(number(12)));
    assert!(vnis.held_besides(one.id, Some(number(11))).is_empty());
    let held = vnis.held_besides(one.id, None);
    vnis.let_go(one.id, &held);
    assert_eq!(*vnis.leaving(), [number(11)].into());
    assert_eq!(vnis.state(&one), VniState::None);
    assert!(vnis.must_claim(&one) && !vnis.must_claim(&other));
    vnis.released(&[number(11)].into());
    assert!(vnis.leaving().is_empty());
    assert_eq!(vnis.holding(), [other.id].into());
}

#[test]
fn what_a_store_without_memory_has_given_to_another_link_is_not_released() {
    let (one, other) = (link("a", None), link("b", None));
    let mut vnis = Vnis::default();
    grant(&mut vnis, &one, VniGrant::Granted(number(11)));
    grant(&mut vnis, &other, VniGrant::Granted(number(11)));
    let held = vnis.held_besides(one.id, None);
    vnis.let_go(one.id, &held);
    assert!(vnis.leaving().is_empty());
    assert_eq!(vnis.state(&other), VniState::Granted(number(11)));
}

#[test]
fn a_link_that_insists_on_a_vni_of_another_takes_none_and_waits_for_it() {
    let (link, owner) = (link("a", Some(77)), link("b", None).id);
    let mut vnis = Vnis::default();
    assert!(!grant(&mut vnis, &link, VniGrant::TakenBy(owner)));
    assert_eq!(vnis.state(&link), VniState::TakenBy(number(77), owner));
    let pods = [link.a.pod.clone(), link.z.pod.clone()].into();
    assert_eq!(vnis.awaited(), [(number(77), pods)].into());
    let other = Link {
        vni: Some(number(78)),
        ..link.clone()
    };
    assert_eq!(vnis.state(&other), VniState::None, "it insists no longer");
    vnis.forget(&[link.id].into());
    assert!(vnis.awaited().is_empty());
}

#[test]
fn a_link_whose_vni_a_foreign_device_has_claims_another() {
    let link = link("a", None);
    let mut vnis = Vnis::default();
    grant(&mut vnis, &link, VniGrant::Granted(number(11)));
    vnis.set_foreign([number(11)].into());
    assert!(vnis.must_claim(&link));
}

#[test]
fn what_may_be_lost_is_claimed_again() {
    let link = link("a", None);
    let mut vnis = Vnis::default();
    grant(&mut vnis, &link, VniGrant::Granted(number(11)));
    assert!(!vnis.is_doubtful(link.id));
    vnis.doubt_held();
    assert!(vnis.must_claim(&link) && vnis.is_doubtful(link.id));
    assert_eq!(vnis.state(&link), VniState::Granted(number(11)));
    assert_eq!(vnis.held_besides(link.id, None), [number(11)].into());
    grant(&mut vnis, &link, VniGrant::Granted(number(11)));
    assert!(!vnis.must_claim(&link) && !vnis.is_doubtful(link.id));
    vnis.doubt_held();
    vnis.let_go(link.id, &[number(11)].into());
    assert_eq!(*vnis.leaving(), [number(11)].into());
    assert!(vnis.holding().is_empty());
}

#[test]
fn what_was_doubted_before_is_doubted_still_when_all_is_doubted_again() {
    let link = link("a", None);
    let mut vnis = Vnis::default();
    grant(&mut vnis, &link, VniGrant::Granted(number(11)));
    vnis.doubt_held();
    grant(&mut vnis, &link, VniGrant::Granted(number(12)));
    vnis.doubt_held();
    let both = [number(11), number(12)].into();
    assert_eq!(vnis.held_besides(link.id, None), both);
    vnis.take_held([(number(12), link.id)].into());
    assert!(!vnis.must_claim(&link) && !vnis.is_doubtful(link.id));
    vnis.let_go(link.id, &both);
    assert_eq!(*vnis.leaving(), both);
    assert!(vnis.holding().is_empty());
}

#[test]
fn a_link_without_a_declaration_in_the_store_is_tried_again() {
    let link = link("a", None);
    let mut vnis = Vnis::default();
    assert!(grant(&mut vnis, &link, VniGrant::NotDeclared));
    assert_eq!(vnis.state(&link), VniState::None);
}
