//! A storage account on this machine with what the emulator lacks: soft delete, versions, and version-level immutability. It answers as Microsoft's pages
//! say that the service does: "Soft delete for blobs", "Blob versioning", "Version-level WORM policies for immutable blob data", and of the REST
//! reference "Put Blob", "Delete Blob", "Undelete Blob", "Set Blob Immutability Policy", "List Blobs", "Get Blob Service Properties", "Get Container
//! Properties" and "Create an account SAS". That a delete of a locked current version is refused, and not made a previous version, is what the table of
//! the third page says, and what kopia, which is used with such accounts, reckons with. It was compared with no real account.

mod answer;
mod blobs;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::answer::{Answer, Asked};
use self::blobs::Container;
use super::http::Head;
use super::listener::Listener;

/// What such an account has switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Days for which what is deleted is kept; 0 without soft delete.
    pub soft_delete_days: u16,
    /// Blob versioning.
    pub versions: bool,
    /// Version-level immutability of the containers, which needs versions.
    pub immutability: bool,
    /// Days of the default policy of the containers; 0 for none.
    pub default_lock_days: u16,
}

/// The account. Dropping it ends it.
#[derive(Debug)]
pub struct StorageAccount {
    shared: Arc<Shared>,
    listener: Listener,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

/// What there is.
#[derive(Debug)]
struct State {
    features: Features,
    /// Its clock, in seconds since 1970; it moves a second with each request that changes something, so that versions have names.
    now: i64,
    containers: BTreeMap<String, Container>,
    /// Requests that came: method and what follows the account's name.
    asked: Vec<String>,
}

impl StorageAccount {
    /// Starts one whose clock shows `now`, in seconds since 1970.
    pub fn start(features: Features, now: i64) -> io::Result<Self> {
        let state = State { features, now, containers: BTreeMap::new(), asked: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let serving = Arc::clone(&shared);
        let listener = Listener::start(move |client| serving.serve(client))?;
        Ok(Self { shared, listener })
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// Lets so many days pass.
    pub fn pass_days(&self, days: u16) {
        self.shared.state().now += i64::from(days) * 86_400;
    }

    /// What its clock shows.
    pub fn now(&self) -> i64 {
        self.shared.state().now
    }

    /// Switches features on or off; what is there stays as it is.
    pub fn switch(&self, features: Features) {
        self.shared.state().features = features;
    }

    /// What came so far: method, path and query.
    pub fn asked(&self) -> Vec<String> {
        self.shared.state().asked.clone()
    }

    /// Bytes of what is under a name now.
    pub fn blob(&self, container: &str, name: &str) -> Option<Bytes> {
        self.shared.state().containers.get(container)?.current(name)
    }

    /// Names of what is in a container now.
    pub fn names(&self, container: &str) -> Vec<String> {
        self.shared.state().containers.get(container).map(Container::names).unwrap_or_default()
    }

    /// Until when the current version of a blob is locked.
    pub fn locked_until(&self, container: &str, name: &str) -> Option<i64> {
        self.shared.state().containers.get(container)?.locked_until(name)
    }

    /// Places a legal hold on a blob, or takes it away.
    pub fn hold(&self, container: &str, name: &str, held: bool) {
        if let Some(container) = self.shared.state().containers.get_mut(container) {
            container.hold(name, held);
        }
    }

    /// Takes the locks of blobs away that can be shortened, as somebody with all rights can.
    pub fn unlock(&self, container: &str, prefix: &str) {
        if let Some(container) = self.shared.state().containers.get_mut(container) {
            container.unlock(prefix);
        }
    }

    /// Deletes a blob, as somebody with all rights who asks for it: whether the account let him.
    pub fn delete(&self, container: &str, name: &str) -> bool {
        let mut state = self.shared.state();
        let (features, now) = state.tick();
        let Some(container) = state.containers.get_mut(container) else { return false };
        container.delete(name, None, &features, now).is_ok()
    }

    /// Puts other bytes under a name, as somebody with all rights: whether the account let him.
    pub fn overwrite(&self, container: &str, name: &str, body: Bytes) -> bool {
        let mut state = self.shared.state();
        let (features, now) = state.tick();
        let Some(container) = state.containers.get_mut(container) else { return false };
        container.put(name, body, None, &features, now);
        true
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(client);
        let mut writer = client;
        while let Some(mut head) = Head::read(&mut reader)? {
            let body = head.read_body(&mut reader)?;
            let asked = Asked::new(&head, body.into())?;
            let answer = {
                let mut state = self.state();
                state.asked.push(asked.line());
                state.answer(&asked)
            };
            writer.write_all(&answer.bytes(&asked, self.state().now))?;
        }
        Ok(())
    }
}

impl State {
    /// What is on, and the time, which goes on.
    fn tick(&mut self) -> (Features, i64) {
        self.now += 1;
        (self.features, self.now)
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        if let Err(refusal) = asked.authorize() {
            return refusal;
        }
        if asked.is("restype", "service") && asked.is("comp", "properties") {
            return Answer::service_properties(&self.features);
        }
        if asked.blob.is_empty() {
            return self.answer_for_container(asked);
        }
        let (features, now) = self.tick();
        let Some(container) = self.containers.get_mut(&asked.container) else {
            return Answer::refusal(404, "ContainerNotFound");
        };
        container.answer(asked, &features, now).unwrap_or_else(|refusal| refusal)
    }

    fn answer_for_container(&mut self, asked: &Asked) -> Answer {
        let there = self.containers.get(&asked.container);
        match (asked.method.as_str(), there) {
            ("PUT", Some(_)) => Answer::refusal(409, "ContainerAlreadyExists"),
            ("PUT", None) => {
                self.containers.insert(asked.container.clone(), Container::default());
                Answer::new(201)
            }
            (_, None) => Answer::refusal(404, "ContainerNotFound"),
            ("GET", Some(container)) if asked.is("comp", "list") => container.list(asked, self.now),
            _ => Answer::container_properties(&self.features),
        }
    }
}
