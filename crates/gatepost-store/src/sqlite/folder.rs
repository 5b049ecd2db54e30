//! The data folder: made private, and used by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Result, StoreError};

/// Name of the database in the folder.
pub(super) const DATABASE: &str = "gatepost.db";
/// Name of the file whose lock says that the folder is in use.
pub(super) const LOCK: &str = "gatepost.lock";

/// A folder that is ours until this is dropped (or the process ends, however it does).
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
    /// Folders that were not there before, the outermost first.
    made: Vec<PathBuf>,
    /// Whether the lock's file was not there before.
    made_lock: bool,
}

impl Folder {
    /// Makes the folder if needed (mode 0700) and locks it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be made, or another process holds it.
    pub(super) fn claim(path: &Path) -> Result<Self> {
        let failed = |what: &str, e: io::Error| {
            StoreError::Unavailable(format!("the data folder {} cannot be {what}: {e}", path.display()))
        };
        let mut made = Vec::new();
        create(path, &mut made).map_err(|e| failed("made", e))?;
        let made_lock = !path.join(LOCK).exists();
        let lock = private(OpenOptions::new().create(true).truncate(false).write(true))
            .open(path.join(LOCK))
            .map_err(|e| failed("locked", e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: lock, made, made_lock }),
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::Unavailable(format!("the data folder {} is in use by another process", path.display())))
            }
            Err(TryLockError::Error(e)) => Err(failed("locked", e)),
        }
    }

    /// Gives the folder back as it was found, as far as it is empty again.
    pub(super) fn undo(self) {
        if self.made_lock {
            let _ = fs::remove_file(self.path.join(LOCK));
        }
        for folder in self.made.iter().rev() {
            // One that something is in stays.
            let _ = fs::remove_dir(folder);
        }
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database is. Made empty with mode 0600 if it is not there: SQLite gives its log the
    /// mode of the database.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be made.
    pub(super) fn database(&self) -> Result<PathBuf> {
        let path = self.path.join(DATABASE);
        private(OpenOptions::new().create(true).truncate(false).write(true))
            .open(&path)
            .map_err(|e| StoreError::Unavailable(format!("{}: {e}", path.display())))?;
        self.sync()?;
        Ok(path)
    }

    /// Brings the names in the folder to disk.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] as the system gives it.
    pub(super) fn sync(&self) -> Result<()> {
        sync_folder(&self.path).map_err(|e| StoreError::Unavailable(format!("{}: {e}", self.path.display())))
    }

    /// Bytes of the database and its log.
    pub(super) fn bytes(&self) -> u64 {
        let size = |name: &str| fs::metadata(self.path.join(name)).map_or(0, |meta| meta.len());
        size(DATABASE) + size(&format!("{DATABASE}-wal"))
    }
}

/// Makes a folder and those above it; those that were not there before are added to `made`.
fn create(path: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = above {
        create(parent, made)?;
    }
    made.push(path.to_owned());
    let mut builder = DirBuilder::new();
    // Somebody else may have made it just now.
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    // A folder is on disk once the one above it is.
    sync_folder(above.unwrap_or(Path::new(".")))
}

#[cfg(unix)]
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file; the system writes it by itself.
#[cfg(not(unix))]
pub(super) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_and_held_by_one() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("deep/er");
        let held = Folder::claim(&path).unwrap();
        let error = Folder::claim(&path).unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("in use")), "{error}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(&held.database().unwrap())), (0o700, 0o600));
        }
        drop(held);
        Folder::claim(&path).unwrap();
    }
}
