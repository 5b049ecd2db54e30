//! `gatepost keys rotate-master`

use clap::Args;
use gatepost_core::seal::Key;
use gatepost_engine::SystemEntropy;
use serde_json::json;

use super::{Context, print, read_whole};
use crate::config::{Flags, Settings};
use crate::failure::{Failure, Outcome};
use crate::masterkey;

pub(super) const EXAMPLES: &str = "\
Examples:
  gatepost keys rotate-master                                  make a new key, keep it in master.key
  gatepost keys rotate-master --data-dir /var/lib/gatepost
  GATEPOST_NEW_MASTER_KEY=… gatepost keys rotate-master        (a key made elsewhere)
  openssl rand -base64 32 | gatepost keys rotate-master --new-key-file -

The server must be stopped. Only the wrapping of one small key changes, however
large the store; a crash in between is mended by the next start. Backups made
before still need the old key.";

/// The variable with the new key: a flag could be read by others on the machine.
const NEW_KEY: &str = "GATEPOST_NEW_MASTER_KEY";

#[derive(Args, Debug)]
pub(super) struct RotateMaster {
    /// A file with the new key (base64 of 32 bytes), or - for stdin; else GATEPOST_NEW_MASTER_KEY, else one is made
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<String>,
    /// Folder of the embedded store [env: GATEPOST_DATA_DIR] [default: ./gatepost-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl RotateMaster {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let flags = Flags { data_dir: self.data_dir.clone(), ..Flags::default() };
        let settings = Settings::load(&flags, context.config.as_deref())?;
        settings.check_supported()?;
        let new = self.new_key()?;
        let folder = &settings.data_dir.value;
        let done = masterkey::rotate(folder, settings.master_key.value.clone(), new, &SystemEntropy).await?;
        if self.json {
            let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
            let value = json!({ "old": done.old, "new": done.new, "file": path(&done.file), "kept": path(&done.kept) });
            return print(&value.to_string());
        }
        let mut text =
            format!("the master key is changed\n  old  fingerprint {}\n  new  fingerprint {}\n", done.old, done.new);
        match &done.file {
            Some(file) if settings.master_key.value.is_some() => {
                text += &format!(
                    "The new key is in {}: unset the setting master_key ({}), or set it to that key, before the next start.\n",
                    file.display(),
                    settings.master_key.origin
                );
            }
            Some(file) => text += &format!("The new key is in {}.\n", file.display()),
            None => {
                text += &format!(
                    "Change the setting master_key ({}) to the new key before the next start.\n",
                    settings.master_key.origin
                );
            }
        }
        if let Some(kept) = &done.kept {
            text += &format!("The old key is kept in {}: backups made before need it.\n", kept.display());
        }
        print(&text)
    }

    fn new_key(&self) -> Outcome<Option<Key>> {
        let (text, origin) = match &self.new_key_file {
            Some(path) => (read_whole(path)?, path.clone()),
            None => match std::env::var(NEW_KEY) {
                Ok(text) if !text.is_empty() => (text, NEW_KEY.to_owned()),
                _ => return Ok(None),
            },
        };
        let advice = "is not base64 of 32 bytes; make one with: openssl rand -base64 32";
        Key::from_base64(&text).map(Some).map_err(|_| Failure::usage(format!("{origin} {advice}")))
    }
}
