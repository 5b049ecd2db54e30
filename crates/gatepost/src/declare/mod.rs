//! A tenant's setup as a file: what `gatepost apply` reads and `gatepost export` prints.
//!
//! [`node`] is a file's values with their places in it, [`document`] what the file says, [`plan`] what it
//! means for a tenant as it is, [`export`] the way back.

pub mod document;
pub mod export;
pub mod node;
pub mod plan;
