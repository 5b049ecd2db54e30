//! `gatepost restore`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_engine::master;
use gatepost_store::sqlite::backup::{self, Placing};
use serde_json::json;

use super::{Context, print};
use crate::archive::{self, Head};
use crate::config::{Flags, Settings};
use crate::failure::{Failure, Outcome};
use crate::keyfiles;

const EXAMPLES: &str = "\
Examples:
  gatepost restore gatepost.backup --data-dir ./restored --master-key-file master.key
  GATEPOST_MASTER_KEY=… gatepost restore gatepost.backup --data-dir /var/lib/gatepost
  gatepost restore all.backup --data-dir ./restored         (made with --with-keys)

The folder must be empty, its key files apart. What was pending when the backup
was made is delivered again after the start, also what was delivered since:
receivers know it by the same ids.";

/// Make a data folder from a backup
///
/// Nothing is there until everything is: the backup's checksum is right and the master key opens it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    /// The backup
    file: PathBuf,
    /// The folder to make, or an empty one [env: GATEPOST_DATA_DIR] [default: ./gatepost-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// A file with the master key; else GATEPOST_MASTER_KEY, else the one in the folder, else the one in
    /// the backup
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A master key and where it came from.
struct Found {
    key: Key,
    origin: String,
    /// Whether it is to be put in the folder.
    keep: bool,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let flags = Flags { data_dir: self.data_dir.clone(), ..Flags::default() };
        let settings = Settings::load(&flags, context.config.as_deref())?;
        settings.check_supported()?;
        let restored = tokio::task::spawn_blocking(move || self.restore(&settings).map_err(Failure::from)).await;
        restored.map_err(|error| Failure::failed(format!("restoring broke off: {error}")))??;
        Ok(())
    }

    fn restore(&self, settings: &Settings) -> anyhow::Result<()> {
        let folder = &settings.data_dir.value;
        check_empty(folder)?;
        // Before anything is made: a file that is no backup leaves no folder behind. What was made when it
        // fails later goes with `placing` and `keys`: of a restore that failed nothing stays that could be
        // taken for a store.
        let mut placing = None;
        let head = archive::read(&self.file, |head| {
            check_key(&self.master_key(settings, head)?, head)?;
            let begun = placing.insert(Placing::begin(folder)?);
            begun.create_draft().with_context(|| format!("{} cannot be written", folder.display()))
        })?;
        // Should finishing fail, the keys go first, or the folder would not be empty.
        let mut placing = placing.ok_or_else(|| anyhow!("{} has no database", self.file.display()))?;
        let keys = self.place_keys(settings, &head, &placing)?;
        placing.finish()?;
        keys.stay();
        self.tell(folder, &head)?;
        Ok(())
    }

    /// The keys are put in place first: a store without its master key would not start.
    fn place_keys(&self, settings: &Settings, head: &Head, placing: &Placing) -> anyhow::Result<NewFiles> {
        let folder = &settings.data_dir.value;
        let seen = backup::peek(&placing.draft(), &master::META)?;
        let found = self.master_key(settings, head)?;
        let meta = [seen.meta[0].as_deref(), seen.meta[1].as_deref()];
        if let Some(found) = &found {
            master::check(meta, &found.key).with_context(|| found.origin.clone())?;
        }
        let mut keys = NewFiles::default();
        if let Some(found) = found.filter(|found| found.keep) {
            keys.put(folder, keyfiles::MASTER_KEY, &Secret::new(found.key.to_base64().as_str()))?;
        }
        let admin = head.keys.iter().find(|(name, _)| *name == keyfiles::ADMIN_KEY);
        if let Some((name, key)) = admin.filter(|_| settings.admin_key.value.is_none()) {
            keys.put(folder, name, key)?;
        }
        Ok(keys)
    }

    /// The master key there is, the nearest first.
    fn master_key(&self, settings: &Settings, head: &Head) -> anyhow::Result<Option<Found>> {
        if let Some(path) = &self.master_key_file {
            let key = keyfiles::read_master_key(path)
                .ok_or_else(|| Failure::usage(format!("{} holds no master key", path.display())))?;
            return Ok(Some(Found { key, origin: path.display().to_string(), keep: true }));
        }
        if let Some(key) = &settings.master_key.value {
            let origin = format!("the setting master_key ({})", settings.master_key.origin);
            return Ok(Some(Found { key: key.clone(), origin, keep: false }));
        }
        let own = settings.data_dir.value.join(keyfiles::MASTER_KEY);
        if own.exists() {
            let key =
                keyfiles::read_master_key(&own).ok_or_else(|| anyhow!("{} holds no master key", own.display()))?;
            return Ok(Some(Found { key, origin: own.display().to_string(), keep: false }));
        }
        let kept = head.keys.iter().find(|(name, _)| *name == keyfiles::MASTER_KEY);
        let Some((_, text)) = kept else { return Ok(None) };
        let key = Key::from_base64(text.expose()).map_err(|_| anyhow!("the master key in the backup is damaged"))?;
        Ok(Some(Found { key, origin: "the backup's own master key".to_owned(), keep: true }))
    }

    fn tell(&self, folder: &Path, head: &Head) -> Outcome {
        let manifest = &head.manifest;
        if self.json {
            let mut value = serde_json::to_value(manifest).unwrap_or_default();
            value["data_dir"] = json!(folder.display().to_string());
            return print(&value.to_string());
        }
        print(&format!(
            "{}: the store as of {}; start it with: gatepost serve --data-dir {}",
            folder.display(),
            manifest.made_at,
            folder.display()
        ))
    }
}

/// Only keys may be there, and what stands for nothing.
fn check_empty(folder: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", folder.display())),
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let fine = [keyfiles::MASTER_KEY, keyfiles::ADMIN_KEY, "lost+found"].contains(&name.as_str());
        if !fine && !Placing::is_debris(&name) {
            bail!("{} is not empty (it has {name}); restore into a new folder", folder.display());
        }
    }
    Ok(())
}

/// Whether the key there is can be the backup's, by its fingerprint.
fn check_key(found: &Option<Found>, head: &Head) -> anyhow::Result<()> {
    let Some(needed) = &head.manifest.master_key else { return Ok(()) };
    let Some(found) = found else {
        bail!(
            "the backup does not hold its master key (fingerprint {needed}): give it with --master-key-file, with \
             GATEPOST_MASTER_KEY, or as master.key in the folder"
        );
    };
    let fingerprint = crate::masterkey::fingerprint(&found.key);
    if fingerprint != *needed {
        let also = if head.manifest.with_keys { "; the backup has the right one, so leave this one out" } else { "" };
        let origin = &found.origin;
        bail!("{origin} is not the master key of this backup: its fingerprint is {fingerprint}, not {needed}{also}");
    }
    Ok(())
}

/// Key files that were made: gone again unless they are to stay.
#[derive(Default)]
struct NewFiles(Vec<PathBuf>);

impl NewFiles {
    fn put(&mut self, folder: &Path, name: &str, key: &Secret) -> anyhow::Result<()> {
        let path = folder.join(name);
        let placed = keyfiles::place(&path, key.expose());
        // One that is there already stays: it was judged before, or is another way in.
        if placed.with_context(|| format!("{} cannot be written", path.display()))? {
            self.0.push(path);
        }
        Ok(())
    }

    fn stay(mut self) {
        self.0.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}
