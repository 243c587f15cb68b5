//! Records in a file of SQLite.

mod file;
mod schema;

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, ffi, params};

use super::record::{
    Change, Changed, KeyId, RecordStore, Records, Restriction, StoredKey, TeamId, sealed::Sealed,
};
use super::{RecordError, pepper::DIGEST};
use crate::internal::printable::PrintablePath;
use crate::issuer::{Profile, StoreId};
use file::Place;
use schema::Kept;

/// Records in a file of SQLite, so that they survive a restart.
///
/// The file holds each key's number, team, name, fingerprint, times, restriction and keyed digest, and no key. It must be
/// a regular file of this user that nobody else can read or write; new ones are made so. One process at a time has it: a
/// second gets [`RecordError::Locked`] at once. A file that is refused is left as it was, byte for byte.
///
/// What has returned is on the disk, as far as the file system honours `fsync`: the file is in write-ahead mode with full
/// synchronisation, which costs one `fsync` for a new key. (A rollback journal costs several, and with the same setting may
/// come back after a power cut and undo what had returned.) Deleting a key overwrites it in the file and in the log beside
/// it; the disk and the file system may keep older copies of both.
///
/// Beside a file `keys.db` lie `keys.db.lock`, which is empty and stays, and while a registry has it open or after it was
/// killed `keys.db-wal`, which is a part of the records: **copy or move both together**, with the registry stopped. Without
/// its log, a file may have keys again that were deleted.
///
/// ```
/// use keysheath::issuer::{Issuer, Kanal};
/// use keysheath::registry::{KeyRegistry, Pepper, Peppers, RecordError, Restriction, Sqlite, TeamId};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("keys.db");
/// # let pepper = || {
/// #     let path = folder.path().join("pepper");
/// #     std::fs::write(&path, "mY8Qz3vT1nW5xR7kJ2hG9fD4sA6pL0oIuYtReWqZxCv=").unwrap();
/// #     Pepper::from_reference(&format!("file:{}", path.display()).parse().unwrap()).unwrap()
/// # };
/// assert_eq!(Sqlite::open(&path).unwrap_err(), RecordError::Missing);
///
/// let registry = KeyRegistry::open(Kanal::PROFILE, Peppers::new(pepper()), Sqlite::create(&path)?)?;
/// let new = registry.create_key(TeamId::new(1), "production-shop", Restriction::None)?;
/// drop(registry);
///
/// let registry = KeyRegistry::open(Kanal::PROFILE, Peppers::new(pepper()), Sqlite::open(&path)?)?;
/// assert_eq!(registry.key(new.record().id()).unwrap().name(), "production-shop");
/// # Ok::<(), keysheath::registry::RegistryError>(())
/// ```
pub struct Sqlite {
    connection: Mutex<Connection>,
    /// After the connection, so that the lock is the last to go.
    place: Place,
}

impl Sqlite {
    /// Opens records that are there. Blocks: it reads the whole file once to see whether it is whole.
    ///
    /// They belong to the issuer of the registry that is first opened with them.
    ///
    /// # Errors
    /// [`RecordError`]: `Missing` or `NoFolder` where there is nothing, and then nothing is made, `NotPrivate`, `ReadOnly`
    /// and `Locked` for a file that cannot be used as it is, `Corrupt` for one that is damaged or not this crate's, and
    /// `Newer`. The file is left as it was.
    ///
    /// ```
    /// # use keysheath::registry::{RecordError, Sqlite};
    /// assert_eq!(Sqlite::open("/no/such/folder/keys.db").unwrap_err(), RecordError::NoFolder);
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordError> {
        Self::connect(Place::open(path.as_ref())?)
    }

    /// Makes records without a key, where nothing is yet. Blocks.
    ///
    /// It is apart from [`Sqlite::open`] so that a wrong path or a disk that is not mounted gives an error, and not a
    /// registry that refuses every key. Where both will do, say so: open, and create what is [`RecordError::Missing`].
    ///
    /// # Errors
    /// [`RecordError`]: `Exists` where something is, a log that was left behind included; `NoFolder`, `ReadOnly`, `Locked`
    /// and the others as for [`Sqlite::open`].
    ///
    /// ```
    /// # use keysheath::registry::{RecordError, Sqlite};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("keys.db");
    /// let records = match Sqlite::open(&path) {
    ///     Err(RecordError::Missing) => Sqlite::create(&path)?,
    ///     other => other?,
    /// };
    /// # Ok::<(), RecordError>(())
    /// ```
    pub fn create(path: impl AsRef<Path>) -> Result<Self, RecordError> {
        Self::connect(Place::create(path.as_ref(), fill)?)
    }

    fn connect(place: Place) -> Result<Self, RecordError> {
        // A log that is there already is played into the file when the connection is closed, unless this is set. What is
        // refused is to stay as it is, so it is set until the records have been read. (A log that is not there is made
        // empty and removed again.)
        let connection = connection(place.path(), place.has_log()).map_err(|error| from_sqlite(&error))?;
        schema::check(&connection)?;
        place.is_in_place()?;
        Ok(Self { connection: Mutex::new(connection), place })
    }

