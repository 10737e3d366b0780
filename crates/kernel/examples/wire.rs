//! Wires veth pairs between two pods and compares the time with `ip -batch` doing the same.
//!
//!     cargo run --release -p ratchet-kernel --example wire [PAIRS]
//!
//! Works in network namespaces of its own; needs root and the `ip` program, the latter only for the
//! comparison.
#![allow(clippy::too_many_lines)]

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Write as _,
    os::fd::{AsFd, AsRawFd},
    process::Command,
    time::Instant,
};

use nix::sched::{CloneFlags, setns, unshare};
use ratchet_kernel::{Kernel, Look, NetnsHandle};
use ratchet_model::{
    device::{Alias, At, GROUP_OURS, Netns, NewDevice, Operation, Part, Step},
    link::{End, Mac},
};

type Failing<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Failing<()> {
    let pairs = std::env::args()
        .nth(1)
        .map_or(Ok(1500), |text| text.parse())?;
    for round in 1..=3 {
        println!("round {round}: {pairs} pairs");
        ours(pairs)?;
        batch(pairs)?;
    }
    Ok(())
}

fn fresh() -> Failing<NetnsHandle> {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(NetnsHandle::current()?)
    });
    made.join().map_err(|_| "no namespace")?
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    println!(
        "  {what:<44} {:>10.2} ms",
        started.elapsed().as_secs_f64() * 1e3
    );
    result
}

/// An address and a MAC of an end, by its number.
fn numbers(number: u16, end: u8) -> (String, String) {
    let [high, low] = number.to_be_bytes();
    (
        format!("10.{high}.{low}.{end}/24"),
        format!("02:00:00:{end:02x}:{high:02x}:{low:02x}"),
    )
}

fn ours(pairs: u16) -> Failing<()> {
    let node = fresh()?;
    let mut kernel = std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            setns(&node, CloneFlags::CLONE_NEWNET)?;
            Ok::<_, Box<dyn Error + Send + Sync>>(Kernel::new()?)
        });
        made.join().map_err(|_| "no kernel")?
    })?;
    for id in ["s1", "s2"] {
        kernel.register(id.parse()?, fresh()?);
    }
    let mut steps = Vec::new();
    let mut doomed = Vec::new();
    for number in 0..pairs {
        let link = format!("{number:016x}").parse()?;
        let mut step = |operation| steps.push(Step { link, operation });
        let mut creations = Vec::new();
        for (last, (id, name)) in [(1, ("s1", 'a')), (2, ("s2", 'z'))] {
            let at = At {
                netns: Netns::Sandbox(id.parse()?),
                name: format!("{name}{number}"),
            };
            let (_, mac) = numbers(number, last);
            creations.push(NewDevice {
                at,
                mac: mac.parse::<Mac>()?,
                mtu: 1450.try_into()?,
                index: None,
            });
        }
        let [a, z] = <[NewDevice; 2]>::try_from(creations).map_err(|_| "two ends")?;
        for (new, last, end) in [(&a, 1, End::A), (&z, 2, End::Z)] {
            step(Operation::SetUp(new.at.clone(), true));
            step(Operation::AddAddress(
                new.at.clone(),
                numbers(number, last).0.parse()?,
            ));
            step(Operation::Commit(
                new.at.clone(),
                Alias {
                    link,
                    end,
                    part: Part::Pod,
                    sandbox: Some("s1".parse()?),
                    config: 1,
                },
            ));
        }
        doomed.push(Step {
            link,
            operation: Operation::Delete(a.at.clone()),
        });
        step(Operation::CreateVeth { a, z });
    }
    let execute = |what, steps: &[Step]| {
        let outcomes = timed(what, || kernel.execute(steps));
        outcomes.into_iter().collect::<Result<(), _>>()
    };
    let create = |step: &&Step| matches!(step.operation, Operation::CreateVeth { .. });
    let creations: Vec<Step> = steps.iter().filter(create).cloned().collect();
    execute("ratchet: create, up, address, alias", &steps)?;
    let all = BTreeMap::from([("s1", Look::All), ("s2", Look::All)]);
    let scope = all
        .into_iter()
        .map(|(id, look)| Ok((Netns::Sandbox(id.parse()?), look)))
        .collect::<Failing<_>>()?;
    timed("ratchet: observe all, with addresses", || {
        kernel.observe(&scope, |_| true)
    })?;
    timed("ratchet: observe all, settled", || {
        kernel.observe(&scope, |_| false)
    })?;
    let one = At {
        netns: Netns::Sandbox("s1".parse()?),
        name: "a7".into(),
    };
    let scope = BTreeMap::from([(one.netns.clone(), Look::Names([one.name].into()))]);
    timed("ratchet: observe one by name", || {
        kernel.observe(&scope, |_| false)
    })?;
    let (last, others) = doomed.split_last().ok_or("at least one pair")?;
    execute("ratchet: delete one", std::slice::from_ref(last))?;
    let of_last: Vec<Step> = steps
        .iter()
        .filter(|step| step.link == last.link)
        .cloned()
        .collect();
    execute("ratchet: one pair beside the others", &of_last)?;
    let Operation::Delete(from) = last.operation.clone() else {
        return Err("no deletion".into());
    };
    let (to, link) = (
        At {
            netns: Netns::Node,
            name: "parked".into(),
        },
        last.link,
    );
    let alias = Alias {
        link,
        end: End::A,
        part: Part::Pod,
        sandbox: None,
        config: 0,
    };
    let park = Step {
        link,
        operation: Operation::Move {
            from,
            to: to.clone(),
            alias,
        },
    };
    execute("ratchet: park one end", &[park])?;
    let mut rest = others.to_vec();
    rest.push(Step {
        link,
        operation: Operation::Delete(to),
    });
    execute("ratchet: delete", &rest)?;
    execute("ratchet: create alone", &creations)?;
    execute("ratchet: delete what is down", &doomed)?;
    Ok(())
}

