//! Time and randomness, as parameters.

use crate::Timestamp;

/// Tells the time. The only way any Gatepost crate learns what time it is.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// Gives random bytes. The only source of ids, keys and jitter.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes` with random data fit for keys.
    fn fill(&self, bytes: &mut [u8]);

    /// A random number, uniform over all values.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random number in `0.0..1.0`.
    fn unit(&self) -> f64 {
        // 53 bits: what a double holds exactly.
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl<T: Entropy + ?Sized> Entropy for std::sync::Arc<T> {
    fn fill(&self, bytes: &mut [u8]) {
        (**self).fill(bytes);
    }
}

impl<T: Clock + ?Sized> Clock for std::sync::Arc<T> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}
