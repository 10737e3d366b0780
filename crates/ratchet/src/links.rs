//! `ratchet links`: prints the links that the agent reports.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::bail;
use ratchet_protocol::{Client, EndReport, LinkReport, Links, Reply, Request};

use crate::{
    cli::{Format, LinksOptions},
    with_hint,
};

/// How long the agent may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn run(options: &LinksOptions) -> anyhow::Result<()> {
    let request = Request::Links {
        watch: options.watch,
    };
    let hint = "start one with `systemctl start ratchet` or `ratchet agent`; the plugin starts one \
                with the node's first pod that has links";
    let mut client =
        Client::ask(&options.socket, &request, TIMEOUT).map_err(|error| with_hint(error, hint))?;
    loop {
        let links = match client.receive()? {
            Reply::Links(links) => links,
            Reply::Error(failure) => bail!(failure),
            other => bail!(
                "expected links, the agent answered {other:?}: use the version of ratchet that \
                 the agent has"
            ),
        };
        match print(&links, options) {
            // The reader of the pipe has ended (`| head`): that is no error.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            printed => printed?,
        }
        if !options.watch {
            return Ok(());
        }
        client.remove_timeout();
    }
}

fn print(links: &Links, options: &LinksOptions) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match options.output {
        Format::Json => {
            let text = if options.watch {
                serde_json::to_string(links)
            } else {
                serde_json::to_string_pretty(links)
            };
            writeln!(out, "{}", text?)?;
        }
        Format::Table | Format::Wide => {
            write!(out, "{}", table(links, options.output == Format::Wide))?;
            for notice in &links.notices {
                writeln!(out, "! {notice}")?;
            }
        }
    }
    out.flush()
}

/// The links as a table.
fn table(links: &Links, wide: bool) -> String {
    let mut header = vec!["END", "NODE", "END", "NODE", "KIND", "VNI", "MTU", "STATE"];
    if wide {
        header.extend(["ADDRESSES", "ADDRESSES", "MAC", "MAC", "ID", "DECLARED BY"]);
    }
    header.push("REASON");
    let mut rows = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    rows.extend(links.links.iter().map(|link| row(link, wide)));
    if links.links.is_empty() {
        return "no links\n".to_owned();
    }
    let columns = rows[0].len();
    let widths: Vec<usize> = (0..columns)
        .map(|c| {
            rows.iter()
                .map(|row| row[c].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(link: &LinkReport, wide: bool) -> Vec<String> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let end = |end: &EndReport| format!("{}/{}", end.pod, end.interface);
    let node = |end: &EndReport| or_dash(end.node.as_ref().map(ToString::to_string));
    let mut row = vec![
        end(&link.a),
        node(&link.a),
        end(&link.z),
        node(&link.z),
        or_dash(link.kind.clone()),
        or_dash(link.vni.map(|vni| vni.to_string())),
        or_dash(link.mtu.map(|mtu| mtu.to_string())),
        link.state.to_string(),
    ];
    if wide {
        let list = |texts: Vec<String>| {
            if texts.is_empty() {
                "-".to_owned()
            } else {
                texts.join(",")
            }
        };
        row.extend(
            [&link.a, &link.z]
                .map(|end| list(end.addresses.iter().map(ToString::to_string).collect())),
        );
        row.extend([
            link.a.mac.to_string(),
            link.z.mac.to_string(),
            link.id.to_string(),
        ]);
        row.push(list(
            link.declared_by.iter().map(ToString::to_string).collect(),
        ));
    }
    let warnings = link
        .warnings
        .iter()
        .map(|warning| format!("warning: {warning}"));
    row.push(
        link.reason
            .clone()
            .into_iter()
            .chain(warnings)
            .collect::<Vec<_>>()
            .join("; "),
    );
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_says_why() {
        let links: Links = serde_json::from_value(serde_json::json!({
            "node": "n1",
            "links": [
                {"id": "00000000000000aa", "state": "pending",
                "reason": "pod default/b is not known yet",
                 "a": {"pod": "default/a", "interface": "in1", "mac": "02:00:00:00:00:01",
                 "node": "n1"},
                 "z": {"pod": "default/b", "interface": "in2", "mac": "02:00:00:00:00:02"}},
                {"id": "00000000000000ab", "state": "up", "kind": "vxlan", "vni": 11, "mtu": 1450,
                 "a": {"pod": "default/a", "interface": "x", "mac": "02:00:00:00:00:01",
                 "node": "n1", "addresses": ["10.0.0.1/24"]},
                 "z": {"pod": "default/long-name", "interface": "y", "mac": "02:00:00:00:00:02",
                 "node": "n2"}}
            ]
        }))
        .unwrap();
        assert_eq!(
            table(&links, false),
            "END            NODE  END                  NODE  KIND   VNI  MTU   STATE    REASON\n\
             default/a/in1  n1    default/b/in2        -     -      -    -     pending  pod \
             default/b is not known yet\n\
             default/a/x    n1    default/long-name/y  n2    vxlan  11   1450  up\n"
        );
        assert!(table(&links, true).contains("10.0.0.1/24"));
        assert_eq!(table(&Links::default(), false), "no links\n");
    }
}
