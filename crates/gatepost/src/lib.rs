//! # gatepost: the binary
//!
//! Wiring and command line. [`server::Server`] is the whole server as a value: `serve`, `demo` and
//! tests start the same one, in-process, on any port. [`cli`] has one file per command.
//!
//! Contract: no rule of Gatepost's lives here. The commands that work on a server speak to it over
//! its HTTP API like anybody else; `serve` and `demo` touch engine and store only to start and stop
//! them, and `backup`, `restore` and `keys rotate-master` work on a data folder: [`archive`] is a backup's
//! form, [`masterkey`] the change of keys. What `bench` measures is in `gatepost-bench`. [`declare`] is what `apply` and `export` read and write.
//!
//! To add a setting: one line in [`config`]'s list, one member of [`config::Settings`], and its use.
//! What is held in memory is bounded in [`memory`], all of it.
//! To add a command: a file in `cli` and a variant of its `Command`.

mod answers;
pub mod archive;
pub mod cli;
pub mod config;
pub mod declare;
mod dialects;
pub mod failure;
pub mod http_client;
pub mod keyfiles;
pub mod logging;
pub mod masterkey;
pub mod memory;
#[cfg(feature = "otel")]
pub mod otel;
pub mod receiver;
pub mod server;
mod text;
