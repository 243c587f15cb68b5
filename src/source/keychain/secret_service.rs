//! The Secret Service of a session bus: gnome-keyring, `KWallet`, `KeePassXC`.
//!
//! Items are those of the *keyring* project: the attributes `service` and `username`, in the default
//! collection.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use secret_service::blocking::{Collection, Item, SecretService};
use secret_service::{EncryptionType, Error};
use zbus::blocking::fdo::DBusProxy;
use zbus::blocking::{Connection, MessageIterator};
use zbus::message::Type;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue};

use super::{Fault, Items, Problem, Resource, THREAD, elsewhere};
use crate::internal::bytes::WipedBytes;
use crate::internal::threads::Lock;

/// The name of the service on the bus.
const NAME: &str = "org.freedesktop.secrets";

/// Where it answers.
const PATH: &str = "/org/freedesktop/secrets";

/// What the *keyring* project says that a value is.
const CONTENT_TYPE: &str = "application/octet-stream";

/// An open connection with a session, over which secrets travel encrypted.
pub(super) struct Store {
    service: SecretService<'static>,
    connection: Connection,
}

impl Store {
    pub(super) fn open() -> Result<Self, Problem> {
        let none = |error: Error| match Fault::from(error) {
            Fault::Problem(problem @ Problem::Exhausted(_)) => problem,
            _ => Problem::NoKeychain,
        };
        let connection = Connection::session().map_err(|error| none(error.into()))?;
        end_with_the_service(&connection)?;
        let service = SecretService::connect_with_existing(EncryptionType::Dh, connection.clone());
        match service {
            Ok(service) => Ok(Self { service, connection }),
            Err(error) => {
                let _ = connection.close();
                Err(none(error))
            }
        }
    }

    pub(super) fn load(&self, items: &Items<'_>, prompts: &Prompts) -> Result<Option<WipedBytes>, Fault> {
        let found = self.only(items, prompts)?;
        Ok(found.map(|item| item.get_secret()).transpose()?.map(WipedBytes::from))
    }

    pub(super) fn load_all(&self, items: &Items<'_>, prompts: &Prompts) -> Result<Vec<WipedBytes>, Fault> {
        let found = self.find(items, prompts)?;
        found.iter().map(|item| Ok(WipedBytes::from(item.get_secret()?))).collect()
    }

    pub(super) fn save(&self, items: &Items<'_>, secret: &[u8], prompts: &Prompts) -> Result<(), Fault> {
        if let Some(item) = self.only(items, prompts)? {
            return Ok(item.set_secret(secret, CONTENT_TYPE)?);
        }
        let Some(collection) = self.default_collection()? else {
            return Err(Fault::Problem(Problem::NoAccess));
        };
        let label = format!("keyring:{}@{}", items.name.unwrap_or_default(), items.service);
        collection.create_item(&label, items.attributes(), secret, true, CONTENT_TYPE)?;
        Ok(())
    }

    pub(super) fn delete(&self, items: &Items<'_>, prompts: &Prompts) -> Result<bool, Fault> {
        let found = self.only(items, prompts)?;
        found.map_or(Ok(false), |item| Ok(item.delete().map(|()| true)?))
    }

    /// Deletes all items except one for which `is_kept` is true; `None` if there is none.
    pub(super) fn keep_one(
        &self,
        items: &Items<'_>,
        is_kept: impl Fn(&[u8]) -> bool,
        prompts: &Prompts,
    ) -> Result<Option<usize>, Fault> {
        let found = self.find(items, prompts)?;
        let mut kept = None;
        for (at, item) in found.iter().enumerate() {
            if kept.is_none() && is_kept(&WipedBytes::from(item.get_secret()?)) {
                kept = Some(at);
            }
        }
        let Some(kept) = kept else { return Ok(None) };
        for (at, item) in found.iter().enumerate() {
            if at != kept {
                item.delete()?;
            }
        }
        Ok(Some(found.len() - 1))
    }

    /// The names of the service's items.
    pub(super) fn names(&self, items: &Items<'_>, prompts: &Prompts) -> Result<Vec<String>, Fault> {
        // What is found says nothing about locked collections.
        let locked = self.locked_collections(items)?;
        if !locked.is_empty() {
            prompts.unlock(&locked)?;
        }
        let found = self.find(items, prompts)?;
        if !self.locked_collections(items)?.is_empty() {
            return Err(Fault::Problem(Problem::NoAccess));
        }
        let mut names = Vec::with_capacity(found.len());
        for item in found {
            names.extend(item.get_attributes()?.remove("username"));
        }
        Ok(names)
    }

