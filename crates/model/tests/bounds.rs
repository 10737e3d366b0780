//! However much and whatever a pod's author writes, reading it takes little memory and says in a
//! short text what is wrong.
//!
//! Memory is counted by the allocator, per thread. A thread that takes more than [`FATAL`] ends the
//! process: without a limit some of these texts take 100 GB.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt::Write as _,
};

use ratchet_model::{
    PodKey,
    declaration::{Declaration, DeclarationError, LINKS, Texts, declare},
};

/// Nearly all that Kubernetes allows for the annotations of a pod, 256 KiB.
const SIZE: usize = 249_000;
/// What reading may take.
const ALLOWED: usize = 10 << 20;
const FATAL: usize = 256 << 20;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all is left to the system's allocator; a null pointer stands for a failure. The counters
// are plain cells of the thread, which need no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.get().saturating_add(layout.size());
        if now > FATAL {
            return std::ptr::null_mut();
        }
        NOW.set(now);
        PEAK.set(PEAK.get().max(now));
        // SAFETY: the caller's layout, as it is.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.set(NOW.get().saturating_sub(layout.size()));
        // SAFETY: the caller's pointer and layout; it came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Reads a declaration and checks how much memory that took and how long the error is.
fn read(labels: &Texts, annotations: &Texts) -> Result<Option<Declaration>, DeclarationError> {
    let pod = PodKey::new("lab", "r1").unwrap();
    let before = NOW.get();
    PEAK.set(before);
    let declared = declare(&pod, labels, annotations);
    let taken = PEAK.get() - before;
    assert!(taken <= ALLOWED, "{taken} bytes of memory");
    if let Err(error) = &declared {
        let text = error.to_string();
        assert!(text.len() <= 1024, "{} bytes", text.len());
        assert!(text.starts_with("pod lab/"), "{text}");
    }
    declared
}

fn annotation(text: impl Into<String>) -> Result<Option<Declaration>, DeclarationError> {
    read(&Texts::new(), &[(LINKS.to_owned(), text.into())].into())
}

/// So many bytes of the same.
fn filled(size: usize, with: &str) -> String {
    with.repeat(size / with.len())
}

/// A long text behind an anchor, and aliases of aliases of it.
fn laughs(size: usize) -> String {
    let aliases = |name: &str| vec![name; size / 16].join(",");
    let long = filled(size / 2, "x");
    format!(
        "- &a {long}\n- &b [{}]\n- [{}]\n",
        aliases("*a"),
        aliases("*b")
    )
}

#[test]
fn forty_kilobytes_of_aliases_take_no_memory() {
    let error = annotation(laughs(40_000)).unwrap_err().to_string();
    let expected = "pod lab/r1: annotation ratchet.dev/links: has an anchor or alias of YAML (line \
                    1, column 6), the limit is 0: write each value out";
    assert_eq!(error, expected);
}

#[test]
fn whatever_fills_an_annotation_takes_little() {
    let inside = |with: &str| format!("[{}]", filled(SIZE, with));
    let entry = |with: &str| format!("[{{interface: e1, peer: {}}}]", inside(with));
    let mut steps = String::new();
    for depth in 0.. {
        let _ = writeln!(steps, "{}a:", " ".repeat(depth));
        if steps.len() > SIZE {
            break;
        }
    }
    let unit = [
        "[",
        "{",
        "- ",
        "? ",
        "?\n",
        ": ",
        "-",
        "\t",
        "\n",
        " ",
        "\"",
        "'",
        "*a ",
        "&a ",
        "!!a ",
        "#x\n",
        "---\n",
        "--- 1\n",
        "%YAML 1.2\n",
        "\0",
        "\u{feff}",
        "x",
        "x\n",
        "k: 1\n",
        "- a: 1\n",
    ];
    for text in unit.map(|unit| filled(SIZE, unit)).into_iter().chain([
        laughs(SIZE),
        steps,
        format!("- |\n{}", filled(SIZE, " x\n")),
        format!("- >\n{}", filled(SIZE, " x\n\n")),
        format!("- x\n{}", filled(SIZE, " #\n")),
        format!("[\"{}\"]", filled(SIZE, "\\u0001")),
        format!("[{{{}: 1}}]", filled(SIZE, "k")),
        format!("[{{\"{}\": 1}}]", filled(SIZE, "k")),
        format!("[{{interface: {}}}]", filled(SIZE, "9")),
        format!("[{{interface: e1, peer: \"{}\"}}]", filled(SIZE, "\\n")),
        format!("[{{interface: e1, peer: {}}}]", filled(SIZE, "a/")),
    ]) {
        let start: String = text.chars().take(40).collect();
        match annotation(text) {
            Ok(declared) => assert_eq!(declared.unwrap().links, [], "{start:?}"),
            Err(error) => assert!(!error.reason.message().is_empty(), "{start:?}"),
        }
    }
    for with in [
        "1,",
        "[],",
        "{},",
        "{a},",
        "{a: {b: 1}},",
        "{<<: {a: 1}},",
        "'',",
        "? a : b,",
    ] {
        for text in [inside(with), entry(with)] {
            annotation(text).unwrap_err();
        }
    }
}

