//! Power cuts: what is done to files is recorded, and every state that a cut could leave is looked at.
//!
//! What was written to a file and not synced may be there, in part, or not at all; of what was made, renamed
//! and removed in a folder and not synced, any selection may be there. A name leads to the file that it was
//! given to.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{Disk, Lasting, put};
use crate::internal::files::private::{NEW, with_end};
use crate::source::Provenance;
use crate::store::{
    Document, DocumentContent, DocumentError, DocumentStore, MAX_DOCUMENT, Version, document,
};

/// A step. Files are numbered as they are made.
#[derive(Clone, Debug)]
enum Step {
    Create(usize, PathBuf),
    Write(usize, Vec<u8>),
    Sync(usize),
    Rename(usize, PathBuf, PathBuf),
    Remove(PathBuf),
    SyncFolder,
    /// A write or a read of the store has returned the document with this number.
    Returned(u64),
}

#[derive(Default)]
struct Recording {
    steps: Mutex<Vec<Step>>,
    names: Mutex<HashMap<PathBuf, usize>>,
    count: Mutex<usize>,
}

impl Recording {
    fn note(&self, step: Step) {
        self.steps.lock().unwrap().push(step);
    }
}

impl Disk for Recording {
    type File = usize;

    fn create(&self, path: &Path) -> io::Result<usize> {
        let number = *self.count.lock().unwrap();
        *self.count.lock().unwrap() += 1;
        assert!(self.names.lock().unwrap().insert(path.into(), number).is_none(), "it must not be there");
        self.note(Step::Create(number, path.into()));
        Ok(number)
    }

