//! The two keys of an installation, kept in the data folder when the environment brings none.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use gatepost_core::Entropy;
use gatepost_core::hashing::base64url;
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;

use crate::config::ADMIN_KEY_MIN;
use crate::failure::Failure;

/// Name of the file that holds the admin key.
pub const ADMIN_KEY: &str = "admin.key";
/// Name of the file that holds the master key.
pub const MASTER_KEY: &str = "master.key";
/// Name of the embedded store's database: where it is, there was a master key.
pub const DATABASE: &str = "gatepost.db";

/// A key from a file.
pub struct Kept<T> {
    /// The key.
    pub key: T,
    /// Whether it was made just now.
    pub made: bool,
}

/// Makes the data folder, readable for its owner only, unless it is there.
///
/// # Errors
/// It cannot be made.
pub fn make_folder(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| {
        anyhow!("the data folder {} cannot be made ({error}); choose another with --data-dir", folder.display())
    })
}

/// The master key of the data folder, made if the folder is new.
///
/// A folder with a database but without its master key is refused: a new key could not open what is
/// in it.
///
/// # Errors
/// The file is missing, unreadable or no key.
pub fn master_key(folder: &Path, entropy: &dyn Entropy) -> Result<Kept<Key>> {
    let path = folder.join(MASTER_KEY);
    if !path.exists() && folder.join(DATABASE).exists() {
        bail!(
            "{} has a database but no {MASTER_KEY}: put that file back, or set GATEPOST_MASTER_KEY to its key",
            folder.display()
        );
    }
    let kept = keep(&path, || Secret::new(Key::generate(entropy).to_base64().as_str()))?;
    let key = Key::from_base64(kept.key.expose())
        .with_context(|| format!("{} holds no master key: put the right file back", path.display()))?;
    Ok(Kept { key, made: kept.made })
}

/// The admin key of the data folder, made if there is none.
///
/// # Errors
/// The file is unreadable or empty.
pub fn admin_key(folder: &Path, entropy: &dyn Entropy) -> Result<Kept<Secret>> {
    let path = folder.join(ADMIN_KEY);
    let kept = keep(&path, || new_admin_key(entropy))?;
    if kept.key.expose().is_empty() || !kept.key.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{} holds no key: remove it, and the next start makes a new one", path.display());
    }
    if kept.key.expose().len() < ADMIN_KEY_MIN {
        let path = path.display();
        let text = format!(
            "the admin key in {path} must have at least {ADMIN_KEY_MIN} characters: \
                            \"gatepost keys rotate-admin\" makes another"
        );
        return Err(Failure::usage(text).into());
    }
    Ok(kept)
}

fn new_admin_key(entropy: &dyn Entropy) -> Secret {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    Secret::new(format!("gp_{}", base64url(&bytes)))
}

/// Puts a new admin key in the place of the one in the data folder, and answers its file. Whole or not at all.
///
/// # Errors
/// There is no data folder, or it cannot be written.
pub fn renew_admin_key(folder: &Path, entropy: &dyn Entropy) -> Result<PathBuf> {
    if !folder.is_dir() {
        bail!("there is no data folder {}; name it with --data-dir", folder.display());
    }
    let path = folder.join(ADMIN_KEY);
    let draft = draft_of(&path);
    let _ = fs::remove_file(&draft);
    let written = write_private(&draft, new_admin_key(entropy).expose()).and_then(|()| fs::rename(&draft, &path));
    let written = written.and_then(|()| sync_folder(&path));
    written
        .inspect_err(|_| drop(fs::remove_file(&draft)))
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path)
}

/// The admin key of a data folder, if this user can read it: for commands on the server's machine.
pub fn read_admin_key(folder: &Path) -> Option<Secret> {
    let text = fs::read_to_string(folder.join(ADMIN_KEY)).ok()?;
    Some(Secret::new(text.trim())).filter(|key| !key.expose().is_empty())
}

/// The master key in a file, if there is one that can be read.
pub fn read_master_key(path: &Path) -> Option<Key> {
    let text = Secret::new(fs::read_to_string(path).ok()?);
    Key::from_base64(text.expose()).ok()
}

/// The text in the file `path`, or what `make` gives, written there.
fn keep(path: &Path, make: impl FnOnce() -> Secret) -> Result<Kept<Secret>> {
    if !path.exists() {
        let fresh = make();
        let placed = place(path, fresh.expose());
        if placed.with_context(|| format!("{} cannot be written", path.display()))? {
            return Ok(Kept { key: fresh, made: true });
        }
    }
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    warn_if_open(path);
    Ok(Kept { key: Secret::new(text.trim()), made: false })
}

