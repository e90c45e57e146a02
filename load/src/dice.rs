//! Randomness from seeds: whoever says the same three numbers gets the same stream, and streams know nothing of each other.

use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

/// What a stream decides. Each purpose has a stream of its own, so that drawing more of one thing changes nothing of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Which function is called, with how large a payload.
    Choice = 0,
    /// When calls are due.
    Arrival = 1,
    /// For how long a client thinks.
    Think = 2,
    /// Which further brokers are called.
    Persistence = 3,
    /// The bytes of payloads.
    Payload = 4,
}

/// The stream of a client for a purpose.
pub(crate) fn stream(seed: u64, client: u32, purpose: Purpose) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..12].copy_from_slice(&client.to_le_bytes());
    key[12] = purpose as u8;
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;

    #[test]
    fn a_stream_depends_on_all_three_numbers_and_on_nothing_else() {
        let draw = |seed, client, purpose| stream(seed, client, purpose).next_u64();
        let drawn = draw(1, 2, Purpose::Arrival);
        assert_eq!(drawn, draw(1, 2, Purpose::Arrival));
        assert_ne!(drawn, draw(2, 2, Purpose::Arrival));
        assert_ne!(drawn, draw(1, 3, Purpose::Arrival));
        assert_ne!(drawn, draw(1, 2, Purpose::Choice));
    }
}
