//! The tables, reading them without trusting them, and the seals of their rows.

use std::sync::Arc;

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use subtle::ConstantTimeEq as _;

use super::from_sqlite;
use crate::key::{Fingerprint, Profile, StoreId};
use crate::registry::record::{
    KeyId, KeyRecord, Records, Seconds, Store, StoredDigest, StoredKey, TeamId, check_name,
};
use crate::registry::secret::PepperKeys;
use crate::registry::{Pepper, RecordError, RegistryError};

/// "kshr": marks the file as this crate's.
const APPLICATION: i64 = 0x6b73_6872;

/// The format's number. The first format had no seals.
const VERSION: i64 = 2;

/// Every table, ordered by name, as SQLite stores the text. A key's serial is its row id, so that there is no
/// separate index that could disagree with the table.
const TABLES: [&str; 3] = [
    "CREATE TABLE keys (serial INTEGER PRIMARY KEY, team INTEGER NOT NULL, name TEXT NOT NULL, fingerprint \
     BLOB, digest BLOB NOT NULL, pepper BLOB NOT NULL, created INTEGER NOT NULL, last_used INTEGER, store \
     INTEGER, seal BLOB NOT NULL) STRICT",
    "CREATE TABLE meta (one INTEGER PRIMARY KEY, issuer TEXT, number BLOB, next_serial INTEGER NOT NULL, \
     pepper BLOB, seal BLOB) STRICT",
    "CREATE TABLE stores (store INTEGER PRIMARY KEY, team INTEGER NOT NULL, is_paused INTEGER NOT NULL, \
     pepper BLOB NOT NULL, seal BLOB NOT NULL) STRICT",
];

/// The columns of a key, in the order in which they are read.
const KEY: &str =
    "SELECT serial, team, name, fingerprint, digest, pepper, created, last_used, store, seal FROM keys";

/// The length of a seal, in bytes.
const SEAL: usize = 16;

/// The length of the random number that records get when a registry first opens them.
pub(super) const NUMBER: usize = 16;

/// Seals the rows of one file, so that an altered row is distinguished from one that this crate wrote.
///
/// A seal covers every column of its row, the issuer and the file's own random number, so it does not fit a
/// row of another file or another table. It does not cover which rows there are.
pub(super) struct Sealer {
    peppers: Arc<Pepper>,
    issuer: &'static str,
    number: [u8; NUMBER],
}

impl Sealer {
    pub(super) fn new(profile: &'static Profile, peppers: &Arc<Pepper>, number: [u8; NUMBER]) -> Self {
        Self { peppers: Arc::clone(peppers), issuer: profile.name(), number }
    }

    /// Returns the pepper that rows without a digest are sealed under.
    fn current(&self) -> &PepperKeys {
        self.peppers.current()
    }

    /// Seals a key, under the pepper of its digest. `None` if that pepper was not given.
    fn key(&self, StoredKey { record, digest }: &StoredKey) -> Option<[u8; SEAL]> {
        let pepper = self.peppers.named(digest.pepper)?;
        let store = record.restriction.map_or(0, StoreId::get);
        let fingerprint = record.fingerprint.map_or([0; 10], Fingerprint::to_bytes);
        // All but the last have a fixed length, so no two rows give the same bytes.
        Some(self.seal(
            pepper,
            &[
                b"key",
                &record.id.serial().to_be_bytes(),
                &record.team.get().to_be_bytes(),
                &record.created.0.to_be_bytes(),
                &record.last_used.map_or(0, |used| used.0).to_be_bytes(),
                &store.to_be_bytes(),
                &[u8::from(record.fingerprint.is_some())],
                &fingerprint,
                &digest.digest,
                &digest.pepper.to_bytes(),
                record.name.as_bytes(),
            ],
        ))
    }

    fn store(&self, pepper: &PepperKeys, id: StoreId, store: Store) -> [u8; SEAL] {
        let (id, team) = (id.get().to_be_bytes(), store.team.get().to_be_bytes());
        self.seal(pepper, &[b"store", &id, &team, &[u8::from(store.is_paused)]])
    }

