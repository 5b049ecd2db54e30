//! Everything end to end: the real binary, real sockets, real receivers, a real store on disk.
//!
//! `promises` has a file per promise of the design, `api` the routes, `cli` and `demo` the commands,
//! `architecture` what the sources themselves must keep.

mod api;
mod architecture;
mod cli;
mod demo;
mod harness;
mod promises;
