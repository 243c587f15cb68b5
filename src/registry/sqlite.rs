//! Records in a SQLite file.

mod file;
mod schema;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, ffi};

use super::record::{Change, Changed, KeyId, RecordStore, Records, Store, StoredKey};
use super::{KeyRegistry, Pepper, RecordError, RegistryError};
use crate::internal::files::FileProblem;
use crate::internal::threads::Lock;
use crate::key::{Profile, StoreId};
use file::RecordFile;
use schema::{Content, NUMBER, Sealer};

/// Records in a SQLite file. It holds no key, and is opened by one process at a time.
pub(super) struct Sqlite {
    connection: Lock<Connection>,
    /// Set once the records were read.
    sealer: OnceLock<Sealer>,
    /// After the connection, so that the lock is released last.
    file: RecordFile,
}

impl KeyRegistry {
    /// Opens a registry in an existing file. Blocks: it reads the whole file once to check its integrity.
    ///
    /// The file contains each key's number, team, name, fingerprint, times, restriction and keyed digest, and
    /// no key. It must be a regular file that only this user can read and write; new files are created so. It
    /// belongs to the issuer that it is first opened with. One process at a time can open it: a second one
    /// gets [`RecordError::Locked`] at once. A file that is refused is not changed by a byte.
    ///
    /// Once a method has returned, its change is on the disk, as far as the file system honours `fsync`: the
    /// file is in write-ahead mode with full synchronization, which costs one `fsync` for a new key. (A
    /// rollback journal costs several, and with the same setting can reappear after a power cut and undo a
    /// finished change.) Deleting a key overwrites it in the file and in the log beside it; the disk and the
    /// file system may keep older copies of both.
    ///
    /// Beside a file `keys.db` there is an empty `keys.db.lock`, which stays, and, while a registry has it
    /// open or after it was killed, a `keys.db-wal`, which is part of the records: **copy or move both
    /// together**, with the registry stopped. Without its log, a file may again contain keys that were
    /// deleted. If the log is removed or replaced while the records are open, every later change fails with
    /// [`RecordError::LogGone`].
    ///
    /// ```
    /// use keysheath::key::{Issuer, Kanal};
    /// use keysheath::registry::{KeyRegistry, Pepper, TeamId};
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("keys.db");
    /// # let pepper = || {
    /// #     let path = folder.path().join("pepper");
    /// #     std::fs::write(&path, "mY8Qz3vT1nW5xR7kJ2hG9fD4sA6pL0oIuYtReWqZxCv=").unwrap();
    /// #     Pepper::from_reference(&format!("file:{}", path.display()).parse().unwrap()).unwrap()
    /// # };
    /// let registry = KeyRegistry::create(Kanal::PROFILE, pepper(), &path)?;
    /// let new = registry.create_key(TeamId::new(1), "production-shop")?;
    /// drop(registry);
    ///
    /// let registry = KeyRegistry::open(Kanal::PROFILE, pepper(), &path)?;
    /// assert_eq!(registry.key(new.record().id()).unwrap().name(), "production-shop");
    /// # Ok::<(), keysheath::registry::RegistryError>(())
    /// ```
    ///
    /// # Errors
    /// [`RegistryError::Records`] if there is no such file, and then nothing is created, or if it cannot be
    /// used as it is; [`RegistryError::PepperMissing`] if there are keys under a pepper that is not given,
    /// [`RegistryError::TooManyPeppers`] for more than 16, and [`RegistryError::Weak`] for an issuer whose
    /// keys could be guessed.
    pub fn open(
        profile: &'static Profile,
        pepper: impl Into<Arc<Pepper>>,
        path: impl AsRef<Path>,
    ) -> Result<Self, RegistryError> {
        Self::of_records(profile, pepper.into(), || Sqlite::open(path.as_ref()))
    }