    fn meta(&self, pepper: &PepperKeys, next_serial: u32) -> [u8; SEAL] {
        self.seal(pepper, &[b"meta", &next_serial.to_be_bytes()])
    }

    fn seal(&self, pepper: &PepperKeys, fields: &[&[u8]]) -> [u8; SEAL] {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&self.number);
        // The name of an issuer has no line feed.
        bytes.extend_from_slice(self.issuer.as_bytes());
        bytes.push(b'\n');
        for field in fields {
            bytes.extend_from_slice(field);
        }
        pepper.seal(&bytes)
    }
}

/// Compares a row's seal with the expected one.
fn compare(found: [u8; SEAL], expected: [u8; SEAL]) -> Result<(), RecordError> {
    if bool::from(found.ct_eq(&expected)) { Ok(()) } else { Err(RecordError::Corrupt) }
}

/// The content of the tables.
pub(super) struct Content {
    pub(super) records: Records,
    /// `None` until a registry was opened with these records.
    pub(super) sealer: Option<Sealer>,
    /// Whether every row without a digest is sealed under the current pepper.
    pub(super) is_current: bool,
}

/// Creates the tables in an empty file.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    let tables = TABLES.join(";\n");
    connection.execute_batch(&format!(
        "BEGIN; {tables}; INSERT INTO meta (one, next_serial) VALUES (1, 0); PRAGMA application_id = \
         {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT; PRAGMA journal_mode = WAL;"
    ))
}

/// Checks that a file with these two numbers is this crate's and has a known format.
pub(super) fn check_version(application: i64, version: i64) -> Result<(), RecordError> {
    match version {
        _ if application != APPLICATION => Err(RecordError::Corrupt),
        VERSION => Ok(()),
        newer if newer > VERSION => Err(RecordError::Newer { found: newer, known: VERSION }),
        older if older > 0 => Err(RecordError::Older { found: older, known: VERSION }),
        _ => Err(RecordError::Corrupt),
    }
}

/// Checks everything except the rows' content: numbers, structure, tables.
pub(super) fn check(connection: &Connection) -> Result<(), RecordError> {
    check_version(number(connection, "PRAGMA application_id")?, number(connection, "PRAGMA user_version")?)?;
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|e| from_sqlite(&e))?;
    let mut statement =
        connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name").map_err(|e| from_sqlite(&e))?;
    let tables = statement.query_map([], |row| row.get::<_, Option<String>>(0));
    let tables: Vec<Option<String>> =
        tables.and_then(Iterator::collect).map_err(|error| from_sqlite(&error))?;
    let same = tables.iter().map(Option::as_deref).eq(TABLES.map(Some));
    if verdict == "ok" && same { Ok(()) } else { Err(RecordError::Corrupt) }
}

fn number(connection: &Connection, question: &str) -> Result<i64, RecordError> {
    connection.query_row(question, [], |row| row.get(0)).map_err(|error| from_sqlite(&error))
}

/// Reads every row. A row that this crate has not written, or that was altered, makes the whole file corrupt:
/// leaving a key out would refuse it without a reason.
pub(super) fn read(
    connection: &Connection,
    profile: &'static Profile,
    peppers: &Arc<Pepper>,
) -> Result<Content, RegistryError> {
    let Some((sealer, next_serial, mut is_current)) = meta(connection, profile, peppers)? else {
        return Ok(Content { records: Records::default(), sealer: None, is_current: false });
    };
    let keys = rows(connection, KEY, |row| stored_key(row, &sealer))?;
    let stores = rows(connection, "SELECT store, team, is_paused, pepper, seal FROM stores", |row| {
        let pepper = named(peppers, get(row, 3)?)?;
        is_current &= pepper.id() == sealer.current().id();
        Ok(store(row, &sealer, pepper)?)
    })?;
    let mut digests: Vec<_> = keys.iter().map(|key| key.digest.digest).collect();
    digests.sort_unstable();
    let is_double = digests.windows(2).any(|pair| pair[0] == pair[1]);
    if is_double || keys.iter().any(|key| key.record.id.serial() >= next_serial) {
        return Err(RecordError::Corrupt.into());
    }
    Ok(Content { records: Records { keys, stores, next_serial }, sealer: Some(sealer), is_current })
}

