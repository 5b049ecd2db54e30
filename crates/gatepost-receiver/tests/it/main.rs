//! The crate against the code that really signs: gatepost-core's profiles and hooks.

#[cfg(test)]
mod challenges;
#[cfg(test)]
mod forms;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod once;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod schemes;
#[cfg(test)]
mod sender;
