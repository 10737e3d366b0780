//! The watch on the API's Links with an end on this node, and the client it uses.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use kube::{
    Api, Client, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use ratchet_api::{Link, node_label};
use ratchet_kubernetes::connect;
use tokio::{sync::watch, time::sleep};

use super::{
    known::{KnownLink, LinkKey},
    state::{Reach, Shared},
};

/// Between two attempts: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Watches without end. Each attempt reads the credentials again: that they were renewed may be
/// why the one before it failed. `client` always has the last client.
pub(super) async fn run(
    kubeconfig: String,
    shared: Arc<Shared>,
    client: watch::Sender<Option<Client>>,
) {
    let mut outage = Outage::default();
    loop {
        let why = match connect(&kubeconfig).await {
            Ok(connected) => {
                client.send_replace(Some(connected.clone()));
                follow(connected, &shared, &mut outage).await
            }
            Err(why) => why,
        };
        let pause = outage.goes_on(&why);
        shared.reach.send_if_modified(|reach| match reach {
            Reach::Known => false,
            Reach::Starting(reason) => {
                *reason = Some(why);
                true
            }
        });
        sleep(pause).await;
    }
}

/// A time without news of Links.
#[derive(Default)]
struct Outage {
    /// The pause after the last attempt; none: there is news.
    pause: Option<Duration>,
}

impl Outage {
    /// An attempt has failed. Only the first one is worth a line in the log. Returns for how long
    /// to wait.
    fn goes_on(&mut self, why: &str) -> Duration {
        let text = "no news of Links from the Kubernetes API; trying again until there is";
        let pause = match self.pause {
            None => {
                tracing::warn!(why, "{text}");
                PAUSE.0
            }
            Some(before) => {
                tracing::debug!(why, "{text}");
                (before * 2).min(PAUSE.1)
            }
        };
        self.pause = Some(pause);
        pause
    }

    /// There is news.
    fn ends(&mut self) {
        if self.pause.take().is_some() {
            tracing::info!("there is news of Links from the Kubernetes API again");
        }
    }
}

/// One watch, until it fails; returns why.
async fn follow(client: Client, shared: &Shared, outage: &mut Outage) -> String {
    let label = node_label(shared.state().links.node());
    let config = watcher::Config::default().labels(&label);
    let mut events = watcher(Api::<Link>::all(client), config).boxed();
    let mut listed = Vec::new();
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return "the watch has ended".to_owned(),
            Err(error) => return ratchet_kubernetes::chain(&error),
        };
        // A list begins before it fails.
        if !matches!(event, Event::Init) {
            outage.ends();
        }
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(link) => listed.extend(read(&link)),
            Event::InitDone => {
                let is_first = *shared.reach.borrow() != Reach::Known;
                let links = std::mem::take(&mut listed);
                shared.change(|known| {
                    let pods = known.replace(links);
                    if is_first {
                        known.suppose_all_held();
                    }
                    pods
                });
                shared.reach.send_replace(Reach::Known);
            }
            Event::Apply(link) => shared.change(|known| known.set(&key(&link), read(&link))),
            Event::Delete(link) => shared.change(|known| known.set(&key(&link), None)),
        }
    }
}

fn key(link: &Link) -> LinkKey {
    LinkKey {
        namespace: link.namespace().unwrap_or_default(),
        name: link.name_any(),
    }
}

/// Reads a Link. One that cannot be read is as good as absent: the schema refuses it, and only a
/// cluster with other definitions has it.
fn read(link: &Link) -> Option<KnownLink> {
    KnownLink::read(link).unwrap_or_else(|error| {
        let LinkKey { namespace, name } = key(link);
        tracing::error!(namespace, name, %error, "cannot read a Link; it is ignored");
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_until_there_is_news() {
        let mut outage = Outage::default();
        let pauses: Vec<Duration> = (0..8).map(|_| outage.goes_on("offline")).collect();
        assert_eq!(pauses[..3], [1, 2, 4].map(|times| PAUSE.0 * times));
        assert_eq!(pauses[7], PAUSE.1);
        outage.ends();
        assert_eq!(outage.goes_on("offline"), PAUSE.0);
    }
}
