//! Backups as files: a tar archive of a manifest, the keys if wanted, and the database.
//!
//! Any tar program can look into one. The manifest comes first, so that what is wrong with a backup is
//! known before anything of it is written anywhere; the database comes last, because it is long.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use gatepost_core::hashing::{Sha256, hex};
use gatepost_core::secret::Secret;
use serde::{Deserialize, Serialize};

use crate::keyfiles;

const MANIFEST: &str = "manifest.json";
const DATABASE: &str = "gatepost.db";
/// The only form of archive there is so far.
const FORMAT: u32 = 1;
/// Bytes of a manifest or a key: far more than they have.
const SMALL: u64 = 64 << 10;
const CHUNK: usize = 256 << 10;

/// What a backup says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The archive's form.
    pub format: u32,
    /// The version of Gatepost that made it.
    pub gatepost: String,
    /// When, RFC 3339.
    pub made_at: String,
    /// The version of the database's schema.
    pub schema: i64,
    /// The database's size.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// The fingerprint of the master key that opens it, hexadecimal; `None`: any will do.
    pub master_key: Option<String>,
    /// Whether the keys are in it.
    pub with_keys: bool,
}

impl Manifest {
    /// Of the database file `database`, made at `made_at`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(database: &Path, schema: i64, fingerprint: Option<&[u8]>, made_at: String) -> Result<Manifest> {
        let mut hash = Sha256::new();
        let file = File::open(database).with_context(|| format!("{} cannot be read", database.display()))?;
        let bytes = each_chunk(file, |chunk| {
            hash.update(chunk);
            Ok(())
        })?;
        Ok(Manifest {
            format: FORMAT,
            gatepost: env!("CARGO_PKG_VERSION").to_owned(),
            made_at,
            schema,
            bytes,
            sha256: hex(&hash.finish()),
            master_key: fingerprint.map(hex),
            with_keys: false,
        })
    }
}

/// Keys that go into, or come out of, an archive, by file name.
pub type Keys = Vec<(&'static str, Secret)>;

/// Writes an archive to the new file `path`, private to its owner, whole or not at all.
///
/// # Errors
/// The file is there already, or something cannot be read or written.
pub fn write(path: &Path, manifest: &Manifest, keys: &Keys, database: &Path) -> Result<()> {
    let draft = keyfiles::draft_of(path);
    let _ = fs::remove_file(&draft);
    let written = write_draft(&draft, manifest, keys, database)
        // A link, not a rename: it never replaces a file.
        .and_then(|()| match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!("{} is there already", path.display()),
            Ok(()) => Ok(()),
            Err(_) => Ok(fs::rename(&draft, path)?),
        })
        .and_then(|()| {
            // A backup that may be gone after the next start of the machine is none.
            Ok(keyfiles::sync_folder(path).inspect_err(|_| drop(fs::remove_file(path)))?)
        });
    let _ = fs::remove_file(&draft);
    written.with_context(|| format!("the backup {} cannot be written", path.display()))
}

fn write_draft(draft: &Path, manifest: &Manifest, keys: &Keys, database: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut tar = tar::Builder::new(BufWriter::with_capacity(CHUNK, options.open(draft)?));
    let mut text = serde_json::to_string_pretty(manifest)?;
    text.push('\n');
    add(&mut tar, MANIFEST, text.len() as u64, text.as_bytes())?;
    for (name, key) in keys {
        let text = format!("{}\n", key.expose());
        add(&mut tar, name, text.len() as u64, text.as_bytes())?;
    }
    add(&mut tar, DATABASE, manifest.bytes, File::open(database)?)?;
    let file = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(file.sync_all()?)
}

fn add(tar: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    tar.append_data(&mut header, name, content)
}

/// What of an archive comes before the database.
pub struct Head {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The keys in it.
    pub keys: Keys,
}