    /// One transaction, on the disk when this returns.
    fn write(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), RecordError> {
        self.place.is_in_place()?;
        let mut connection = self.connection();
        let written = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|all| {
            change(&all)?;
            all.commit()
        });
        written.map_err(|error| from_sqlite(&error))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic has interrupted was rolled back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sealed for Sqlite {}

impl RecordStore for Sqlite {
    fn load(&self, profile: &'static Profile) -> Result<Records, RecordError> {
        let Kept { issuer, records } = schema::read(&self.connection())?;
        if issuer.as_deref().is_some_and(|issuer| issuer != profile.name()) {
            return Err(RecordError::OtherIssuer);
        }
        let connection = self.connection();
        let is_kept = connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            // A copy that another tool made may be in another mode.
            .and_then(|_| {
                connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))
            });
        drop(connection);
        if is_kept.map_err(|error| from_sqlite(&error))? != "wal" {
            return Err(RecordError::ReadOnly);
        }
        if issuer.is_none() {
            self.write(|all| all.execute("UPDATE meta SET issuer = ?1", [profile.name()]).map(drop))?;
        }
        Ok(records)
    }

    fn insert(&self, StoredKey { record, digest }: &StoredKey) -> Result<(), RecordError> {
        let store = match record.restriction {
            Restriction::None => None,
            Restriction::Store(store) => Some(schema::store_bits(store)),
        };
        self.write(|all| {
            let mut insert = all.prepare_cached(
                "INSERT INTO keys (slot, serial, team, name, fingerprint, digest, pepper, created, last_used, store) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?;
            insert.execute(params![
                record.id.slot(),
                record.id.serial(),
                record.team.get(),
                record.name,
                record.fingerprint.map(crate::fingerprint::Fingerprint::to_bytes),
                digest.digest,
                digest.pepper.to_bytes(),
                record.created.0,
                record.last_used.map(|used| used.0),
                store,
            ])?;
            // Kept by itself, so that the newest key's number is not given again once that key was deleted.
            all.prepare_cached("UPDATE meta SET next_serial = ?1")?
                .execute([i64::from(record.id.serial()) + 1])
                .map(drop)
        })
    }

    fn delete(&self, id: KeyId) -> Result<(), RecordError> {
        self.write(|all| {
            all.prepare_cached("DELETE FROM keys WHERE slot = ?1 AND serial = ?2")?
                .execute([id.slot(), id.serial()])
                .map(drop)
        })?;
        // The log still has the row. The key is deleted either way, so a failure here is none.
        let _ = self.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        Ok(())
    }

    fn put_store(&self, store: StoreId, team: TeamId, paused: bool) -> Result<(), RecordError> {
        self.write(|all| {
            all.prepare_cached("INSERT OR REPLACE INTO stores (store, team, is_paused) VALUES (?1, ?2, ?3)")?
                .execute(params![schema::store_bits(store), team.get(), paused])
                .map(drop)
        })
    }

    fn write_behind(&self, changes: &[Change]) -> Result<(), RecordError> {
        // A key that was deleted meanwhile has no row, and one that took its slot has another serial.
        self.write(|all| {
            let mut used = all.prepare_cached(
                "UPDATE keys SET last_used = max(ifnull(last_used, 0), ?3) WHERE slot = ?1 AND serial = ?2",
            )?;
            let mut digest = all
                .prepare_cached("UPDATE keys SET digest = ?3, pepper = ?4 WHERE slot = ?1 AND serial = ?2")?;
            for Change { id, what } in changes {
                match what {
                    Changed::Used(seconds) => {
                        used.execute(params![id.slot(), id.serial(), seconds.0])?;
                    }
                    Changed::Digest(new) => {
                        let bytes: &[u8; DIGEST] = &new.digest;
                        digest.execute(params![id.slot(), id.serial(), bytes, new.pepper.to_bytes()])?;
                    }
                }
            }
            Ok(())
        })
    }

    fn is_kept(&self) -> bool {
        true
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sqlite({})", PrintablePath(self.place.path()))
    }
}

/// Opens a file that is there, alone, and with nothing in it trusted.
fn connection(path: &Path, keep_log: bool) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep_log)?;
    // Exclusive, before anything is read: it holds other tools off, and needs no shared memory in a file. Temporary tables
    // would lie in files that are not private.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; \
         PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON;",
    )?;
    Ok(connection)
}

/// Makes a file without content into records without a key.
fn fill(path: &Path) -> Result<(), RecordError> {
    let made = connection(path, false).and_then(|connection| {
        // Nobody knows the file yet, so what is half made is thrown away.
        connection.execute_batch("PRAGMA journal_mode = MEMORY;")?;
        schema::create(&connection)?;
        connection.close().map_err(|(_, error)| error)
    });
    made.map_err(|error| from_sqlite(&error))
}

/// By its code alone: the text may have a path or a value in it.
fn from_sqlite(error: &rusqlite::Error) -> RecordError {
    match (error.sqlite_error(), error) {
        (Some(failure), _) => from_code(*failure),
        (None, rusqlite::Error::InvalidPath(_) | rusqlite::Error::NulError(_)) => {
            RecordError::Io(ErrorKind::InvalidInput)
        }
        // A column that is not there, of another type, or out of its range.
        (None, _) => RecordError::Corrupt,
    }
}

fn from_code(failure: ffi::Error) -> RecordError {
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => RecordError::Locked,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => RecordError::Corrupt,
        ErrorCode::ReadOnly | ErrorCode::DiskFull | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            RecordError::ReadOnly
        }
        // A quota, or a bound on the size of files.
        _ if failure.extended_code == ffi::SQLITE_IOERR_WRITE => RecordError::ReadOnly,
        _ => RecordError::Database { code: failure.extended_code },
    }
}