    /// The one item, or none.
    fn only<'s>(&'s self, items: &Items<'_>, prompts: &Prompts) -> Result<Option<Item<'s>>, Fault> {
        let mut found = self.find(items, prompts)?;
        match found.len() {
            0 | 1 => Ok(found.pop()),
            count => Err(Fault::Problem(Problem::Ambiguous { count })),
        }
    }

    /// The items, unlocked. An item that is not found may be in a locked collection, because some services
    /// search only unlocked ones. So nothing is absent until all are unlocked.
    fn find<'s>(&'s self, items: &Items<'_>, prompts: &Prompts) -> Result<Vec<Item<'s>>, Fault> {
        let (found, mut locked) = self.search(items)?;
        if locked.is_empty() {
            if !found.is_empty() {
                return Ok(found);
            }
            locked = self.locked_collections(items)?;
            if locked.is_empty() {
                return Ok(found);
            }
        }
        prompts.unlock(&locked)?;
        let (found, locked) = self.search(items)?;
        if !locked.is_empty() || found.is_empty() && !self.locked_collections(items)?.is_empty() {
            return Err(Fault::Problem(Problem::NoAccess));
        }
        Ok(found)
    }

    /// The items that are unlocked, and the paths of those that are not.
    fn search<'s>(&'s self, items: &Items<'_>) -> Result<(Vec<Item<'s>>, Vec<OwnedObjectPath>), Fault> {
        if !items.in_default_collection {
            let found = self.service.search_items(items.attributes())?;
            return Ok((found.unlocked, found.locked.into_iter().map(|item| item.item_path).collect()));
        }
        let Some(collection) = self.default_collection()? else { return Ok((Vec::new(), Vec::new())) };
        let found = collection.search_items(items.attributes())?;
        let found: Vec<_> = found.into_iter().map(|item| item.item_path).collect();
        if collection.is_locked()? {
            return Ok((Vec::new(), found));
        }
        let open = found.into_iter().map(|path| Ok(self.service.get_item_by_path(path)?));
        Ok((open.collect::<Result<_, Fault>>()?, Vec::new()))
    }

    /// The locked collections, which may hide an item. A service that shows no collection, as `KeePassXC`
    /// does while its databases are closed, may hide one too. (gnome-keyring always shows the session's
    /// collection.)
    fn locked_collections(&self, items: &Items<'_>) -> Result<Vec<OwnedObjectPath>, Fault> {
        let all = self.collections()?;
        if all.is_empty() {
            return Err(Fault::Problem(Problem::NoAccess));
        }
        let collections = if items.in_default_collection {
            Vec::from_iter(self.default_collection()?)
        } else {
            let all = all.into_iter().map(|path| Ok(self.service.get_collection_by_path(path)?));
            all.collect::<Result<_, Fault>>()?
        };
        let mut locked = Vec::new();
        for collection in collections {
            if collection.is_locked()? {
                locked.push(collection.collection_path);
            }
        }
        Ok(locked)
    }

    /// The paths of all collections. `SecretService::get_all_collections` returns those of its first call.
    fn collections(&self) -> Result<Vec<OwnedObjectPath>, Fault> {
        let property = ("org.freedesktop.Secret.Service", "Collections");
        let interface = Some("org.freedesktop.DBus.Properties");
        let answer = self.connection.call_method(Some(NAME), PATH, interface, "Get", &property)?;
        Ok(answer.body().deserialize::<OwnedValue>()?.try_into().map_err(|_| Problem::Unreachable)?)
    }

    fn default_collection(&self) -> Result<Option<Collection<'_>>, Fault> {
        match self.service.get_default_collection() {
            Ok(collection) => Ok(Some(collection)),
            Err(Error::NoResult) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Items<'_> {
    fn attributes(&self) -> HashMap<&str, &str> {
        let mut attributes = HashMap::from([("service", self.service)]);
        attributes.extend(self.name.map(|name| ("username", name)));
        attributes
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The watching thread waits on the connection.
        let _ = self.connection.clone().close();
    }
}

