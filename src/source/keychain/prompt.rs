//! Unlocking, which may ask a person and so may take without end.

use std::sync::Arc;

use zbus::blocking::{Connection, MessageIterator};
use zbus::message::Type;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue};

use super::secret_service::{Fault, NAME, PATH};
use super::{Problem, elsewhere};

use crate::internal::lock::Lock;

const SERVICE: &str = "org.freedesktop.Secret.Service";
const PROMPT: &str = "org.freedesktop.Secret.Prompt";
const BUS: &str = "org.freedesktop.DBus";

/// The prompt of one call. It has a connection of its own, which is closed at the deadline of the call: the call then ends,
/// and the service takes the prompt away.
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
    /// Ends the prompt that is open, and refuses further ones. This is where a caller waits, and closing blocks.
    pub(super) fn end(&self) {
        if let State::Waits(connection) = self.set(State::Ended) {
            elsewhere(move || drop(connection.close()));
        }
    }

    /// Unlocks collections and items. Whether it has is for the caller to see.
    pub(super) fn unlock(&self, objects: &[OwnedObjectPath]) -> Result<(), Fault> {
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
    // Before the question, so that neither its answer nor the end of the service is missed.
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
    // No window of ours.
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
    // Where the messages end, the bus is gone, or the deadline has passed.
    messages.find_map(is_over).unwrap_or(Err(Fault::Lost))
}
