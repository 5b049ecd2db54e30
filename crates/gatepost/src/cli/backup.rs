//! `gatepost backup`

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use gatepost_core::Clock;
use gatepost_core::secret::Secret;
use gatepost_engine::{SystemClock, master};
use gatepost_store::sqlite::backup;
use serde_json::json;

use super::{Context, print};
use crate::archive::{self, Manifest};
use crate::config::{Flags, Settings};
use crate::failure::{Failure, Outcome};
use crate::keyfiles;

const EXAMPLES: &str = "\
Examples:
  gatepost backup gatepost.backup
  gatepost backup /var/backups --data-dir /var/lib/gatepost    (a file named after the time)
  gatepost backup all.backup --with-keys                       (as precious as the keys in it)

The server may be running. Without --with-keys the backup does not hold the
master key, and its secrets cannot be opened without it: keep a copy of
master.key (or of GATEPOST_MASTER_KEY) elsewhere, as safe as the backup.";

/// Copy the embedded store to a file, while the server runs or not
///
/// Everything that was accepted before the backup began is in it. It is checked before it gets its name,
/// and an existing file is never replaced. It needs room for two copies of the store for a moment.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Command {
    /// The file to make, or a folder to make one in
    file: PathBuf,
    /// Put the master key and the admin key in it too
    #[arg(long)]
    with_keys: bool,
    /// Folder of the embedded store [env: GATEPOST_DATA_DIR] [default: ./gatepost-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let flags = Flags { data_dir: self.data_dir.clone(), ..Flags::default() };
        let settings = Settings::load(&flags, context.config.as_deref())?;
        settings.check_supported()?;
        let made = tokio::task::spawn_blocking(move || self.make(&settings)).await;
        made.map_err(|error| Failure::failed(format!("the backup broke off: {error}")))?
    }

    fn make(&self, settings: &Settings) -> Outcome {
        let folder = &settings.data_dir.value;
        let now = SystemClock.now().to_string();
        let file = if self.file.is_dir() { self.file.join(name_of(&now)) } else { self.file.clone() };
        if file.exists() {
            return Err(Failure::failed(format!("{} is there already", file.display())));
        }
        let copy = Copy(keyfiles::draft_of(&file.with_extension("copy")));
        let _ = std::fs::remove_file(&copy.0);
        let mut bar = Progress::default();
        backup::copy(folder, &copy.0, &mut |done, of| bar.at(done, of)).map_err(anyhow::Error::from)?;
        bar.end();
        let seen = backup::peek(&copy.0, &master::META).map_err(anyhow::Error::from)?;
        let mut manifest = Manifest::of(&copy.0, seen.schema, seen.meta[0].as_deref(), now)?;
        let keys = if self.with_keys { keys(settings, &seen.meta)? } else { Vec::new() };
        manifest.with_keys = self.with_keys;
        archive::write(&file, &manifest, &keys, &copy.0)?;
        self.tell(&file, &manifest)
    }

    fn tell(&self, file: &Path, manifest: &Manifest) -> Outcome {
        if self.json {
            let mut value = serde_json::to_value(manifest).unwrap_or_default();
            value["file"] = json!(file.display().to_string());
            return print(&value.to_string());
        }
        let key = manifest.master_key.as_deref().unwrap_or("none yet");
        let keys = if self.with_keys {
            "the keys are in it: keep it as safe as them".to_owned()
        } else {
            format!("the master key (fingerprint {key}) is not in it: keep it too, elsewhere")
        };
        print(&format!("{}: {} bytes of store, checked; {keys}", file.display(), manifest.bytes))
    }
}

/// The keys of the folder, as far as they are files or settings; the master key must be the store's.
fn keys(settings: &Settings, meta: &[Option<Vec<u8>>]) -> Outcome<archive::Keys> {
    let folder = &settings.data_dir.value;
    let master = match &settings.master_key.value {
        Some(key) => Some(key.clone()),
        None => keyfiles::read_master_key(&folder.join(keyfiles::MASTER_KEY)),
    };
    let master = master.ok_or_else(|| {
        let path = folder.join(keyfiles::MASTER_KEY);
        Failure::failed(format!("--with-keys: there is no master key: {} cannot be read", path.display()))
    })?;
    master::check([meta[0].as_deref(), meta[1].as_deref()], &master).map_err(anyhow::Error::from)?;
    let mut keys = vec![(keyfiles::MASTER_KEY, Secret::new(master.to_base64().as_str()))];
    let admin = settings.admin_key.value.clone().or_else(|| keyfiles::read_admin_key(folder));
    keys.extend(admin.map(|key| (keyfiles::ADMIN_KEY, key)));
    Ok(keys)
}

/// `gatepost-20260101T120000Z.backup`
fn name_of(now: &str) -> String {
    let seconds = now.split('.').next().unwrap_or(now).trim_end_matches('Z');
    let plain: String = seconds.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    format!("gatepost-{plain}Z.backup")
}

/// The database's copy before it is in the archive: gone whatever happens.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        let mut journal = self.0.clone().into_os_string();
        journal.push("-journal");
        let _ = std::fs::remove_file(journal);
    }
}

/// How far it is, for people who watch.
#[derive(Default)]
struct Progress(Option<u64>);

impl Progress {
    fn at(&mut self, done: u64, of: u64) {
        let percent = done.saturating_mul(100) / of.max(1);
        if self.0 != Some(percent) && std::io::stderr().is_terminal() {
            self.0 = Some(percent);
            let _ = write!(std::io::stderr(), "\rcopying: {percent} %");
        }
    }

    fn end(&self) {
        if self.0.is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_the_time() {
        assert_eq!(name_of("2026-11-22T13:34:15.123456Z"), "gatepost-20261122T133415Z.backup");
        assert_eq!(name_of("2026-11-22T13:34:15Z"), "gatepost-20261122T133415Z.backup");
    }
}