/// Closes the connection once the service has ended. The bus answers the open calls, but waiting for a
/// signal, such as the end of a prompt, would never return.
fn end_with_the_service(connection: &Connection) -> Result<(), Problem> {
    let bus = DBusProxy::new(connection).map_err(|_| Problem::NoKeychain)?;
    let changes = bus.receive_name_owner_changed_with_args(&[(0, NAME)]);
    let mut changes = changes.map_err(|_| Problem::NoKeychain)?;
    let connection = connection.clone();
    let watch = move || {
        // It also ends with the connection.
        let is_gone = changes.any(|change| change.args().is_ok_and(|change| change.old_owner().is_some()));
        if is_gone {
            let _ = connection.close();
        }
    };
    let thread = thread::Builder::new().name(THREAD.into());
    thread.spawn(watch).map_err(|_| Problem::Exhausted(Resource::Threads))?;
    Ok(())
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<zbus::Error> for Fault {
    fn from(error: zbus::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<Error> for Fault {
    /// Keeps the kind of the error and drops its content.
    fn from(error: Error) -> Self {
        match error {
            Error::Locked | Error::NoResult | Error::Prompt => Problem::NoAccess.into(),
            Error::Zbus(zbus::Error::MethodError(name, _, _))
                if name.as_str() == "org.freedesktop.Secret.Error.IsLocked" =>
            {
                Problem::NoAccess.into()
            }
            Error::Zbus(zbus::Error::InputOutput(error) | zbus::Error::Connection(error, _)) => {
                Resource::of(&error).map_or(Self::Lost, |resource| Problem::Exhausted(resource).into())
            }
            Error::Crypto(_) => Problem::Unreachable.into(),
            _ => Self::Lost,
        }
    }
}

/// The interfaces of unlocking, which may ask a person and so may take without end.
const SERVICE: &str = "org.freedesktop.Secret.Service";
const PROMPT: &str = "org.freedesktop.Secret.Prompt";
const BUS: &str = "org.freedesktop.DBus";

/// The prompt of one call. It has its own connection, which is closed at the deadline: the call then ends,
/// and the service closes the prompt.
#[derive(Clone, Default)]
pub(super) struct Prompts(Arc<Lock<State>>);

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Waits(Connection),
    Ended,
}

impl Prompts {
    /// Ends an open prompt, and refuses further ones. Closing blocks and a caller waits here, so a thread
    /// does it.
    pub(super) fn end(&self) {
        if let State::Waits(connection) = self.set(State::Ended) {
            elsewhere(move || drop(connection.close()));
        }
    }

    /// Asks to unlock collections and items. The caller checks whether they are.
    fn unlock(&self, objects: &[OwnedObjectPath]) -> Result<(), Fault> {
        let connection = Connection::session()?;
        if matches!(self.set(State::Waits(connection.clone())), State::Ended) {
            self.end();
            return Err(Problem::NoAccess.into());
        }
        let outcome = unlock(&connection, objects);
        let is_ended = matches!(self.set(State::Idle), State::Ended);
        let _ = connection.close();
        if is_ended {
            self.end();
            return Err(Problem::NoAccess.into());
        }
        outcome
    }

    fn set(&self, state: State) -> State {
        std::mem::replace(&mut *self.0.lock(), state)
    }
}

fn unlock(connection: &Connection, objects: &[OwnedObjectPath]) -> Result<(), Fault> {
    // Subscribe first, so that neither the answer nor the end of the service is missed.
    let mut messages = MessageIterator::from(connection);
    let completed = format!("type='signal',sender='{NAME}',interface='{PROMPT}',member='Completed'");
    let gone = format!("type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{NAME}'");
    for rule in [completed, gone] {
        connection.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "AddMatch", &rule)?;
    }
    let objects: Vec<ObjectPath<'_>> = objects.iter().map(|path| path.as_ref()).collect();
    let answer = connection.call_method(Some(NAME), PATH, Some(SERVICE), "Unlock", &(objects,))?;
    let (_, prompt): (Vec<OwnedObjectPath>, OwnedObjectPath) = answer.body().deserialize()?;
    if prompt.as_str() == "/" {
        return Ok(());
    }
    // Without a parent window.
    connection.call_method(Some(NAME), prompt.as_str(), Some(PROMPT), "Prompt", &"")?;
    let is_over = |message: zbus::Result<zbus::Message>| {
        let message = message.ok()?;
        let header = message.header();
        if message.message_type() != Type::Signal {
            return None;
        }
        match header.member()?.as_str() {
            "Completed" if header.path().is_some_and(|path| path.as_str() == prompt.as_str()) => {
                let (is_dismissed, _): (bool, OwnedValue) = message.body().deserialize().ok()?;
                Some(if is_dismissed { Err(Problem::NoAccess.into()) } else { Ok(()) })
            }
            "NameOwnerChanged" => {
                let (name, old, _): (String, String, String) = message.body().deserialize().ok()?;
                (name == NAME && !old.is_empty()).then_some(Err(Fault::Lost))
            }
            _ => None,
        }
    };
    // If the messages end, the bus has ended or the deadline has passed.
    messages.find_map(is_over).unwrap_or(Err(Fault::Lost))
}
