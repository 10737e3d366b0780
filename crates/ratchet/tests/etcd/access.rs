//! Certificates and passwords, set by keys of the plugin's config.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{
    Cluster, Node, Pod,
    etcd::{ADDRESS, EtcdCluster},
    eventually, sh,
};

/// A certificate authority, and certificates that it has signed.
struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let new = Self {
            dir: dir.to_owned(),
        };
        sh(&format!(
            "cd {} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
             -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca 2>/dev/null",
            dir.display()
        ));
        new.sign("server", &format!("subjectAltName=IP:{ADDRESS}"));
        new.sign("client", "extendedKeyUsage=clientAuth");
        new
    }

    fn sign(&self, name: &str, extension: &str) {
        sh(&format!(
            "cd {} && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
             -keyout {name}.key -out {name}.csr -subj /CN={name} 2>/dev/null && \
             echo '{extension}' > {name}.ext && \
             openssl x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
             -extfile {name}.ext -out {name}.crt 2>/dev/null",
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

/// The code and text of the error of an ADD with these keys, by an agent that the plugin starts.
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
    // A running agent keeps a setting that the config does not have, so the next call needs a new
    // agent.
    node.stop_agent();
    (
        answer["code"].as_u64().unwrap(),
        answer["msg"].as_str().unwrap().to_owned(),
    )
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

/// The address of etcd's host name changes while agents run: they find etcd at the new address
/// without any action. Names are looked up without the services of nsswitch.conf, which may be
/// libraries.
#[test]
fn a_name_that_changes_its_address() {
    let everywhere = |_: &Cluster| vec!["--listen-client-urls=http://0.0.0.0:2379".to_owned()];
    let mut all = EtcdCluster::with(2, everywhere);
    let hosts = all.cluster.dir.path().join("hosts");
    std::fs::write(&hosts, format!("{ADDRESS} etcd.example\n")).unwrap();
    let services = all.cluster.dir.path().join("nsswitch.conf");
    std::fs::write(&services, "hosts: none-that-is-known\n").unwrap();
    for node in &mut all.cluster.nodes {
        node.set_store("etcd://etcd.example:2379");
        node.etc = [
            ("hosts", hosts.clone()),
            ("nsswitch.conf", services.clone()),
        ]
        .into();
        node.start_agent();
    }
    let nodes = &all.cluster.nodes;
    let link = |n: u32, peer: &str| {
        let link = format!(
            "[{{interface: eth1, peer: {peer}, addresses: [10.0.{n}.1/24], peerAddresses: \
             [10.0.{n}.2/24]}}]"
        );
        Pod::with_links(&format!("{peer}-hub"), &link).sandbox()
    };
    let [one, two] = [link(1, "one"), link(2, "two")];
    let [at_one, at_two] = ["one", "two"].map(|name| Pod::with_links(name, "[]").sandbox());
    nodes[0].add(&one);
    nodes[1].add(&at_one);
    eventually("a link", || {
        if one.netns.ping("10.0.1.2") {
            Ok(())
        } else {
            Err("no answer".into())
        }
    });

    // Written in place, as the file is mounted.
    std::fs::write(&hosts, "10.91.0.251 etcd.example\n").unwrap();
    all.etcd.move_to("10.91.0.251");
    for (node, sandbox) in [(&nodes[0], &two), (&nodes[1], &at_two)] {
        // This call has no answer, and the agent closes the connection after 15 s.
        if node.try_add(sandbox).is_err() {
            node.del(sandbox);
        }
        eventually("an agent that has found etcd", || {
            let notices = node.links().notices;
            if notices.is_empty() {
                Ok(())
            } else {
                Err(format!("{notices:?}"))
            }
        });
    }
    for (node, sandbox) in [(&nodes[0], &two), (&nodes[1], &at_two)] {
        node.del(sandbox);
        eventually("ADD", || {
            node.try_add(sandbox).map(drop).map_err(|error| {
                node.del(sandbox);
                error.to_string()
            })
        });
    }
    // The watches of both agents work again, too.
    eventually("a link", || {
        if two.netns.ping("10.0.2.2") {
            Ok(())
        } else {
            Err("no answer".into())
        }
    });
    assert!(one.netns.ping("10.0.1.2"));
    for (node, sandboxes) in nodes.iter().zip([[one, two], [at_one, at_two]]) {
        sandboxes.iter().for_each(|sandbox| node.del(sandbox));
    }
    all.etcd.wait_until_empty();
    drop(all.cluster);
}

#[test]
fn tls_with_a_client_certificate() {
    let EtcdCluster {
        mut cluster,
        mut etcd,
    } = EtcdCluster::with(1, |cluster| {
        let all = certificates(cluster, "tls");
        let argument = |flag: &str, file: &str| format!("--{flag}={}", all.path(file));
        vec![
            argument("cert-file", "server.crt"),
            argument("key-file", "server.key"),
            argument("trusted-ca-file", "ca.crt"),
            "--client-cert-auth".into(),
        ]
    });
    let file = |name: &str| {
        cluster
            .dir
            .path()
            .join("tls")
            .join(name)
            .display()
            .to_string()
    };
    let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    etcd.ctl = vec![
        format!("--cacert={ca}"),
        format!("--cert={cert}"),
        format!("--key={key}"),
    ];
    let other = certificates(&cluster, "other");
    let node = &mut cluster.nodes[0];
    let good = [
        ("etcd_ca", json!(ca)),
        ("etcd_cert", json!(cert)),
        ("etcd_key", json!(key)),
    ];

    let (code, text) = refusal(
        node,
        &[
            ("etcd_ca", json!(other.path("ca.crt"))),
            good[1].clone(),
            good[2].clone(),
        ],
    );
    assert!(
        code == 5 && text.contains("a certificate is not accepted") && text.contains("etcd_ca"),
        "{code}: {text}"
    );
    let (code, text) = refusal(node, &good[..1]);
    assert!(code != 0 && text.contains("etcd_cert"), "{code}: {text}");
    let (code, text) = refusal(
        node,
        &[
            good[0].clone(),
            ("etcd_cert", json!("/nowhere.crt")),
            good[2].clone(),
        ],
    );
    assert!(
        code == 7 && text.contains("etcd_cert") && text.contains("/nowhere.crt"),
        "{code}: {text}"
    );
    assert_works(node, &good);
    assert!(etcd.everything().is_empty());
    drop(cluster);
}

#[test]
fn users_and_passwords() {
    let EtcdCluster {
        mut cluster,
        mut etcd,
    } = EtcdCluster::new(1);
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
    assert!(
        code == 5 && text.contains("refuses user or password"),
        "{code}: {text}"
    );
    let (code, text) = refusal(node, &[]);
    assert!(
        code == 5 && text.contains("etcd requires a user") && text.contains("etcd_user"),
        "{code}: {text}"
    );
    let (code, text) = refusal(node, &[user("stranger"), file("right")]);
    assert!(
        code == 5 && text.contains("grant-permission"),
        "{code}: {text}"
    );
    assert_works(node, &[user("ratchet"), file("right")]);
    assert!(etcd.everything().is_empty());
    drop(cluster);
}
