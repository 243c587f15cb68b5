//! A Secret Service of the tests' own, that behaves as real ones do which cannot be run here: `KeePassXC`
//! answers a search with nothing while its database is locked, shows no collection while it is closed, and
//! asks before it writes.

#![allow(clippy::needless_pass_by_value, reason = "a method of an interface owns what it is sent")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use zbus::blocking::{Connection, connection};
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Type, Value};
use zbus::{ObjectServer, fdo, interface};

const ROOT: &str = "/org/freedesktop/secrets";
const COLLECTIONS: &str = "/org/freedesktop/secrets/collection/";
const IV: [u8; 16] = [7; 16];

/// What a person does at a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Person {
    Unlocks,
    Dismisses,
    IsAway,
}

/// An item: its attributes and its secret.
#[derive(Clone, Debug)]
struct Item {
    attributes: HashMap<String, String>,
    secret: Vec<u8>,
}

#[derive(Debug, Default)]
struct Collection {
    is_locked: bool,
    items: HashMap<u32, Item>,
}

struct State {
    person: Person,
    collections: HashMap<String, Collection>,
    default: Option<String>,
    /// Whether it asks before it writes, as `KeePassXC` can.
    asks_to_write: bool,
    /// Whether it answers a write only once it is let go on.
    holds_writes: bool,
    /// What is done once a prompt is answered.
    prompts: HashMap<u32, Prompted>,
    prompted: u32,
    number: u32,
    /// The key of each session.
    sessions: HashMap<String, [u8; 16]>,
}

#[derive(Clone)]
enum Prompted {
    Unlock(Vec<OwnedObjectPath>),
    Create(String, Item),
}

type Shared = Arc<Mutex<State>>;

/// The service, on the session bus until it is dropped.
pub struct StandIn {
    state: Shared,
    _connection: Connection,
}

impl StandIn {
    /// With these collections, each unlocked; the first one is the default.
    pub fn start(collections: &[&str]) -> Self {
        let state = Arc::new(Mutex::new(State {
            person: Person::Unlocks,
            collections: collections.iter().map(|name| ((*name).to_owned(), Collection::default())).collect(),
            default: collections.first().map(|name| (*name).to_owned()),
            asks_to_write: false,
            holds_writes: false,
            prompts: HashMap::new(),
            prompted: 0,
            number: 0,
            sessions: HashMap::new(),
        }));
        let builder = connection::Builder::session().expect("a session bus");
        let builder = builder.serve_at(ROOT, Service(Arc::clone(&state))).expect("a path");
        let mut builder = builder.name("org.freedesktop.secrets").expect("a name");
        for name in collections {
            let served = Served { name: (*name).to_owned(), state: Arc::clone(&state) };
            builder = builder.serve_at(format!("{COLLECTIONS}{name}"), served).expect("a path");
        }
        Self { _connection: builder.build().expect("the name is free"), state }
    }

    pub fn lock(&self, collection: &str) {
        self.state().collections.get_mut(collection).expect("there").is_locked = true;
    }

    pub fn person(&self, person: Person) {
        self.state().person = person;
    }

    /// As `KeePassXC` with all databases closed: nothing is shown.
    pub fn close_databases(&self) {
        let mut state = self.state();
        state.collections.clear();
        state.default = None;
    }

    pub fn asks_to_write(&self) {
        self.state().asks_to_write = true;
    }

    pub fn holds_writes(&self, holds: bool) {
        self.state().holds_writes = holds;
    }

    /// How many items there are of all collections, locked or not.
    pub fn items(&self) -> usize {
        self.state().collections.values().map(|collection| collection.items.len()).sum()
    }

    /// How often a person was asked.
    pub fn prompted(&self) -> u32 {
        self.state().prompted
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }
}

impl State {
    fn search(&self, wanted: &HashMap<String, String>, only: Option<&str>) -> Vec<OwnedObjectPath> {
        let mut found = Vec::new();
        for (name, collection) in &self.collections {
            // What is locked is not searched.
            if collection.is_locked || only.is_some_and(|only| only != name) {
                continue;
            }
            for (number, item) in &collection.items {
                if wanted.iter().all(|(name, value)| item.attributes.get(name) == Some(value)) {
                    found.push(path(&format!("{COLLECTIONS}{name}/{number}")));
                }
            }
        }
        found
    }