    fn write(&self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        self.note(Step::Write(*file, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        self.note(Step::Sync(*file));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let number = self.names.lock().unwrap().remove(from).ok_or(ErrorKind::NotFound)?;
        self.names.lock().unwrap().insert(to.into(), number);
        self.note(Step::Rename(number, from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.names.lock().unwrap().remove(path).ok_or(ErrorKind::NotFound)?;
        self.note(Step::Remove(path.into()));
        Ok(())
    }

    fn remove_left_over(&self, path: &Path) -> io::Result<bool> {
        let is_there = self.names.lock().unwrap().contains_key(path);
        if is_there { self.remove(path).map(|()| true) } else { Ok(true) }
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.note(Step::SyncFolder);
        Ok(())
    }
}

/// What is in a folder and what is in its files, as far as it lasts, and what may be lost.
#[derive(Default)]
struct Platter {
    synced: HashMap<usize, Vec<u8>>,
    written: HashMap<usize, Vec<u8>>,
    names: HashMap<PathBuf, usize>,
    pending: Vec<Step>,
    returned: u64,
}

impl Platter {
    fn after(steps: &[Step]) -> Self {
        let mut platter = Self::default();
        for step in steps {
            match step {
                Step::Write(file, bytes) => platter.written.entry(*file).or_default().extend(bytes),
                Step::Sync(file) => {
                    let bytes = platter.written.get(file).cloned().unwrap_or_default();
                    platter.synced.insert(*file, bytes);
                }
                Step::SyncFolder => {
                    let pending = std::mem::take(&mut platter.pending);
                    apply(&mut platter.names, &pending, usize::MAX);
                }
                Step::Returned(number) => platter.returned = *number,
                step => platter.pending.push(step.clone()),
            }
        }
        platter
    }

    /// Whether some cut now loses the document: what is found then is neither what a write has returned nor
    /// what is being written.
    fn loses(&self, path: &Path) -> bool {
        self.after_each_cut(path).into_iter().any(|found| match found {
            None => self.returned > 0,
            Some(document) => document.map_or(true, |document| {
                let (number, _) = document.version().parts();
                number < self.returned || number > self.returned + 1
            }),
        })
    }

    /// What each cut now could leave at a path.
    fn after_each_cut(&self, path: &Path) -> Vec<Option<Result<Document, DocumentError>>> {
        let mut found = Vec::new();
        for selection in 0..1 << self.pending.len() {
            let mut names = self.names.clone();
            apply(&mut names, &self.pending, selection);
            match names.get(path) {
                None => found.push(None),
                Some(file) => {
                    let contents = self.contents(*file).into_iter();
                    found.extend(contents.map(|bytes| Some(document::open(bytes.into()))));
                }
            }
        }
        found
    }

    /// What a file may hold after a cut.
    fn contents(&self, file: usize) -> Vec<Vec<u8>> {
        let written = self.written.get(&file).cloned().unwrap_or_default();
        let kept = self.synced.get(&file).cloned().unwrap_or_default();
        let half = written[..kept.len().midpoint(written.len())].to_vec();
        vec![kept, half, written]
    }
}

fn apply(names: &mut HashMap<PathBuf, usize>, steps: &[Step], selection: usize) {
    for (_, step) in steps.iter().enumerate().filter(|(at, _)| selection >> at & 1 == 1) {
        match step {
            Step::Create(file, path) => drop(names.insert(path.clone(), *file)),
            Step::Rename(file, from, to) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Step::Remove(path) => drop(names.remove(path)),
            other => panic!("{other:?} is not done to a folder"),
        }
    }
}

/// A store whose steps are recorded, so that a test of what stands on it can cut the power anywhere.
#[derive(Default)]
pub(crate) struct RecordedStore {
    disk: Recording,
    there: Mutex<Option<Document>>,
    lasting: Lasting<Version>,
}

impl RecordedStore {
    const PATH: &str = "/folder/document";

    /// Gives, for each cut at each instant, the number of the last write that had returned, and the document
    /// that is found. A cut that leaves no whole document is a panic, where a write had returned.
    pub(crate) fn for_each_cut(&self, mut look: impl FnMut(u64, &Document)) {
        let steps = self.disk.steps.lock().unwrap();
        for end in 0..=steps.len() {
            let platter = Platter::after(&steps[..end]);
            for found in platter.after_each_cut(Path::new(Self::PATH)) {
                match found {
                    Some(Ok(document)) => look(platter.returned, &document),
                    _ => assert_eq!(platter.returned, 0, "the document is lost at step {end}"),
                }
            }
        }
    }
}

impl DocumentStore for RecordedStore {
    fn provenance(&self) -> Provenance {
        Provenance::File { path: RecordedStore::PATH.into() }
    }

    fn limit(&self) -> usize {
        MAX_DOCUMENT
    }

    fn read(&self) -> Result<Option<Document>, DocumentError> {
        let there = self.there.lock().unwrap().clone();
        if let Some(document) = &there {
            self.lasting.make(&self.disk, Path::new(RecordedStore::PATH), *document.version())?;
        }
        Ok(there)
    }

    fn write(
        &self,
        content: &DocumentContent,
        unchanged: Option<&Version>,
    ) -> Result<Version, DocumentError> {
        let mut there = self.there.lock().unwrap();
        let version = Version::next(there.as_ref().map(Document::version), unchanged)?;
        let header = document::header(&version, content);
        put(&self.disk, Path::new(RecordedStore::PATH), &[&header, content.expose_secret()])?;
        self.disk.note(Step::Returned(version.parts().0));
        *there = Some(Document::new(content.clone(), version));
        Ok(version)
    }
}

/// The first prefix after which a cut loses the document.
fn first_loss(steps: &[Step], path: &Path) -> Option<usize> {
    (0..=steps.len()).find(|&end| Platter::after(&steps[..end]).loses(path))
}

/// What four writes do, the first of them beside what a killed writer has left.
fn recorded(path: &Path) -> Vec<Step> {
    let disk = Recording::default();
    disk.create(&with_end(path, NEW)).unwrap();
    for number in 1..=4 {
        let content = DocumentContent::from(format!("content number {number}").into_bytes());
        let header = document::header(&Version::new(number, 5), &content);
        put(&disk, path, &[&header, content.expose_secret()]).unwrap();
        disk.note(Step::Returned(number));
    }
    disk.steps.into_inner().unwrap()
}

#[test]
fn a_power_cut_leaves_the_last_written_document_or_the_next() {
    let path = Path::new("/folder/document");
    let steps = recorded(path);
    assert_eq!(first_loss(&steps, path), None, "{steps:?}");
}

#[test]
fn omitting_any_sync_would_lose_a_document_in_a_power_cut() {
    let path = Path::new("/folder/document");
    let steps = recorded(path);
    let syncs = |step: &Step| matches!(step, Step::Sync(_) | Step::SyncFolder);
    let mut taken_out = 0;
    for at in (0..steps.len()).filter(|&at| syncs(&steps[at])) {
        let mut fewer = steps.clone();
        fewer.remove(at);
        assert!(first_loss(&fewer, path).is_some(), "step {at} is not needed: {steps:?}");
        taken_out += 1;
    }
    assert_eq!(taken_out, 8, "two for each write");
}

#[test]
fn what_was_read_after_its_writer_was_killed_lasts() {
    let path = Path::new("/folder/document");
    let mut killed = recorded(path);
    let renamed = killed.iter().rposition(|step| matches!(step, Step::Rename(..))).unwrap();
    killed.truncate(renamed + 1);
    let read = Recording::default();
    let without = [&killed[..], &[Step::Returned(4)]].concat();
    assert!(first_loss(&without, path).is_some(), "a reader that syncs nothing may see what is lost");
    Lasting::default().make(&read, path, 4).unwrap();
    let with = [killed, read.steps.into_inner().unwrap(), vec![Step::Returned(4)]].concat();
    assert_eq!(first_loss(&with, path), None);
}

#[test]
fn a_name_is_made_last_once_for_each_document() {
    let path = Path::new("/folder/document");
    let killed = recorded(path);
    let renames: Vec<_> = (0..killed.len()).filter(|&at| matches!(killed[at], Step::Rename(..))).collect();
    let (lasting, disk) = (Lasting::default(), Recording::default());
    let mut steps = killed[..=renames[2]].to_vec();
    let look = |number: u64, steps: &mut Vec<Step>| {
        lasting.make(&disk, path, number).unwrap();
        let mut done = std::mem::take(&mut *disk.steps.lock().unwrap());
        let syncs = done.len();
        steps.append(&mut done);
        steps.push(Step::Returned(number));
        syncs
    };
    assert_eq!([(); 3].map(|()| look(3, &mut steps)), [1, 0, 0]);
    // The next writer is killed after its renaming.
    steps.extend_from_slice(&killed[renames[2] + 3..=renames[3]]);
    let before = steps.len();
    assert_eq!([(); 3].map(|()| look(4, &mut steps)), [1, 0, 0]);
    assert_eq!(first_loss(&steps, path), None, "{steps:?}");
    steps.remove(before);
    assert!(first_loss(&steps, path).is_some(), "that sync is needed");
}
