//! Settings: flag > environment > `gatepost.toml` > default, each knowing where it came from.
//!
//! Every source gives text; one function per setting reads it. So a value means the same wherever
//! it stands, and an error always names the setting, its origin and what would be right.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use gatepost_core::nearest::nearest;
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_core::tenant::HookSwitch;
use ipnet::IpNet;
use serde::Serialize;
use toml::de::{DeTable, DeValue};

use crate::failure::{Failure, Outcome};
use crate::memory::Memory;
use crate::text::printable;
use crate::{keyfiles, logging, memory};

/// The file that is read when `--config` names none, if it is there.
pub const DEFAULT_FILE: &str = "gatepost.toml";
/// The address the server listens on by default, and its clients call.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// Characters of an admin key, at least.
pub const ADMIN_KEY_MIN: usize = 32;

/// Bytes of an API request's body: what can be set.
const BODY_BYTES: std::ops::RangeInclusive<usize> = 1 << 10..=64 << 20;

/// The settings flags of a command. Values are texts, read by [`Settings::resolve`] like those of
/// the other sources.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings (flag, else environment, else gatepost.toml, else default)")]
pub struct Flags {
    /// Address to listen on, IP:port; port 0 is any free one [env: GATEPOST_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Folder of the embedded store [env: GATEPOST_DATA_DIR] [default: ./gatepost-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Networks that may be called besides public addresses, comma-separated CIDRs; also permits plain http to them [env: GATEPOST_ALLOW_NETS]
    #[arg(long, value_name = "CIDR,…")]
    pub allow_nets: Option<String>,
    /// PEM file trusted for every outgoing TLS call [env: GATEPOST_EXTRA_CA]
    #[arg(long, value_name = "FILE")]
    pub extra_ca: Option<String>,
    /// URL under which others reach this server, used in links [env: GATEPOST_PUBLIC_URL] [default: the bound address]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Bytes of an API request's body [env: GATEPOST_MAX_BODY_BYTES] [default: 1048576]
    #[arg(long, value_name = "BYTES")]
    pub max_body_bytes: Option<String>,
    /// MiB of memory that everything the server holds is kept within, from 128 [env: GATEPOST_MEMORY_MIB] [default: 1024]
    #[arg(long, value_name = "MIB")]
    pub memory_mib: Option<String>,
    /// Blocking hooks: on, or bypass (nobody is asked, every invocation allows; so does a file hooks.bypass in the data folder while the server runs) [env: GATEPOST_HOOKS] [default: on]
    #[arg(long, value_name = "on|bypass")]
    pub hooks: Option<String>,
    /// What to log, such as info or warn,gatepost_engine=debug [env: GATEPOST_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How to log: text or json [env: GATEPOST_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A flag, such as `--listen`.
    Flag(String),
    /// A variable.
    Environment(&'static str),
    /// A line (from 1) of the file.
    File(PathBuf, usize),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "flag {name}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::File(path, line) => write!(f, "file {}:{line}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Its origin.
    pub origin: Origin,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The word it is set by.
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// Every setting (DESIGN 3.1).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: Setting<SocketAddr>,
    /// The embedded store's folder.
    pub data_dir: Setting<PathBuf>,
    /// PostgreSQL, which this version refuses ([`Settings::check_supported`]). Holds a password.
    pub database_url: Setting<Option<Secret>>,
    /// Full rights; `None`: the one in the data folder.
    pub admin_key: Setting<Option<Secret>>,
    /// Wraps the data key; `None`: the one in the data folder.
    pub master_key: Setting<Option<Key>>,
    /// What may be called besides public addresses.
    pub allow_nets: Setting<Vec<IpNet>>,
    /// A PEM file to trust.
    pub extra_ca: Setting<Option<PathBuf>>,
    /// What links begin with.
    pub public_url: Setting<Option<String>>,
    /// Bytes of an API request's body.
    pub max_body_bytes: Setting<usize>,
    /// What everything held in memory is kept within.
    pub memory_mib: Setting<Memory>,
    /// Blocking hooks: asked, or bypassed.
    pub hooks: Setting<HookSwitch>,
    /// What to log.
    pub log: Setting<String>,
    /// How to log.
    pub log_format: Setting<LogFormat>,
}

/// A setting's names. Its flag is `--` and the name with dashes, its variable `GATEPOST_` and the
/// name in capitals; secrets have no flag, because anybody on the machine can read command lines.
struct Name {
    key: &'static str,
    env: &'static str,
}

const fn name(key: &'static str, env: &'static str) -> Name {
    Name { key, env }
}

const LISTEN: Name = name("listen", "GATEPOST_LISTEN");
const DATA_DIR: Name = name("data_dir", "GATEPOST_DATA_DIR");
const DATABASE_URL: Name = name("database_url", "GATEPOST_DATABASE_URL");
const ADMIN_KEY: Name = name("admin_key", "GATEPOST_ADMIN_KEY");
const MASTER_KEY: Name = name("master_key", "GATEPOST_MASTER_KEY");
const ALLOW_NETS: Name = name("allow_nets", "GATEPOST_ALLOW_NETS");
const EXTRA_CA: Name = name("extra_ca", "GATEPOST_EXTRA_CA");
const PUBLIC_URL: Name = name("public_url", "GATEPOST_PUBLIC_URL");
const MAX_BODY_BYTES: Name = name("max_body_bytes", "GATEPOST_MAX_BODY_BYTES");
const MEMORY_MIB: Name = name("memory_mib", "GATEPOST_MEMORY_MIB");
const HOOKS: Name = name("hooks", "GATEPOST_HOOKS");
const LOG: Name = name("log", "GATEPOST_LOG");
const LOG_FORMAT: Name = name("log_format", "GATEPOST_LOG_FORMAT");

/// Variables of the commands, which the server does not read.
const OTHER_VARIABLES: [&str; 4] =
    ["GATEPOST_URL", "GATEPOST_KEY", "GATEPOST_NEW_MASTER_KEY", "GATEPOST_WEBHOOK_SECRET"];

const ALL: [&Name; 13] = [
    &LISTEN,
    &DATA_DIR,
    &DATABASE_URL,
    &ADMIN_KEY,
    &MASTER_KEY,
    &ALLOW_NETS,
    &EXTRA_CA,
    &PUBLIC_URL,
    &MAX_BODY_BYTES,
    &MEMORY_MIB,
    &HOOKS,
    &LOG,
    &LOG_FORMAT,
];

/// Where texts are looked for.
struct Sources<'a> {
    flags: &'a Flags,
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    file: BTreeMap<String, (String, Origin)>,
}

