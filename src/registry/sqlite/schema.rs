//! What the tables look like, and reading them without trusting them.

use rusqlite::types::FromSql;
use rusqlite::{Connection, Row};

use super::from_sqlite;
use crate::fingerprint::Fingerprint;
use crate::issuer::StoreId;
use crate::registry::RecordError;
use crate::registry::record::{
    KeyId, KeyRecord, Records, Restriction, Seconds, StoredDigest, StoredKey, TeamId, check_name,
};

/// "kshr": marks the file as this crate's.
const APPLICATION: i64 = 0x6b73_6872;

/// The format. A file with a higher number is a newer version's.
const VERSION: i64 = 1;

/// Every table, in the order of their names, as SQLite keeps their text. A key's slot is its row's number, so that
/// there is no index beside a table that could disagree with it.
const TABLES: [&str; 3] = [
    "CREATE TABLE keys (slot INTEGER PRIMARY KEY, serial INTEGER NOT NULL, team INTEGER NOT NULL, name TEXT NOT NULL, \
     fingerprint BLOB, digest BLOB NOT NULL, pepper BLOB NOT NULL, created INTEGER NOT NULL, last_used INTEGER, \
     store INTEGER) STRICT",
    "CREATE TABLE meta (one INTEGER PRIMARY KEY, issuer TEXT, next_serial INTEGER NOT NULL) STRICT",
    "CREATE TABLE stores (store INTEGER PRIMARY KEY, team INTEGER NOT NULL, is_paused INTEGER NOT NULL) STRICT",
];

/// What the tables hold.
pub(super) struct Kept {
    /// `None` until a registry has been opened with these records.
    pub(super) issuer: Option<String>,
    pub(super) records: Records,
}

/// Makes the tables in an empty file.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    let tables = TABLES.join(";\n");
    connection.execute_batch(&format!(
        "BEGIN; {tables}; INSERT INTO meta (one, next_serial) VALUES (1, 0); PRAGMA application_id = {APPLICATION}; \
         PRAGMA user_version = {VERSION}; COMMIT; PRAGMA journal_mode = WAL;"
    ))
}

/// Says whether a file with these two numbers is this crate's and of a format that it knows.
pub(super) fn check_version(application: i64, version: i64) -> Result<(), RecordError> {
    match version {
        _ if application != APPLICATION => Err(RecordError::Corrupt),
        VERSION => Ok(()),
        newer if newer > VERSION => Err(RecordError::Newer { found: newer, known: VERSION }),
        _ => Err(RecordError::Corrupt),
    }
}

/// Looks at everything but the rows' content: numbers, structure, tables.
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

/// Reads every row. One that no version of this crate has written makes the whole file corrupt: a key that is left out
/// would be refused without a reason.
pub(super) fn read(connection: &Connection) -> Result<Kept, RecordError> {
    let meta = "SELECT issuer, next_serial FROM meta WHERE one = 1";
    let (issuer, next_serial) = connection
        .query_row(meta, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(|error| from_sqlite(&error))?;
    // In the order that the index wants them in.
    let keys = "SELECT slot, serial, team, name, fingerprint, digest, pepper, created, last_used, store FROM keys \
                ORDER BY slot";
    let keys = rows(connection, keys, |row| stored_key(row, next_serial))?;
    let stores = rows(connection, "SELECT store, team, is_paused FROM stores", store)?;
    let mut digests: Vec<_> = keys.iter().map(|key| key.digest.digest).collect();
    digests.sort_unstable();
    if digests.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(RecordError::Corrupt);
    }
    Ok(Kept { issuer, records: Records { keys, stores, next_serial } })
}

fn rows<T>(
    connection: &Connection,
    query: &str,
    read: impl Fn(&Row<'_>) -> Result<T, RecordError>,
) -> Result<Vec<T>, RecordError> {
    let mut statement = connection.prepare(query).map_err(|error| from_sqlite(&error))?;
    let mut rows = statement.query([]).map_err(|error| from_sqlite(&error))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(|error| from_sqlite(&error))? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn stored_key(row: &Row<'_>, next_serial: u32) -> Result<StoredKey, RecordError> {
    let (slot, serial): (u32, u32) = (get(row, 0)?, get(row, 1)?);
    let name: String = get(row, 3)?;
    let last_used: Option<u32> = get(row, 8)?;
    let restriction = match get::<Option<i64>>(row, 9)? {
        None => Restriction::None,
        Some(store) => Restriction::Store(store_id(store)?),
    };
    // A slot is first taken by the key that finds none free, so as many keys were made before it.
    if serial >= next_serial || slot > serial || check_name(&name).is_err() || last_used == Some(0) {
        return Err(RecordError::Corrupt);
    }
    let record = KeyRecord {
        id: KeyId::new(serial, slot),
        team: TeamId::new(get(row, 2)?),
        name: name.into(),
        fingerprint: get::<Option<[u8; 10]>>(row, 4)?.map(Fingerprint::from_bytes),
        created: Seconds(get(row, 7)?),
        last_used: last_used.map(Seconds),
        restriction,
    };
    let digest = StoredDigest { digest: get(row, 5)?, pepper: Fingerprint::from_bytes(get(row, 6)?) };
    Ok(StoredKey { record, digest })
}

fn store(row: &Row<'_>) -> Result<(StoreId, TeamId, bool), RecordError> {
    let is_paused = match get::<i64>(row, 2)? {
        0 => false,
        1 => true,
        _ => return Err(RecordError::Corrupt),
    };
    Ok((store_id(get(row, 0)?)?, TeamId::new(get(row, 1)?), is_paused))
}

/// A store's number as it is kept: all its 64 bits, with the highest as the sign.
pub(super) const fn store_bits(store: StoreId) -> i64 {
    store.get().cast_signed()
}

fn store_id(bits: i64) -> Result<StoreId, RecordError> {
    StoreId::new(bits.cast_unsigned()).ok_or(RecordError::Corrupt)
}

/// A column; of another type or out of its range, it is not ours.
fn get<T: FromSql>(row: &Row<'_>, at: usize) -> Result<T, RecordError> {
    row.get(at).map_err(|error| from_sqlite(&error))
}
