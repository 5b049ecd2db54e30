//! Everything end to end: the real binary, real sockets, real receivers, a real store on disk.
//!
//! `promises` has a file per promise of the design, `api` the routes, `cli`, `demo` and `bench` the commands,
//! `architecture` what the sources themselves must keep.

// `cfg(test)` always holds here; it tells clippy that helpers are test code as well, where a failed
// expectation may panic.
#[cfg(test)]
mod api;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod cli_apply;
#[cfg(test)]
mod cli_backup;
#[cfg(test)]
mod compat;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod docs_page;
#[cfg(test)]
mod generated_clients;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod observed;
#[cfg(all(test, feature = "otel"))]
mod otel;
#[cfg(test)]
mod packaging;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod receivers;
#[cfg(test)]
mod rotate_master;
#[cfg(test)]
mod trace;
