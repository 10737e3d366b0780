//! How the binary is linked.

fn main() {
    // As Go's programs are, which the other CNI plugins are: at a fixed address. The runtime starts the plugin three times a pod, and a
    // position-independent one spends a quarter of its start on 33,000 relocations of what the agent needs (docs/performance.md).
    // Stack, heap and libraries are at random places all the same.
    println!("cargo::rustc-link-arg-bins=-no-pie");
    // What unwinds a panic is a library of its own otherwise, to be loaded at each start.
    println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    println!("cargo::rerun-if-changed=build.rs");
}