/// Reads the issuer, the next serial, and whether that is sealed under the current pepper; `None` if no
/// registry was opened with these records yet.
fn meta(
    connection: &Connection,
    profile: &'static Profile,
    peppers: &Arc<Pepper>,
) -> Result<Option<(Sealer, u32, bool)>, RegistryError> {
    let query = "SELECT issuer, number, next_serial, pepper, seal FROM meta WHERE one = 1";
    let (issuer, number, next_serial, pepper, seal) = connection
        .query_row(query, [], |row| {
            let issuer: Option<String> = row.get(0)?;
            let number: Option<[u8; NUMBER]> = row.get(1)?;
            let pepper: Option<[u8; 10]> = row.get(3)?;
            let seal: Option<[u8; SEAL]> = row.get(4)?;
            Ok((issuer, number, row.get::<_, u32>(2)?, pepper, seal))
        })
        .map_err(|error| from_sqlite(&error))?;
    match (issuer, number, pepper, seal) {
        (None, None, None, None) if next_serial == 0 => {
            let query = "SELECT EXISTS (SELECT 1 FROM keys) OR EXISTS (SELECT 1 FROM stores)";
            let is_used: bool =
                connection.query_row(query, [], |row| row.get(0)).map_err(|error| from_sqlite(&error))?;
            if is_used { Err(RecordError::Corrupt.into()) } else { Ok(None) }
        }
        (Some(issuer), ..) if issuer != profile.name() => Err(RecordError::OtherIssuer.into()),
        (Some(_), Some(number), Some(pepper), Some(seal)) => {
            let sealer = Sealer::new(profile, peppers, number);
            let pepper = named(peppers, pepper)?;
            compare(seal, sealer.meta(pepper, next_serial))?;
            let is_current = pepper.id() == sealer.current().id();
            Ok(Some((sealer, next_serial, is_current)))
        }
        _ => Err(RecordError::Corrupt.into()),
    }
}

/// Returns the pepper with this fingerprint.
fn named(peppers: &Pepper, id: [u8; 10]) -> Result<&PepperKeys, RegistryError> {
    let id = Fingerprint::from_bytes(id);
    peppers.named(id).ok_or(RegistryError::PepperMissing { id })
}

/// Writes the issuer, and seals every row without a digest under the current pepper.
pub(super) fn claim(
    all: &Transaction<'_>,
    profile: &'static Profile,
    sealer: &Sealer,
    records: &Records,
) -> rusqlite::Result<()> {
    all.execute("UPDATE meta SET issuer = ?1, number = ?2", params![profile.name(), sealer.number])?;
    write_next_serial(all, sealer, records.next_serial)?;
    records.stores.iter().try_for_each(|&(id, store)| write_store(all, sealer, id, store))
}

/// Writes the number of the next key.
pub(super) fn write_next_serial(
    all: &Transaction<'_>,
    sealer: &Sealer,
    next_serial: u32,
) -> rusqlite::Result<()> {
    let pepper = sealer.current();
    all.prepare_cached("UPDATE meta SET next_serial = ?1, pepper = ?2, seal = ?3")?
        .execute(params![next_serial, pepper.id().to_bytes(), sealer.meta(pepper, next_serial)])
        .map(drop)
}