    fn next(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn decrypt(&self, secret: &Secret) -> Vec<u8> {
        let iv: [u8; 16] = secret.parameters.clone().try_into().expect("an initialization vector");
        let decryptor =
            cbc::Decryptor::<aes::Aes128>::new(&self.sessions[secret.session.as_str()].into(), &iv.into());
        decryptor.decrypt_padded_vec::<Pkcs7>(&secret.value).expect("encrypted for this session")
    }
}

fn collection_of(path: &OwnedObjectPath) -> Option<&str> {
    path.as_str().strip_prefix(COLLECTIONS)?.split('/').next()
}

fn path(text: &str) -> OwnedObjectPath {
    OwnedObjectPath::try_from(text).expect("a path")
}

#[derive(serde::Serialize, serde::Deserialize, Type)]
struct Secret {
    session: OwnedObjectPath,
    parameters: Vec<u8>,
    value: Vec<u8>,
    content_type: String,
}

struct Service(Shared);

#[interface(name = "org.freedesktop.Secret.Service")]
impl Service {
    fn open_session(&self, algorithm: &str, input: Value<'_>) -> fdo::Result<(OwnedValue, OwnedObjectPath)> {
        assert_eq!(algorithm, "dh-ietf1024-sha256-aes128-cbc-pkcs7");
        let theirs: Vec<u8> = input.try_into().map_err(|_| fdo::Error::InvalidArgs(String::new()))?;
        // Ours is g to the power of one, so what both share is the number that came.
        let mut shared = vec![0; 128 - theirs.len()];
        shared.extend(theirs);
        let mut key = [0; 16];
        hmac_sha256::HKDF::expand(&mut key, hmac_sha256::HKDF::extract([0; 32], shared), []);
        let mut state = self.0.lock().expect("no panic");
        let session = format!("/org/freedesktop/secrets/session/s{}", state.next());
        state.sessions.insert(session.clone(), key);
        Ok((Value::from(vec![2_u8]).try_into().expect("a value"), path(&session)))
    }

    fn search_items(
        &self,
        attributes: HashMap<String, String>,
    ) -> (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) {
        (self.0.lock().expect("no panic").search(&attributes, None), Vec::new())
    }

    fn read_alias(&self, name: &str) -> OwnedObjectPath {
        let state = self.0.lock().expect("no panic");
        match &state.default {
            Some(default) if name == "default" => path(&format!("{COLLECTIONS}{default}")),
            _ => path("/"),
        }
    }

    async fn unlock(
        &self,
        objects: Vec<OwnedObjectPath>,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> fdo::Result<(Vec<OwnedObjectPath>, OwnedObjectPath)> {
        Ok((Vec::new(), prompt(&self.0, Prompted::Unlock(objects), server).await?))
    }

    #[zbus(property)]
    fn collections(&self) -> Vec<OwnedObjectPath> {
        let state = self.0.lock().expect("no panic");
        state.collections.keys().map(|name| path(&format!("{COLLECTIONS}{name}"))).collect()
    }
}

async fn prompt(shared: &Shared, what: Prompted, server: &ObjectServer) -> fdo::Result<OwnedObjectPath> {
    let number = {
        let mut state = shared.lock().expect("no panic");
        let number = state.next();
        state.prompts.insert(number, what);
        number
    };
    let at = format!("/org/freedesktop/secrets/prompt/p{number}");
    server.at(at.as_str(), Prompt { number, state: Arc::clone(shared) }).await?;
    Ok(path(&at))
}

struct Prompt {
    number: u32,
    state: Shared,
}

#[interface(name = "org.freedesktop.Secret.Prompt")]
impl Prompt {
    async fn prompt(
        &self,
        window: &str,
        #[zbus(object_server)] server: &ObjectServer,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<()> {
        assert_eq!(window, "", "there is no window");
        let (is_dismissed, created) = {
            let mut state = self.state.lock().expect("no panic");
            state.prompted += 1;
            match state.person {
                Person::IsAway => return Ok(()),
                Person::Dismisses => (true, None),
                Person::Unlocks => match state.prompts.remove(&self.number) {
                    Some(Prompted::Unlock(objects)) => {
                        for object in objects {
                            let name = collection_of(&object).expect("ours");
                            state.collections.get_mut(name).expect("there").is_locked = false;
                        }
                        (false, None)
                    }
                    Some(Prompted::Create(collection, item)) => {
                        (false, Some(create(&mut state, &collection, item)))
                    }
                    None => (true, None),
                },
            }
        };
        let result = match &created {
            Some((collection, number)) => {
                let item = ServedItem::new(collection, *number, &self.state);
                server.at(format!("{COLLECTIONS}{collection}/{number}"), item).await?;
                Value::from(path(&format!("{COLLECTIONS}{collection}/{number}")).into_inner())
            }
            None => Value::from(""),
        };
        emitter.completed(is_dismissed, result).await?;
        Ok(())
    }