    /// Creates an empty registry in a new file. Blocks.
    ///
    /// It is separate from [`KeyRegistry::open`] so that a wrong path or a disk that is not mounted gives an
    /// error instead of a registry that refuses every key. To accept both, open first with a pepper in an
    /// [`Arc`], and create after [`RecordError::Missing`].
    ///
    /// # Errors
    /// [`RecordError::Exists`] if there is something at the path, an old log included, and the others as for
    /// [`KeyRegistry::open`].
    pub fn create(
        profile: &'static Profile,
        pepper: impl Into<Arc<Pepper>>,
        path: impl AsRef<Path>,
    ) -> Result<Self, RegistryError> {
        Self::of_records(profile, pepper.into(), || Sqlite::create(path.as_ref()))
    }
}

impl Sqlite {
    fn open(path: &Path) -> Result<Self, RecordError> {
        Self::connect(RecordFile::open(path)?)
    }

    fn create(path: &Path) -> Result<Self, RecordError> {
        Self::connect(RecordFile::create(path, fill)?)
    }

    fn connect(file: RecordFile) -> Result<Self, RecordError> {
        // Closing the connection plays an existing log into the file, unless this is set. A file that is
        // refused must not change, so it is set until the records have been read. (A log that does not exist
        // is created empty and removed again.)
        let connection = connection(file.path(), file.has_log()).map_err(|error| from_sqlite(&error))?;
        schema::check(&connection)?;
        file.is_in_place()?;
        Ok(Self { connection: Lock::new(connection), sealer: OnceLock::new(), file })
    }

    /// Runs one transaction, which is on the disk when this returns.
    fn write(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        let mut connection = self.connection();
        self.is_in_place(&connection)?;
        let all = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| from_sqlite(&error))?;
        change(&all)?;
        all.commit().map_err(|error| from_sqlite(&error))?;
        // A write into a file that has lost its name does not count.
        self.is_in_place(&connection)
    }

    fn is_in_place(&self, connection: &Connection) -> Result<(), RecordError> {
        let found = self.file.is_in_place();
        if found == Err(RecordError::LogGone) {
            // SQLite still has the log open, so earlier changes that are only in it can be saved.
            let _ = checkpoint(connection);
        }
        found
    }

    fn sealer(&self) -> Result<&Sealer, RecordError> {
        self.sealer.get().ok_or(RecordError::Missing)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic interrupted was rolled back.
        self.connection.lock()
    }
}

impl RecordStore for Sqlite {
    fn load(&self, profile: &'static Profile, pepper: &Arc<Pepper>) -> Result<Records, RegistryError> {
        let Content { records, sealer, is_current } = schema::read(&self.connection(), profile, pepper)?;
        let connection = self.connection();
        let mode = connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            // A copy that another tool made may be in another mode.
            .and_then(|_| {
                connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))
            })
            // The log of a copy that was not in this mode is opened by the next read.
            .and_then(|mode| connection.query_row("SELECT one FROM meta", [], |_| Ok(mode)));
        drop(connection);
        if mode.map_err(|error| from_sqlite(&error))? != "wal" {
            return Err(RecordError::from(FileProblem::ReadOnly).into());
        }
        self.file.note_log()?;
        let sealer = match sealer {
            Some(sealer) => sealer,
            None => Sealer::new(profile, pepper, new_number()?),
        };
        if !is_current {
            self.write(|all| {
                schema::claim(all, profile, &sealer, &records).map_err(|error| from_sqlite(&error))
            })?;
        }
        // A registry reads its records once.
        let _ = self.sealer.set(sealer);
        Ok(records)
    }

    fn insert(&self, key: &StoredKey) -> Result<(), RecordError> {
        let sealer = self.sealer()?;
        self.write(|all| {
            schema::write_key(all, sealer, key)?;
            // Stored separately, so that the newest key's number is not reused after that key was deleted.
            let next_serial = key.record.id.serial().checked_add(1).ok_or(RecordError::Corrupt)?;
            schema::write_next_serial(all, sealer, next_serial).map_err(|error| from_sqlite(&error))
        })
    }

    fn delete(&self, id: KeyId) -> Result<(), RecordError> {
        self.write(|all| {
            let deleted = all
                .prepare_cached("DELETE FROM keys WHERE serial = ?1")
                .and_then(|mut delete| delete.execute([id.serial()]));
            deleted.map(drop).map_err(|error| from_sqlite(&error))
        })?;
        // The log still has the row. The key is deleted in any case, so a failure here is ignored.
        let _ = checkpoint(&self.connection());
        Ok(())
    }

    fn put_store(&self, id: StoreId, store: Store) -> Result<(), RecordError> {
        let sealer = self.sealer()?;
        self.write(|all| schema::write_store(all, sealer, id, store).map_err(|error| from_sqlite(&error)))
    }

    fn write_behind(&self, changes: &[Change]) -> Result<(), RecordError> {
        let sealer = self.sealer()?;
        self.write(|all| {
            for Change { id, what } in changes {
                // A key that was deleted meanwhile has no row. An altered row fails here and is not sealed
                // again.
                let Some(mut key) = schema::read_key(all, sealer, *id)? else { continue };
                match what {
                    Changed::Used(used) => key.record.last_used = key.record.last_used.max(Some(*used)),
                    Changed::Digest(digest) => key.digest = *digest,
                }
                schema::write_key(all, sealer, &key)?;
            }
            Ok(())
        })
    }

    fn is_persistent(&self) -> bool {
        true
    }
}