impl Sources<'_> {
    fn flag(&self, key: &str) -> Option<&String> {
        let flags = self.flags;
        let flag = match key {
            "listen" => &flags.listen,
            "data_dir" => &flags.data_dir,
            "allow_nets" => &flags.allow_nets,
            "extra_ca" => &flags.extra_ca,
            "public_url" => &flags.public_url,
            "max_body_bytes" => &flags.max_body_bytes,
            "memory_mib" => &flags.memory_mib,
            "hooks" => &flags.hooks,
            "log" => &flags.log,
            "log_format" => &flags.log_format,
            _ => return None,
        };
        flag.as_ref()
    }

    /// The text of a setting. A variable that is set to nothing is not set: that is how it is
    /// written in a compose file.
    fn text(&self, name: &Name) -> Outcome<Option<(String, Origin)>> {
        if let Some(text) = self.flag(name.key) {
            return Ok(Some((text.clone(), Origin::Flag(format!("--{}", name.key.replace('_', "-"))))));
        }
        if let Some(text) = (self.environment)(name.env).filter(|text| !text.is_empty()) {
            let origin = Origin::Environment(name.env);
            return match text.into_string() {
                Ok(text) => Ok(Some((text, origin))),
                Err(_) => Err(bad(name, &origin, "is not UTF-8")),
            };
        }
        Ok(self.file.get(name.key).cloned())
    }

    /// A setting, read by `read`, whose error says what would be right.
    fn read<T>(&self, name: &Name, default: T, read: impl Fn(&str) -> Result<T, String>) -> Outcome<Setting<T>> {
        match self.text(name)? {
            None => Ok(Setting { value: default, origin: Origin::Default }),
            Some((text, origin)) => match read(&text) {
                Ok(value) => Ok(Setting { value, origin }),
                Err(reason) => Err(bad(name, &origin, &reason)),
            },
        }
    }
}