/// Reads an archive from its beginning to its end: `place` hears what comes before the database and answers
/// the file that is to get it; what is written there is compared with the manifest and brought to disk.
///
/// # Errors
/// It cannot be read, is no backup, of a newer form, damaged or cut off; `place` refuses; the file cannot
/// be written.
pub fn read(path: &Path, place: impl FnOnce(&Head) -> Result<File>) -> Result<Head> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("{name} cannot be read"))?;
    let none = || anyhow!("{name} is no backup made by `gatepost backup`");
    let mut tar = tar::Archive::new(BufReader::with_capacity(CHUNK, file));
    let mut head: Option<Head> = None;
    for entry in tar.entries().map_err(|_| none())? {
        let begun = head.is_some();
        let mut entry = entry.map_err(|error| if begun { anyhow!("{name} is damaged: {error}") } else { none() })?;
        let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        match (head.take(), found.as_str()) {
            (None, MANIFEST) => {
                let manifest = small(&mut entry).and_then(|text| Ok(serde_json::from_str::<Manifest>(&text)?));
                let manifest = manifest.with_context(|| format!("{name}: {MANIFEST} is damaged"))?;
                if manifest.format != FORMAT {
                    let (form, version) = (manifest.format, manifest.gatepost);
                    bail!("{name} has form {form}, this version reads {FORMAT}: it was made by Gatepost {version}");
                }
                head = Some(Head { manifest, keys: Vec::new() });
            }
            (None, _) => return Err(none()),
            (Some(head), DATABASE) => {
                let target = place(&head)?;
                database(entry, &head.manifest, target).with_context(|| format!("reading {name}"))?;
                return Ok(head);
            }
            (Some(mut known), found) => {
                let key = [keyfiles::MASTER_KEY, keyfiles::ADMIN_KEY].into_iter().find(|key| *key == found);
                let key = key.ok_or_else(|| anyhow!("{name} holds {found:?}, which no backup does"))?;
                let text = small(&mut entry).with_context(|| format!("{name}: {found} is damaged"))?;
                known.keys.push((key, Secret::new(text.trim())));
                head = Some(known);
            }
        }
    }
    if head.is_none() { Err(none()) } else { bail!("{name} is cut off before its database") }
}

fn small(entry: &mut impl Read) -> Result<String> {
    let mut text = String::new();
    entry.take(SMALL).read_to_string(&mut text)?;
    Ok(text)
}

fn database(entry: impl Read, manifest: &Manifest, mut target: File) -> Result<()> {
    let mut hash = Sha256::new();
    let bytes = each_chunk(entry, |chunk| {
        hash.update(chunk);
        target.write_all(chunk).context("the database cannot be written")
    })?;
    if bytes != manifest.bytes || hex(&hash.finish()) != manifest.sha256 {
        bail!("the backup is damaged: the database in it is not the one that was backed up (checksum)");
    }
    target.sync_all().context("the database cannot be written")
}

/// Calls `take` with each piece of `from`; answers how many bytes there were.
fn each_chunk(mut from: impl Read, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(n) => {
                take(&buffer[..n])?;
                bytes += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(folder: &Path, content: &[u8]) -> (std::path::PathBuf, Manifest) {
        let (database, path) = (folder.join("db"), folder.join("x.backup"));
        fs::write(&database, content).unwrap();
        let manifest = Manifest {
            with_keys: true,
            ..Manifest::of(&database, 3, Some(&[0xab; 16]), "2026-01-01T00:00:00Z".into()).unwrap()
        };
        write(&path, &manifest, &vec![(keyfiles::MASTER_KEY, Secret::new("k1"))], &database).unwrap();
        (path, manifest)
    }

    fn read(path: &Path, to: &Path) -> Result<Head> {
        super::read(path, |_| Ok(File::create(to)?))
    }

    #[test]
    fn an_archive_gives_back_what_went_in() {
        let temp = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..700_000_u32).map(|n| n as u8).collect();
        let (path, manifest) = archive(temp.path(), &content);
        let head = read(&path, &temp.path().join("out")).unwrap();
        assert_eq!(head.manifest, manifest);
        assert_eq!(manifest.master_key.as_deref(), Some("abababababababababababababababab"));
        assert_eq!(head.keys, vec![(keyfiles::MASTER_KEY, Secret::new("k1"))]);
        assert_eq!(fs::read(temp.path().join("out")).unwrap(), content);
        // Never over another file, and nothing is left behind.
        assert!(
            write(&path, &manifest, &Vec::new(), &temp.path().join("db")).unwrap_err().to_string().contains("x.backup")
        );
        let names = fs::read_dir(temp.path()).unwrap().count();
        assert_eq!(names, 3);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_damaged_or_no_backup_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let (path, _) = archive(temp.path(), &[7; 300_000]);
        let whole = fs::read(&path).unwrap();
        let to = temp.path().join("out");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read(&path, &to).err().map(|error| format!("{error:#}")).unwrap_or_default()
        };
        for at in [600, 1_024, whole.len() / 2, whole.len() - 3_000] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            assert_ne!(refused(&damaged), "", "a bit at {at}");
        }
        for len in [0, 100, 512, 1_024, 5_000, whole.len() / 2] {
            assert_ne!(refused(&whole[..len]), "", "{len} bytes of it");
        }
        assert!(refused(b"SQLite format 3\0 and so on").contains("no backup"));
        assert_eq!(refused(&whole), "");
    }
}
