//! Certificates and passwords, through the keys of the plugin's config.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{
    Cluster, Node, Pod,
    etcd::{ADDRESS, EtcdCluster},
    sh,
};

/// An authority, and certificates that it signed.
struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let new = Self { dir: dir.to_owned() };
        sh(&format!(
            "cd {} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt \
             -days 2 -subj /CN=test-ca 2>/dev/null",
            dir.display()
        ));
        new.sign("server", &format!("subjectAltName=IP:{ADDRESS}"));
        new.sign("client", "extendedKeyUsage=clientAuth");
        new
    }

    fn sign(&self, name: &str, extension: &str) {
        sh(&format!(
            "cd {} && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr \
             -subj /CN={name} 2>/dev/null && echo '{extension}' > {name}.ext && openssl x509 -req -in {name}.csr \
             -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt 2>/dev/null",
            self.dir.display()
        ));
    }

    fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }
}

fn certificates(cluster: &Cluster, name: &str) -> Certificates {
    Certificates::new(&cluster.dir.path().join(name))
}

/// The code and text that an ADD with these keys is refused with, by an agent that the plugin starts.
fn refusal(node: &mut Node, keys: &[(&str, Value)]) -> (u64, String) {
    let sandbox = Pod::with_links("r1", "[]").sandbox();
    let mut config = sandbox.pod.configure(node.config());
    for (key, value) in keys {
        config[key] = value.clone();
    }
    let output = node.plugin("ADD", &sandbox, &config);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!output.status.success(), "{answer}");
    assert!(node.plugin("DEL", &sandbox, &config).status.success());
    // What a config does not say, an agent that runs keeps as it is.
    node.stop_agent();
    (answer["code"].as_u64().unwrap(), answer["msg"].as_str().unwrap().to_owned())
}

#[track_caller]
fn assert_works(node: &mut Node, keys: &[(&str, Value)]) {
    for (key, value) in keys {
        node.set(key, value.clone());
    }
    let sandbox = Pod::with_links("r1", "[{interface: eth1, peer: r1/eth2}]").sandbox();
    node.add(&sandbox);
    assert_eq!(sandbox.netns.links().len(), 2);
    node.del(&sandbox);
}

#[test]
fn tls_with_a_client_certificate() {
    let EtcdCluster { mut cluster, mut etcd } = EtcdCluster::with(1, |cluster| {
        let all = certificates(cluster, "tls");
        let argument = |flag: &str, file: &str| format!("--{flag}={}", all.path(file));
        vec![
            argument("cert-file", "server.crt"),
            argument("key-file", "server.key"),
            argument("trusted-ca-file", "ca.crt"),
            "--client-cert-auth".into(),
        ]
    });
    let file = |name: &str| cluster.dir.path().join("tls").join(name).display().to_string();
    let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    etcd.ctl = vec![format!("--cacert={ca}"), format!("--cert={cert}"), format!("--key={key}")];
    let other = certificates(&cluster, "other");
    let node = &mut cluster.nodes[0];
    let good = [("etcd_ca", json!(ca)), ("etcd_cert", json!(cert)), ("etcd_key", json!(key))];

    let (code, text) = refusal(node, &[("etcd_ca", json!(other.path("ca.crt"))), good[1].clone(), good[2].clone()]);
    assert!(code == 5 && text.contains("no trust by TLS") && text.contains("etcd_ca"), "{code}: {text}");
    let (code, text) = refusal(node, &good[..1]);
    assert!(code != 0 && text.contains("etcd_cert"), "{code}: {text}");
    let (code, text) = refusal(node, &[good[0].clone(), ("etcd_cert", json!("/nowhere.crt")), good[2].clone()]);
    assert!(code == 7 && text.contains("etcd_cert") && text.contains("/nowhere.crt"), "{code}: {text}");
    assert_works(node, &good);
    assert!(etcd.everything().is_empty());
    drop(cluster);
}

#[test]
fn users_and_passwords() {
    let EtcdCluster { mut cluster, mut etcd } = EtcdCluster::new(1);
    for command in [
        "user add root:secret",
        "role add ratchet",
        "role grant-permission ratchet --prefix=true readwrite /ratchet/",
        "user add ratchet:right",
        "user grant-role ratchet ratchet",
        "user add stranger:right",
        "auth enable",
    ] {
        etcd.ctl(&command.split(' ').collect::<Vec<_>>());
    }
    etcd.ctl = vec!["--user=root:secret".into()];
    let dir = cluster.dir.path().to_owned();
    let password = |text: &str| {
        let path = dir.join(text);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        json!(path)
    };
    let node = &mut cluster.nodes[0];
    let user = |name: &str| ("etcd_user", json!(name));
    let file = |text: &str| ("etcd_password_file", password(text));

    let (code, text) = refusal(node, &[user("ratchet"), file("wrong")]);
    assert!(code == 5 && text.contains("refuses user or password"), "{code}: {text}");
    let (code, text) = refusal(node, &[]);
    assert!(code == 5 && text.contains("etcd wants a user") && text.contains("etcd_user"), "{code}: {text}");
    let (code, text) = refusal(node, &[user("stranger"), file("right")]);
    assert!(code == 5 && text.contains("grant-permission"), "{code}: {text}");
    assert_works(node, &[user("ratchet"), file("right")]);
    assert!(etcd.everything().is_empty());
    drop(cluster);
}
