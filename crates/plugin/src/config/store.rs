//! The store's URL, from the key `store` or from 2017's keys `etcd_host` and `etcd_port`.

use std::net::Ipv6Addr;

use ratchet_protocol::KUBERNETES_STORE;

use super::reader::Reader;

impl Reader<'_> {
    /// The store's URL, in the form in which agents write it.
    pub fn store(&mut self, key: &str) -> Option<String> {
        let by_host = self.etcd();
        let by_url = self.text(key).and_then(|url| self.store_url(key, url));
        if let (Some(by_host), Some(by_url)) = (&by_host, &by_url)
            && by_host != by_url
        {
            self.problem(format!(
                "the config's keys {key:?} and \"etcd_host\" contradict each other (the latter \
                 says {by_host}): expected only one of them"
            ));
        }
        by_url.or(by_host)
    }

    fn store_url(&mut self, key: &str, url: String) -> Option<String> {
        match url.split_once(':') {
            Some(("sqlite", path)) => {
                // sqlite:///path is what other programs write; it means the same.
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.starts_with('/') && !path.ends_with('/') {
                    Some(format!("sqlite:{path}"))
                } else {
                    self.refuse_for(key, "sqlite: and the absolute path of a file")
                }
            }
            Some(("etcd" | "etcds", rest)) if rest.len() > 2 && rest.starts_with("//") => Some(url),
            None if url == KUBERNETES_STORE => Some(url),
            _ => self.refuse(key),
        }
    }

    /// 2017's two keys as a URL.
    fn etcd(&mut self) -> Option<String> {
        let port = self.text_or_default("etcd_port")?;
        let Some(host) = self.text("etcd_host") else {
            if self.has("etcd_port") && !self.has("etcd_host") {
                self.warnings.push(
                    "the config's key \"etcd_port\" has no effect without \"etcd_host\"".into(),
                );
            }
            return None;
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(&host);
        if bare.parse::<Ipv6Addr>().is_ok() {
            return Some(format!("etcd://[{bare}]:{port}"));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if host.chars().all(is_name) {
            return Some(format!("etcd://{host}:{port}"));
        }
        self.refuse("etcd_host")
    }
}
