//! Tests of the socket.

use super::*;
use crate::request;

fn channel() -> Channel {
    let made = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        Channel::open_here().unwrap()
    });
    made.join().unwrap()
}

#[test]
fn answers_belong_to_their_requests() {
    let mut channel = channel();
    // More than one round, and a sequence number that wraps in between.
    channel.sequence = u32::MAX - 200;
    let names = (0..1000).map(|number| if number % 3 == 0 { "lo" } else { "nobody" });
    let answers = channel.fetch(names.map(request::get_link).collect());
    assert_eq!(answers.len(), 1000);
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(
            answer.map_err(|failure| failure.errno).err(),
            (number % 3 != 0).then_some(Errno::ENODEV),
            "{number}"
        );
    }
}

#[test]
fn lost_answers_are_told_and_the_socket_works_on() {
    let mut channel = channel();
    setsockopt(&channel.socket, sockopt::RcvBuf, &0).unwrap();
    let answers = channel.fetch(vec![request::get_link("lo"); 100]);
    let lost = answers
        .iter()
        .filter(|answer| **answer == Err(Errno::ENOBUFS.into()))
        .count();
    assert!((1..100).contains(&lost), "{lost}");
    assert!(
        answers
            .iter()
            .all(|answer| answer.is_ok() || *answer == Err(Errno::ENOBUFS.into()))
    );
    assert!(channel.fetch(vec![request::get_link("lo")])[0].is_ok());
}
