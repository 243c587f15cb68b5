//! Reading several words that belong together without a lock, while one thread at a time changes them.

use super::sync::{
    AtomicU64, Ordering, RETRIES, RwLock, RwLockReadGuard, RwLockWriteGuard, fence, pause, recover,
};

/// A version number, which is odd during a change, and what only those who hold its lock may see.
///
/// A reader takes the words while the version is even, and keeps them only if it is the same afterwards. It
/// writes nothing, so readers on several processors do not slow each other down.
///
/// The words must be atomic, and a reader must cope with any mixture of old and new ones. They are ordered by
/// the fences here; each of them can be read and written with [`Ordering::Relaxed`].
pub(super) struct Versioned<T> {
    version: AtomicU64,
    locked: RwLock<T>,
}

/// The right to change the words.
pub(super) struct Writer<'a, T> {
    version: &'a AtomicU64,
    locked: RwLockWriteGuard<'a, T>,
}

impl<T> Versioned<T> {
    pub(super) fn new(locked: T) -> Self {
        Self { version: AtomicU64::new(0), locked: RwLock::new(locked) }
    }

    /// Reads words that belong to one version. `look` may be called several times, and what it returns for a
    /// mixture of versions is discarded.
    #[inline]
    pub(super) fn read<R>(&self, look: impl Fn() -> R) -> R {
        for _ in 0..RETRIES {
            if let Some(seen) = self.try_read(&look) {
                return seen;
            }
            pause();
        }
        self.read_locked(look)
    }

    #[inline]
    fn try_read<R>(&self, look: impl Fn() -> R) -> Option<R> {
        let before = self.version.load(Ordering::Acquire);
        if before % 2 == 1 {
            return None;
        }
        let seen = look();
        // If `look` saw a word of a later change, the version of that change is seen here.
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == before).then_some(seen)
    }

    #[cold]
    fn read_locked<R>(&self, look: impl Fn() -> R) -> R {
        let _locked = self.lock();
        look()
    }

    /// Waits for the writer. Nothing changes while this is held.
    pub(super) fn lock(&self) -> RwLockReadGuard<'_, T> {
        recover(self.locked.read())
    }

    /// Waits for the writer and for those who hold the lock; not for readers without it.
    pub(super) fn write(&self) -> Writer<'_, T> {
        Writer { locked: recover(self.locked.write()), version: &self.version }
    }
}

impl<T> Writer<'_, T> {
    /// What the lock protects.
    pub(super) fn locked(&mut self) -> &mut T {
        &mut self.locked
    }

    /// Changes the words, as one change for readers. It should be short: readers wait for it.
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let change_number = Changing::begin(self.version);
        let result = change(&mut self.locked);
        drop(change_number);
        result
    }
}

/// Makes the version even again, also after a panic.
struct Changing<'a> {
    version: &'a AtomicU64,
    after: u64,
}

impl<'a> Changing<'a> {
    fn begin(version: &'a AtomicU64) -> Self {
        let before = version.load(Ordering::Relaxed);
        version.store(before.wrapping_add(1), Ordering::Relaxed);
        // A reader that sees a word written after this also sees the odd version.
        fence(Ordering::Release);
        Self { version, after: before.wrapping_add(2) }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.version.store(self.after, Ordering::Release);
    }
}