fn bad(name: &Name, origin: &Origin, reason: &str) -> Failure {
    Failure::usage(format!("setting {} ({origin}) {reason}", name.key))
}

impl Settings {
    /// Reads every setting. `file` is the one `--config` names; without it [`DEFAULT_FILE`] is read
    /// if it is there.
    ///
    /// # Errors
    /// A file that cannot be read or holds an unknown key, a value that makes no sense.
    pub fn load(flags: &Flags, file: Option<&Path>) -> Outcome<Settings> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(Failure::usage(format!("the settings file {} cannot be read: {error}", path.display())));
            }
        };
        Settings::resolve(flags, &|name| std::env::var_os(name), text.as_deref().map(|text| (path, text)))
    }

    /// The same, with environment and file given: a function of its arguments.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn resolve(
        flags: &Flags,
        environment: &dyn Fn(&str) -> Option<OsString>,
        file: Option<(&Path, &str)>,
    ) -> Outcome<Settings> {
        let file = match file {
            Some((path, text)) => read_file(path, text)?,
            None => BTreeMap::new(),
        };
        let from = Sources { flags, environment, file };
        let settings = Settings {
            listen: from.read(&LISTEN, SocketAddr::from(([127, 0, 0, 1], 8080)), read_listen)?,
            data_dir: from.read(&DATA_DIR, PathBuf::from("./gatepost-data"), |text| Ok(PathBuf::from(text)))?,
            database_url: from.read(&DATABASE_URL, None, |text| Ok(Some(Secret::new(text))))?,
            admin_key: from.read(&ADMIN_KEY, None, |text| read_key(text).map(Some))?,
            master_key: from.read(&MASTER_KEY, None, |text| {
                let advice = "is not base64 of 32 bytes; make one with: openssl rand -base64 32";
                Key::from_base64(text).map(Some).map_err(|_| advice.to_owned())
            })?,
            allow_nets: from.read(&ALLOW_NETS, Vec::new(), read_nets)?,
            extra_ca: from.read(&EXTRA_CA, None, |text| Ok(Some(PathBuf::from(text))))?,
            public_url: from.read(&PUBLIC_URL, None, |text| read_url(text).map(Some))?,
            max_body_bytes: from.read(&MAX_BODY_BYTES, 1 << 20, read_bytes)?,
            memory_mib: from.read(&MEMORY_MIB, Memory::default(), read_memory)?,
            hooks: from.read(&HOOKS, HookSwitch::Enabled, read_hooks)?,
            log: from.read(&LOG, "info".to_owned(), |text| logging::check_filter(text).map(|()| text.to_owned()))?,
            log_format: from.read(&LOG_FORMAT, LogFormat::Text, read_format)?,
        };
        settings.check_body_fits()?;
        Ok(settings)
    }

    /// A body that memory has no room for could never be read.
    fn check_body_fits(&self) -> Outcome {
        let (most, memory) = (self.memory_mib.value.max_body_bytes(), self.memory_mib.value.mib());
        if self.max_body_bytes.value <= most {
            return Ok(());
        }
        let reason = format!(
            "is {}, but memory_mib ({}) is {memory}, which has room for bodies of {most} bytes: lower it, or raise memory_mib",
            self.max_body_bytes.value, self.memory_mib.origin
        );
        Err(bad(&MAX_BODY_BYTES, &self.max_body_bytes.origin, &reason))
    }

    /// Refuses what can be set but is not in this version: silence would be taken for consent.
    ///
    /// # Errors
    /// PostgreSQL is asked for.
    pub fn check_supported(&self) -> Outcome {
        if self.database_url.value.is_none() {
            return Ok(());
        }
        let reason = "asks for PostgreSQL, which is not in this version yet; unset it to use the embedded store";
        Err(bad(&DATABASE_URL, &self.database_url.origin, reason))
    }

    /// The PEM text of [`Settings::extra_ca`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn extra_ca_pem(&self) -> Outcome<Option<Vec<u8>>> {
        let Some(path) = &self.extra_ca.value else { return Ok(None) };
        match std::fs::read(path) {
            Ok(pem) => Ok(Some(pem)),
            Err(error) => {
                let reason = format!("names {}, which cannot be read: {error}", path.display());
                Err(bad(&EXTRA_CA, &self.extra_ca.origin, &reason))
            }
        }
    }

    /// Every setting as it may be shown: of a secret only whether it is set and where.
    pub fn shown(&self) -> Vec<Shown> {
        let nets: Vec<String> = self.allow_nets.value.iter().map(ToString::to_string).collect();
        vec![
            shown(&LISTEN, &self.listen, Some(self.listen.value.to_string())),
            shown(&DATA_DIR, &self.data_dir, Some(self.data_dir.value.display().to_string())),
            secret(&DATABASE_URL, &self.database_url),
            self.kept(secret(&ADMIN_KEY, &self.admin_key), keyfiles::ADMIN_KEY),
            self.kept(secret(&MASTER_KEY, &self.master_key), keyfiles::MASTER_KEY),
            shown(&ALLOW_NETS, &self.allow_nets, Some(nets.join(",")).filter(|text| !text.is_empty())),
            shown(&EXTRA_CA, &self.extra_ca, self.extra_ca.value.as_ref().map(|path| path.display().to_string())),
            shown(&PUBLIC_URL, &self.public_url, self.public_url.value.clone()),
            shown(&MAX_BODY_BYTES, &self.max_body_bytes, Some(self.max_body_bytes.value.to_string())),
            shown(&MEMORY_MIB, &self.memory_mib, Some(self.memory_mib.value.mib().to_string())),
            shown(&HOOKS, &self.hooks, Some(hooks_word(self.hooks.value).to_owned())),
            shown(&LOG, &self.log, Some(self.log.value.clone())),
            shown(&LOG_FORMAT, &self.log_format, Some(self.log_format.value.as_str().to_owned())),
        ]
    }
}