#[test]
fn an_entry_with_all_values_that_are_allowed_takes_little() {
    // The last one that fits before the list ends; it is refused for what it holds.
    let many = "{a},".repeat(2048 * 16 / 3 - 4);
    let error = annotation(format!("[{{interface: e1, peer: [{many}]}}]")).unwrap_err();
    assert!(
        error.reason.to_string().contains("invalid type: sequence"),
        "{error}"
    );
    let error = annotation(format!("[{{interface: e1, peer: [{many}{many}]}}]")).unwrap_err();
    assert!(
        error
            .reason
            .to_string()
            .contains("has more than 32768 values (line 1, column"),
        "{error}"
    );
}

#[test]
fn labels_of_any_length_take_little() {
    let long = filled(SIZE, "x");
    let link = [
        "ratchet.local_ifname",
        "ratchet.pair_name",
        "ratchet.pair_ifname",
    ];
    let keys = [
        "ratchet.pod_name",
        "ratchet.primary",
        "ratchet.local_ip",
        "ratchet.pair_ip",
    ];
    for changed in keys.iter().chain(&link) {
        let mut labels: Texts = link.map(|key| (key.to_owned(), "a".to_owned())).into();
        labels.insert("ratchet".into(), "true".into());
        labels.insert("ratchet.primary".into(), "true".into());
        labels.insert("ratchet.pair_name".into(), "r2".into());
        labels.insert((*changed).to_owned(), long.clone());
        read(&labels, &Texts::new()).unwrap_err();
        read(&Texts::new(), &labels).unwrap_err();
    }
    let longer = filled(SIZE + 20_000, "x");
    let labels = [
        ("ratchet".into(), "true".into()),
        ("ratchet.local_ip".into(), longer),
    ]
    .into();
    assert_eq!(
        read(&labels, &Texts::new()).unwrap_err().reason.to_string(),
        "makes 269027 bytes of labels and annotations ratchet.*, the limit is 262144: write \
         shorter values"
    );
    for key in [format!("ratchet.{long}"), format!("ratchet.dev/{long}")] {
        let texts: Texts = [("ratchet".into(), "true".into()), (key, "1".into())].into();
        read(&Texts::new(), &texts).unwrap_err();
    }
}

/// So many links with an address at each end.
fn links(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        let _ = writeln!(
            text,
            "- {{interface: l{n}, peer: r2/l{n}, addresses: [10.0.0.1/30]}}"
        );
    }
    text
}

#[test]
fn a_pod_declares_as_many_links_as_the_quota_allows() {
    let declared = annotation(links(2048)).unwrap().unwrap();
    assert_eq!(declared.links.len(), 2048);
    assert_eq!(
        annotation(links(2049)).unwrap_err().to_string(),
        "pod lab/r1: annotation ratchet.dev/links[2048]: is one link more than the 2048 that a pod \
         may declare (max_links): declare links on their other ends, or raise max_links in the \
         settings"
    );
}

#[test]
fn an_end_has_as_many_addresses_and_routes_as_the_quota_allows() {
    let read = |field: &str, value: &str, count: usize| {
        let list = vec![value; count].join(", ");
        annotation(format!("[{{interface: e1, peer: r2, {field}: [{list}]}}]"))
    };
    for (field, value, what) in [
        ("addresses", "10.0.0.1/30", "addresses"),
        ("peerAddresses", "10.0.0.1/30", "addresses"),
        ("routes", "{dst: 10.0.0.0/8}", "routes"),
        ("peerRoutes", "{dst: 10.0.0.0/8}", "routes"),
    ] {
        assert!(read(field, value, 64).is_ok());
        assert_eq!(
            read(field, value, 65).unwrap_err().to_string(),
            format!(
                "pod lab/r1: annotation ratchet.dev/links[0].{field}: has 65 {what}, the limit for \
                 an end is 64 (max_{what}): write fewer, or raise max_{what} in the settings"
            )
        );
    }
}