    #[zbus(signal)]
    async fn completed(emitter: &SignalEmitter<'_>, dismissed: bool, result: Value<'_>) -> zbus::Result<()>;
}

fn create(state: &mut State, collection: &str, item: Item) -> (String, u32) {
    let number = state.next();
    state.collections.get_mut(collection).expect("there").items.insert(number, item);
    (collection.to_owned(), number)
}

struct Served {
    name: String,
    state: Shared,
}

#[interface(name = "org.freedesktop.Secret.Collection")]
impl Served {
    fn search_items(&self, attributes: HashMap<String, String>) -> Vec<OwnedObjectPath> {
        self.state.lock().expect("no panic").search(&attributes, Some(&self.name))
    }

    async fn create_item(
        &self,
        properties: HashMap<String, OwnedValue>,
        secret: Secret,
        replace: bool,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> fdo::Result<(OwnedObjectPath, OwnedObjectPath)> {
        let attributes = properties["org.freedesktop.Secret.Item.Attributes"].clone();
        let attributes = attributes.try_into().expect("names and texts");
        assert!(replace, "a second item of the same attributes is not wanted");
        hold_writes(&self.state);
        let (is_asked, item) = {
            let state = self.state.lock().expect("no panic");
            if state.collections[&self.name].is_locked {
                return Err(fdo::Error::Failed("locked".to_owned()));
            }
            (state.asks_to_write, Item { attributes, secret: state.decrypt(&secret) })
        };
        if is_asked {
            let prompt = prompt(&self.state, Prompted::Create(self.name.clone(), item), server).await?;
            return Ok((path("/"), prompt));
        }
        let (_, number) = create(&mut self.state.lock().expect("no panic"), &self.name, item);
        let at = format!("{COLLECTIONS}{}/{number}", self.name);
        server.at(at.as_str(), ServedItem::new(&self.name, number, &self.state)).await?;
        Ok((path(&at), path("/")))
    }

    #[zbus(property)]
    fn locked(&self) -> bool {
        let state = self.state.lock().expect("no panic");
        state.collections.get(&self.name).is_none_or(|collection| collection.is_locked)
    }
}

/// Stands still, as a daemon does that waits for a disk.
fn hold_writes(state: &Shared) {
    while state.lock().expect("no panic").holds_writes {
        thread::sleep(Duration::from_millis(10));
    }
}

struct ServedItem {
    collection: String,
    number: u32,
    state: Shared,
}

impl ServedItem {
    fn new(collection: &str, number: u32, state: &Shared) -> Self {
        Self { collection: collection.to_owned(), number, state: Arc::clone(state) }
    }
}

#[interface(name = "org.freedesktop.Secret.Item")]
impl ServedItem {
    fn get_secret(&self, session: OwnedObjectPath) -> fdo::Result<(Secret,)> {
        let state = self.state.lock().expect("no panic");
        let collection = &state.collections[&self.collection];
        if collection.is_locked {
            return Err(fdo::Error::Failed("locked".to_owned()));
        }
        let item = &collection.items[&self.number];
        let encryptor =
            cbc::Encryptor::<aes::Aes128>::new(&state.sessions[session.as_str()].into(), &IV.into());
        let value = encryptor.encrypt_padded_vec::<Pkcs7>(&item.secret);
        Ok((Secret { session, parameters: IV.to_vec(), value, content_type: String::new() },))
    }

    fn set_secret(&self, secret: Secret) {
        hold_writes(&self.state);
        let mut state = self.state.lock().expect("no panic");
        let secret = state.decrypt(&secret);
        let collection = state.collections.get_mut(&self.collection).expect("there");
        collection.items.get_mut(&self.number).expect("there").secret = secret;
    }

    fn delete(&self) -> OwnedObjectPath {
        let mut state = self.state.lock().expect("no panic");
        state.collections.get_mut(&self.collection).expect("there").items.remove(&self.number);
        path("/")
    }

    #[zbus(property)]
    fn attributes(&self) -> HashMap<String, String> {
        self.state.lock().expect("no panic").collections[&self.collection].items[&self.number]
            .attributes
            .clone()
    }

    #[zbus(property)]
    fn locked(&self) -> bool {
        self.state.lock().expect("no panic").collections[&self.collection].is_locked
    }
}