impl Settings {
    /// Variables that look like settings and are none, each with what to say of it.
    pub fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
        let known: Vec<&str> = ALL.iter().map(|name| name.env).chain(OTHER_VARIABLES).collect();
        let mut unknown: Vec<String> = names
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.starts_with("GATEPOST_") && !known.contains(&name.as_str()))
            .map(|name| {
                let name = printable(&name);
                match nearest(&name, known.iter().copied()) {
                    Some(near) => format!("the environment variable {name} is not read; did you mean {near}?"),
                    None => format!(
                        "the environment variable {name} is not read; gatepost config show lists those that are"
                    ),
                }
            })
            .collect();
        unknown.sort();
        unknown
    }

    /// A key nobody set is the one in the data folder.
    fn kept(&self, shown: Shown, file: &str) -> Shown {
        let path = self.data_dir.value.join(file);
        match (shown.set, path.exists()) {
            (true, _) => shown,
            (false, true) => Shown { set: true, origin: format!("file {}", path.display()), ..shown },
            (false, false) => Shown { origin: format!("default: made in {}", path.display()), ..shown },
        }
    }
}

/// A setting as it may be shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Shown {
    /// Its name in the file.
    pub name: &'static str,
    /// Its value; `None` when there is none, or it is secret.
    pub value: Option<String>,
    /// Whether there is a value.
    pub set: bool,
    /// Whether it is secret.
    pub secret: bool,
    /// Where it came from.
    pub origin: String,
    /// The variable that sets it.
    pub environment: &'static str,
}

fn shown<T>(name: &Name, setting: &Setting<T>, value: Option<String>) -> Shown {
    let (set, origin) = (value.is_some(), setting.origin.to_string());
    Shown { name: name.key, value, set, secret: false, origin, environment: name.env }
}