/// Writes a store, or replaces its row.
pub(super) fn write_store(
    all: &Transaction<'_>,
    sealer: &Sealer,
    id: StoreId,
    store: Store,
) -> rusqlite::Result<()> {
    let pepper = sealer.current();
    let seal = sealer.store(pepper, id, store);
    all.prepare_cached(
        "INSERT OR REPLACE INTO stores (store, team, is_paused, pepper, seal) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![store_bits(id), store.team.get(), store.is_paused, pepper.id().to_bytes(), seal])
    .map(drop)
}

/// Writes a key, or replaces its row.
pub(super) fn write_key(all: &Transaction<'_>, sealer: &Sealer, key: &StoredKey) -> Result<(), RecordError> {
    let StoredKey { record, digest } = key;
    let seal = sealer.key(key).ok_or(RecordError::Corrupt)?;
    let store = record.restriction.map(store_bits);
    let written = all
        .prepare_cached(
            "INSERT OR REPLACE INTO keys (serial, team, name, fingerprint, digest, pepper, created, \
             last_used, store, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                record.id.serial(),
                record.team.get(),
                record.name,
                record.fingerprint.map(Fingerprint::to_bytes),
                digest.digest,
                digest.pepper.to_bytes(),
                record.created.0,
                record.last_used.map(|used| used.0),
                store,
                seal,
            ])
        });
    written.map(drop).map_err(|error| from_sqlite(&error))
}

/// Reads one key; `None` if it was deleted.
pub(super) fn read_key(
    all: &Transaction<'_>,
    sealer: &Sealer,
    id: KeyId,
) -> Result<Option<StoredKey>, RecordError> {
    let found = all
        .prepare_cached(&format!("{KEY} WHERE serial = ?1"))
        .and_then(|mut query| query.query_row([id.serial()], |row| Ok(stored_key(row, sealer))).optional());
    match found.map_err(|error| from_sqlite(&error))? {
        None => Ok(None),
        // The pepper of a key that is in the registry was given.
        Some(key) => key.map(Some).map_err(|_| RecordError::Corrupt),
    }
}

fn rows<T>(
    connection: &Connection,
    query: &str,
    mut read: impl FnMut(&Row<'_>) -> Result<T, RegistryError>,
) -> Result<Vec<T>, RegistryError> {
    let mut statement = connection.prepare(query).map_err(|error| from_sqlite(&error))?;
    let mut rows = statement.query([]).map_err(|error| from_sqlite(&error))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(|error| from_sqlite(&error))? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn stored_key(row: &Row<'_>, sealer: &Sealer) -> Result<StoredKey, RegistryError> {
    let name: String = get(row, 2)?;
    let last_used: Option<u32> = get(row, 7)?;
    let restriction = get::<Option<i64>>(row, 8)?.map(store_id).transpose()?;
    if check_name(&name).is_err() || last_used == Some(0) {
        return Err(RecordError::Corrupt.into());
    }
    let record = KeyRecord {
        id: KeyId::new(get(row, 0)?),
        team: TeamId::new(get(row, 1)?),
        name: name.into(),
        fingerprint: get::<Option<[u8; 10]>>(row, 3)?.map(Fingerprint::from_bytes),
        created: Seconds(get(row, 6)?),
        last_used: last_used.map(Seconds),
        restriction,
    };
    let pepper = Fingerprint::from_bytes(get(row, 5)?);
    let key = StoredKey { record, digest: StoredDigest { digest: get(row, 4)?, pepper } };
    compare(get(row, 9)?, sealer.key(&key).ok_or(RegistryError::PepperMissing { id: pepper })?)?;
    Ok(key)
}

fn store(row: &Row<'_>, sealer: &Sealer, pepper: &PepperKeys) -> Result<(StoreId, Store), RecordError> {
    let (id, team) = (store_id(get(row, 0)?)?, TeamId::new(get(row, 1)?));
    let is_paused = match get::<i64>(row, 2)? {
        0 => false,
        1 => true,
        _ => return Err(RecordError::Corrupt),
    };
    let store = Store { team, is_paused };
    compare(get(row, 4)?, sealer.store(pepper, id, store))?;
    Ok((id, store))
}

/// Converts a store's number to SQLite's integers: all 64 bits, with the highest as the sign.
const fn store_bits(store: StoreId) -> i64 {
    store.get().cast_signed()
}

fn store_id(bits: i64) -> Result<StoreId, RecordError> {
    StoreId::new(bits.cast_unsigned()).ok_or(RecordError::Corrupt)
}

/// Reads a column. Another type or a value out of range is an error.
fn get<T: FromSql>(row: &Row<'_>, at: usize) -> Result<T, RecordError> {
    row.get(at).map_err(|error| from_sqlite(&error))
}