fn batch(pairs: u16) -> Failing<()> {
    let (one, other) = (fresh()?, fresh()?);
    let path = |netns: &NetnsHandle| {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            netns.as_fd().as_raw_fd()
        )
    };
    let (mut create, mut configure) = (String::new(), [String::new(), String::new()]);
    for number in 0..pairs {
        let (mac1, mac2) = (numbers(number, 1).1, numbers(number, 2).1);
        writeln!(
            create,
            "link add name a{number} address {mac1} mtu 1450 group {GROUP_OURS} netns {} type veth \
            peer name z{number} \
             address {mac2} mtu 1450 group {GROUP_OURS} netns {}",
            path(&one),
            path(&other)
        )?;
        for (text, name, end) in [(0, 'a', 1), (1, 'z', 2)] {
            let address = numbers(number, end).0;
            writeln!(configure[text], "link set {name}{number} up")?;
            writeln!(
                configure[text],
                "address add {address} brd + dev {name}{number}"
            )?;
            writeln!(
                configure[text],
                "link set {name}{number} alias ratchet-link-{number}"
            )?;
        }
    }
    let folder = tempfile::tempdir()?;
    let run = |netns: &NetnsHandle, text: &str| -> Failing<()> {
        let file = folder.path().join("batch");
        std::fs::write(&file, text)?;
        std::thread::scope(|scope| {
            let ran = scope.spawn(|| {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
                let status = Command::new("ip").arg("-batch").arg(&file).status()?;
                if status.success() {
                    Ok(())
                } else {
                    Err("ip failed".into())
                }
            });
            ran.join().map_err(|_| "no ip")?
        })
    };
    timed("ip -batch: create, up, address, alias", || {
        run(&one, &create)?;
        run(&one, &configure[0])?;
        run(&other, &configure[1])
    })
}