fn secret<T>(name: &Name, setting: &Setting<Option<T>>) -> Shown {
    Shown { set: setting.value.is_some(), secret: true, ..shown(name, setting, None) }
}

fn read_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("is {text:?}, not IP:port, such as {DEFAULT_LISTEN} or 0.0.0.0:8080"))
}

/// A key travels in a header: visible ASCII and no spaces. It opens everything: it is not to be guessed.
fn read_key(text: &str) -> Result<Secret, String> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("must be visible ASCII characters without spaces; make one with: openssl rand -hex 32".to_owned())
    } else if text.len() < ADMIN_KEY_MIN {
        Err(format!("must have at least {ADMIN_KEY_MIN} characters; make one with: openssl rand -hex 32"))
    } else {
        Ok(Secret::new(text))
    }
}

fn read_nets(text: &str) -> Result<Vec<IpNet>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| item.parse().map_err(|_| format!("has {item:?}, not a CIDR such as 127.0.0.0/8 or ::1/128")))
        .collect()
}

fn read_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    match gatepost_engine::net::Target::parse(url) {
        Ok(_) if !url.contains(['?', '#']) => Ok(url.to_owned()),
        Ok(_) => Err(format!("is {text:?}; leave out what follows the path")),
        Err(error) => Err(format!("is {text:?}, not a URL such as https://hooks.example.com: {error}")),
    }
}

fn read_bytes(text: &str) -> Result<usize, String> {
    let (least, most) = (BODY_BYTES.start(), BODY_BYTES.end());
    match text.parse() {
        Ok(bytes) if BODY_BYTES.contains(&bytes) => Ok(bytes),
        _ => Err(format!("is {text:?}, not a whole number of bytes from {least} to {most}")),
    }
}

fn read_memory(text: &str) -> Result<Memory, String> {
    let (least, most) = (memory::MIB.start(), memory::MIB.end());
    text.parse()
        .ok()
        .and_then(Memory::of_mib)
        .ok_or_else(|| format!("is {text:?}, not a whole number of MiB from {least} to {most}"))
}

fn read_hooks(text: &str) -> Result<HookSwitch, String> {
    [HookSwitch::Enabled, HookSwitch::Bypass]
        .into_iter()
        .find(|switch| hooks_word(*switch) == text)
        .ok_or_else(|| format!("is {text:?}, not on or bypass"))
}

fn hooks_word(switch: HookSwitch) -> &'static str {
    match switch {
        HookSwitch::Enabled => "on",
        HookSwitch::Bypass => "bypass",
    }
}

fn read_format(text: &str) -> Result<LogFormat, String> {
    [LogFormat::Text, LogFormat::Json]
        .into_iter()
        .find(|format| format.as_str() == text)
        .ok_or_else(|| format!("is {text:?}, not text or json"))
}

/// The file as texts. A list of texts is one text, joined by commas, as in the environment.
fn read_file(path: &Path, text: &str) -> Outcome<BTreeMap<String, (String, Origin)>> {
    let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let fail =
        |offset: usize, reason: String| Failure::usage(format!("{}:{}: {reason}", path.display(), line_of(offset)));
    let table = DeTable::parse(text)
        .map_err(|error| fail(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
    let mut values = BTreeMap::new();
    for (key, value) in table.into_inner() {
        let (start, key) = (key.span().start, key.into_inner());
        if !ALL.iter().any(|name| name.key == key) {
            let known: Vec<_> = ALL.iter().map(|name| name.key).collect();
            return Err(fail(start, format!("unknown setting {key:?}; there are {}", known.join(", "))));
        }
        let Some(text) = text_of(value.get_ref()) else {
            let reason = format!("setting {key} must be a text in quotes, a whole number, or a list of texts");
            return Err(fail(value.span().start, reason));
        };
        values.insert(key.into_owned(), (text, Origin::File(path.to_owned(), line_of(start))));
    }
    Ok(values)
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(|item| item.get_ref().as_str()).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