/// Plays the log into the file, and empties it.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Draws the number that distinguishes this file's rows from those of every other file.
fn new_number() -> Result<[u8; NUMBER], RegistryError> {
    let mut number = [0; NUMBER];
    getrandom::fill(&mut number)
        .map_err(|error| RegistryError::NoRandomness(std::io::Error::from(error).kind()))?;
    Ok(number)
}

/// Opens an existing file exclusively, and trusts nothing in it.
fn connection(path: &Path, keep_log: bool) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep_log)?;
    // Exclusive, before anything is read: it keeps other tools out, and needs no file of shared memory.
    // Temporary tables would be in files that are not private.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; \
         PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON;",
    )?;
    Ok(connection)
}

/// Makes an empty file into empty records.
fn fill(path: &Path) -> Result<(), RecordError> {
    let made = connection(path, false).and_then(|connection| {
        // The file has no public name yet; an incomplete one is discarded.
        connection.execute_batch("PRAGMA journal_mode = MEMORY;")?;
        schema::create(&connection)?;
        connection.close().map_err(|(_, error)| error)
    });
    made.map_err(|error| from_sqlite(&error))
}

/// Converts by the code only: the text may contain a path or a value.
fn from_sqlite(error: &rusqlite::Error) -> RecordError {
    match (error.sqlite_error(), error) {
        (Some(failure), _) => from_code(*failure),
        (None, rusqlite::Error::InvalidPath(_) | rusqlite::Error::NulError(_)) => {
            FileProblem::Unreadable(ErrorKind::InvalidInput).into()
        }
        // A column that is missing, of another type, or out of range.
        (None, _) => RecordError::Corrupt,
    }
}

fn from_code(failure: ffi::Error) -> RecordError {
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => RecordError::Locked,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => RecordError::Corrupt,
        ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            FileProblem::ReadOnly.into()
        }
        ErrorCode::DiskFull => FileProblem::Full.into(),
        // A quota, a limit on the size of files, or a broken disk: SQLite does not say which.
        _ if failure.extended_code == ffi::SQLITE_IOERR_WRITE => {
            FileProblem::Unwritable(ErrorKind::Other).into()
        }
        _ => RecordError::Database { code: failure.extended_code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_disk_is_called_full() {
        let problem = |code| from_code(ffi::Error::new(code));
        assert_eq!(problem(ffi::SQLITE_FULL), FileProblem::Full.into());
        assert_eq!(problem(ffi::SQLITE_IOERR_WRITE), FileProblem::Unwritable(ErrorKind::Other).into());
    }
}
