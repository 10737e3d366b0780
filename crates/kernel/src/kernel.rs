//! The namespaces that Ratchet works in: the node's and those of the registered sandboxes, each
//! with a socket.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ratchet_filter::Filter;
use ratchet_model::{
    device::{Alias, Netns},
    names::SandboxId,
};

use crate::{
    error::KernelError,
    key::{Location, NodeKey},
    netns::NetnsHandle,
    socket::Channel,
};

/// The node's network namespace and those of its sandboxes.
///
/// A registered sandbox's namespace stays alive as long as it is registered: [`Kernel::forget`] it
/// when the sandbox is gone.
#[derive(Debug)]
pub struct Kernel {
    key: Option<NodeKey>,
    node: Space,
    sandboxes: HashMap<SandboxId, Space>,
    /// The node's, opened when it is first needed.
    pub(crate) filter: Mutex<Option<Filter>>,
}

/// A namespace with its socket, which is opened when it is first needed.
pub(crate) struct Space {
    pub(crate) handle: NetnsHandle,
    channel: Mutex<Option<Channel>>,
    /// The number that it has in the node's namespace, which never changes.
    number: Mutex<Option<i32>>,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space")
            .field("netns", &self.handle.identity())
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// The kernel as seen from here: the calling thread's namespace is the node's. Without a key,
    /// no alias is proven.
    ///
    /// # Errors
    /// When /proc is not mounted or no socket can be opened.
    pub fn new() -> Result<Self, KernelError> {
        let handle = NetnsHandle::current()?;
        let channel = Channel::open_here()
            .map_err(|error| KernelError::io("open a netlink socket", &error))?;
        Ok(Self {
            key: None,
            node: Space::new(handle, Some(channel)),
            sandboxes: HashMap::new(),
            filter: Mutex::new(None),
        })
    }

    /// The same, with the key of the node: what it has signed is proven.
    pub fn with_key(self, key: NodeKey) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }

    /// The node's namespace, for example to tell a pod that shares it (hostNetwork) from one with
    /// its own.
    pub fn node(&self) -> &NetnsHandle {
        &self.node.handle
    }

    /// Makes a sandbox's namespace known, in place of the one that was known by this id.
    pub fn register(&mut self, id: SandboxId, handle: NetnsHandle) {
        let known = self
            .sandboxes
            .get(&id)
            .is_some_and(|space| space.handle.identity() == handle.identity());
        if !known {
            self.sandboxes.insert(id, Space::new(handle, None));
        }
    }

    /// Lets go of a sandbox's namespace, so that it can die.
    pub fn forget(&mut self, id: &SandboxId) {
        self.sandboxes.remove(id);
    }

    /// Lets go of all sandboxes' namespaces.
    pub fn forget_all(&mut self) {
        self.sandboxes.clear();
    }

    pub(crate) fn space(&self, netns: &Netns) -> Result<&Space, KernelError> {
        match netns {
            Netns::Node => Ok(&self.node),
            Netns::Sandbox(id) => self
                .sandboxes
                .get(id)
                .ok_or_else(|| KernelError::Unregistered(id.clone())),
        }
    }

    /// All sandboxes' namespaces.
    pub(crate) fn spaces(&self) -> impl Iterator<Item = (&SandboxId, &Space)> {
        self.sandboxes.iter()
    }

    /// The text of an alias for a device with this index in a namespace.
    pub(crate) fn sign(
        &self,
        alias: &Alias,
        netns: &Netns,
        index: u32,
    ) -> Result<String, KernelError> {
        let location = self.location(netns, index)?;
        let key = self.key.as_ref();
        Ok(key.map_or_else(|| alias.to_string(), |key| key.sign(alias, location)))
    }

    /// Whether the node's key has signed an alias, for a device with this index in a namespace.
    pub(crate) fn has_signed(&self, text: &str, netns: &Netns, index: u32) -> bool {
        let location = self.location(netns, index).ok();
        let signed = |key: &NodeKey| location.is_some_and(|at| key.has_signed(text, at));
        self.key.as_ref().is_some_and(signed)
    }

    fn location(&self, netns: &Netns, index: u32) -> Result<Location, KernelError> {
        let netns = self.space(netns)?.handle.identity();
        Ok(Location { netns, index })
    }

    /// Opens the sockets of these namespaces, each named once, that are not open yet.
    ///
    /// # Errors
    /// When one of them is not registered or cannot be opened.
    pub(crate) fn open<'n>(
        &self,
        places: impl IntoIterator<Item = &'n Netns>,
    ) -> Result<(), KernelError> {
        let mut missing: Vec<(&Netns, &Space, MutexGuard<'_, Option<Channel>>)> = Vec::new();
        for netns in places {
            let space = self.space(netns)?;
            let slot = space.lock();
            if slot.is_none() {
                missing.push((netns, space, slot));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let failed = |netns: &Netns, error| {
            KernelError::io(format!("open a netlink socket in {netns}"), &error)
        };
        let handles: Vec<&NetnsHandle> =
            missing.iter().map(|(_, space, _)| &space.handle).collect();
        let opened = Channel::open(&handles).map_err(|error| failed(missing[0].0, error))?;
        for ((netns, _, mut slot), channel) in missing.into_iter().zip(opened) {
            *slot = Some(channel.map_err(|error| failed(netns, error))?);
        }
        Ok(())
    }

    /// Talks to the kernel over a namespace's socket; nobody else uses it meanwhile.
    pub(crate) fn talk<T>(
        &self,
        netns: &Netns,
        work: impl FnOnce(&mut Channel) -> T,
    ) -> Result<T, KernelError> {
        loop {
            if let Some(channel) = &mut *self.space(netns)?.lock() {
                return Ok(work(channel));
            }
            self.open([netns])?;
        }
    }
}

impl Space {
    fn new(handle: NetnsHandle, channel: Option<Channel>) -> Self {
        Self {
            handle,
            channel: Mutex::new(channel),
            number: Mutex::new(None),
        }
    }

    pub(crate) fn number(&self) -> Option<i32> {
        *self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_number(&self, number: i32) {
        *self.number.lock().unwrap_or_else(PoisonError::into_inner) = Some(number);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Channel>> {
        // A panic elsewhere leaves at worst unread answers behind, which the next user skips.
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
