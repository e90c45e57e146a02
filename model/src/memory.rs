//! A processor's memory.

/// Memory, and how much of it is taken.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    total: u64,
    taken: u64,
}

/// It would be more than there is, or less than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfRange;

impl Memory {
    pub(crate) fn new(total: u64) -> Self {
        Self { total, taken: 0 }
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn free(&self) -> u64 {
        self.total - self.taken
    }

    pub(crate) fn take(&mut self, bytes: u64) -> Result<(), OutOfRange> {
        if bytes > self.free() {
            return Err(OutOfRange);
        }
        self.taken += bytes;
        Ok(())
    }

    pub(crate) fn give_back(&mut self, bytes: u64) -> Result<(), OutOfRange> {
        self.taken = self.taken.checked_sub(bytes).ok_or(OutOfRange)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_more_than_there_is_nor_more_than_was_taken() {
        let mut memory = Memory::new(100);
        assert_eq!((memory.take(10), memory.take(90), memory.free()), (Ok(()), Ok(()), 0));
        assert_eq!((memory.give_back(40), memory.free()), (Ok(()), 40));
        assert_eq!((memory.give_back(61), memory.take(41)), (Err(OutOfRange), Err(OutOfRange)));
        assert_eq!(memory.free(), 40, "what fails changes nothing");
    }
}
