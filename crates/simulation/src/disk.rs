//! The agent's state directory, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ratchet_engine::Disk;

use crate::points::Points;

const SANDBOXES: &str = "sandboxes/";

/// What is on the disk; it outlives the agent.
#[derive(Debug, Clone, Default)]
pub struct Files(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<String, Vec<u8>>,
    unreadable: BTreeSet<String>,
    is_full: bool,
}

impl Files {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the disk, or makes room.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Whether it is full.
    pub fn is_full(&self) -> bool {
        self.lock().is_full
    }

    /// Loses everything.
    pub fn lose_all(&self) {
        let mut inner = self.lock();
        inner.files.clear();
        inner.unreadable.clear();
    }

    /// Makes one of the sandboxes' files unreadable; returns its name.
    pub fn damage_one(&self, which: usize) -> Option<String> {
        let mut inner = self.lock();
        let names: Vec<String> = inner
            .files
            .keys()
            .filter(|name| name.ends_with(".json") && name.starts_with(SANDBOXES))
            .cloned()
            .collect();
        let name = names.get(which % names.len().max(1))?.clone();
        inner.unreadable.insert(name.clone());
        Some(name)
    }

    /// The names of all files but those that a damaged file was renamed to.
    pub fn names(&self) -> Vec<String> {
        let inner = self.lock();
        let names = inner.files.keys();
        names
            .filter(|name| !name.ends_with(".unreadable"))
            .cloned()
            .collect()
    }
}

/// The disk as one incarnation of the agent sees it.
#[derive(Debug)]
pub struct MemoryDisk {
    files: Files,
    points: Points,
}

impl MemoryDisk {
    /// A disk whose agent passes these points.
    pub fn new(files: Files, points: Points) -> Self {
        Self { files, points }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        self.points.pass();
        let result = change(&mut self.files.lock());
        self.points.pass();
        result
    }
}

fn absent() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn put(inner: &mut Inner, name: &str, bytes: &[u8]) -> io::Result<()> {
    if inner.is_full {
        return Err(io::Error::from(io::ErrorKind::StorageFull));
    }
    inner.unreadable.remove(name);
    inner.files.insert(name.to_owned(), bytes.to_vec());
    Ok(())
}

impl Disk for MemoryDisk {
    fn sandboxes(&self) -> io::Result<Vec<String>> {
        let inner = self.files.lock();
        let names = inner
            .files
            .keys()
            .filter_map(|name| name.strip_prefix(SANDBOXES));
        Ok(names.map(str::to_owned).collect())
    }

    fn exists(&self, name: &str) -> bool {
        self.files.lock().files.contains_key(name)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let inner = self.files.lock();
        if inner.unreadable.contains(name) {
            return Err(io::Error::other("the simulation made this file unreadable"));
        }
        inner.files.get(name).cloned().ok_or_else(absent)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.change(|inner| put(inner, name, bytes))
    }

    fn touch(&self, name: &str) -> io::Result<()> {
        self.change(|inner| put(inner, name, &[]))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|inner| {
            let bytes = inner.files.remove(from).ok_or_else(absent)?;
            inner.files.insert(to.to_owned(), bytes);
            if inner.unreadable.remove(from) {
                inner.unreadable.insert(to.to_owned());
            }
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|inner| {
            inner.unreadable.remove(name);
            inner.files.remove(name).map(drop).ok_or_else(absent)
        })
    }
}