/// Writes a new file whole or not at all, and never over another one: a key half written would lock
/// its owner out, a key overwritten for good. Answers whether it was us who made it.
///
/// What could not be flushed is taken back: it could be read until the machine starts anew, and whoever
/// reads a key relies on it.
///
/// # Errors
/// As the system gives them.
pub fn place(path: &Path, text: &str) -> io::Result<bool> {
    let draft = draft_of(path);
    let _ = fs::remove_file(&draft);
    let placed = write_private(&draft, text).and_then(|()| name(&draft, path));
    let removed = match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let placed = placed?;
    removed.and_then(|()| sync_folder(path)).inspect_err(|_| {
        if placed {
            let _ = fs::remove_file(path);
        }
    })?;
    Ok(placed)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Gives what is in `draft` the name `path`, unless that is taken: whether it was not.
fn name(draft: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(draft, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // A file system without links. Two first starts at once would be needed for harm.
        Err(_) => {
            let copied = fs::copy(draft, path).and_then(|_| File::open(path)?.sync_all());
            copied.map(|()| true).inspect_err(|_| {
                let _ = fs::remove_file(path);
            })
        }
    }
}

/// Brings the folder of the file `path` to disk: a file that was made or renamed is there for good only then.
///
/// # Errors
/// As the system gives them.
#[cfg(unix)]
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file; the system writes it by itself.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Removes what interrupted writings of the master key left in a folder: each holds a key. For whoever holds
/// the folder's lock.
pub fn sweep_drafts(folder: &Path) {
    let begin = format!(".{MASTER_KEY}");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&begin) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Where a file is written before it gets its name.
pub fn draft_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

#[cfg(unix)]
fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(meta) = fs::metadata(path) else { return };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            file = %path.display(),
            mode = format!("{mode:o}"),
            "others on this machine can read a key file; run: chmod 600 {}",
            path.display()
        );
    }
}

#[cfg(not(unix))]
fn warn_if_open(_: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;
    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    #[test]
    fn keys_are_made_once_and_kept_private() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("data");
        make_folder(&folder).unwrap();
        let first = admin_key(&folder, &Fixed).unwrap();
        let again = admin_key(&folder, &Fixed).unwrap();
        assert_eq!((first.made, again.made), (true, false));
        assert!(first.key == again.key && first.key.expose().starts_with("gp_"));
        assert_eq!(read_admin_key(&folder), Some(first.key.clone()));
        assert!(renew_admin_key(&folder, &gatepost_engine::SystemEntropy).unwrap().ends_with(ADMIN_KEY));
        let renewed = admin_key(&folder, &Fixed).unwrap();
        assert!(!renewed.made && renewed.key != first.key && renewed.key.expose().len() >= ADMIN_KEY_MIN);
        assert!(renew_admin_key(&folder.join("none"), &gatepost_engine::SystemEntropy).is_err());
        fs::write(folder.join(ADMIN_KEY), "short-key\n").unwrap();
        let short = admin_key(&folder, &Fixed).err().map(Failure::from).unwrap();
        assert!(short.code() == 2 && short.to_string().contains("rotate-admin"), "{short}");
        let master = master_key(&folder, &Fixed).unwrap();
        assert!(master.made);
        assert_eq!(master_key(&folder, &Fixed).unwrap().key.fingerprint(), master.key.fingerprint());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&folder), 0o700);
            assert_eq!((mode(&folder.join(ADMIN_KEY)), mode(&folder.join(MASTER_KEY))), (0o600, 0o600));
        }
        let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_database_without_its_master_key_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(DATABASE), b"x").unwrap();
        let error = master_key(temp.path(), &Fixed).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("GATEPOST_MASTER_KEY"), "{error}");
        assert!(!temp.path().join(MASTER_KEY).exists());
    }

    #[test]
    fn a_damaged_key_file_is_named() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(ADMIN_KEY), b"\n").unwrap();
        fs::write(temp.path().join(MASTER_KEY), b"short\n").unwrap();
        let admin = admin_key(temp.path(), &Fixed).err().map(|error| error.to_string()).unwrap_or_default();
        let master = master_key(temp.path(), &Fixed).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(admin.contains(ADMIN_KEY) && master.contains(MASTER_KEY), "{admin} {master}");
        assert_eq!(read_admin_key(temp.path()), None);
    }
}
