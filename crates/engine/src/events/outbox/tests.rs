//! Tests of how often a pod has an event.

use std::sync::{Arc, Mutex};

use ratchet_model::PodKey;

use super::*;

#[derive(Clone, Default)]
struct Posted(Arc<Mutex<Vec<String>>>);

impl Events for Posted {
    fn is_online(&self) -> bool {
        true
    }

    fn warn(&self, namespace: &str, name: &str, _: &Reason, text: &str) {
        let posted = format!("{namespace}/{name}: {text}");
        self.0.lock().unwrap().push(posted);
    }
}

impl Posted {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn reason() -> Reason {
    Reason::PeerGone {
        pod: PodKey::new("default", "p").unwrap(),
    }
}

fn key(name: &str) -> Key {
    ("default".to_owned(), name.to_owned())
}

#[test]
fn a_pod_has_one_event_a_minute_however_often_it_flips() {
    let (posted, now) = (Posted::default(), Instant::now());
    let mut outbox = Outbox::new(Box::new(posted.clone()));
    let second = Duration::from_secs(1);
    for n in 0..59 {
        outbox.warn(&key("a"), &reason(), &format!("text {n}"), now + n * second);
    }
    outbox.warn(&key("b"), &reason(), "other", now + 59 * second);
    assert_eq!(posted.take(), ["default/a: text 0", "default/b: other"]);
    assert_eq!(outbox.due(), Some(now + PAUSE));
    outbox.post_due(now + 59 * second);
    assert_eq!(posted.take(), [""; 0]);
    outbox.post_due(now + PAUSE);
    assert_eq!(
        posted.take(),
        ["default/a: text 1; text 2; text 3; text 4; and 54 more"]
    );
    assert_eq!(outbox.due(), None);
    outbox.warn(&key("a"), &reason(), "late", now + PAUSE + second);
    assert_eq!(posted.take(), [""; 0]);
    outbox.post_due(now + 2 * PAUSE);
    assert_eq!(posted.take(), ["default/a: late"]);
    outbox.post_due(now + 4 * PAUSE);
    assert!(outbox.pods.is_empty(), "what is over is forgotten");
}

#[test]
fn a_text_is_told_once() {
    let (posted, now) = (Posted::default(), Instant::now());
    let mut outbox = Outbox::new(Box::new(posted.clone()));
    outbox.warn(&key("a"), &reason(), "first", now);
    assert_eq!(posted.take(), ["default/a: first"]);
    for _ in 0..9 {
        outbox.warn(&key("a"), &reason(), "again", now);
    }
    outbox.post_due(now + PAUSE);
    assert_eq!(posted.take(), ["default/a: again"]);
}
