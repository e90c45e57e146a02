//! Lines for the function's log: on a computer they go to `nigh logs`, natively to standard error.

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Somebody must look.
    Error = 1,
    /// Odd, yet dealt with.
    Warn = 2,
    /// What happened.
    Info = 3,
    /// Only for finding faults.
    Debug = 4,
}

/// Writes one line. The macros [`error!`](crate::error!), [`warn!`](crate::warn!), [`info!`](crate::info!) and
/// [`debug!`](crate::debug!) format it as `println!` would. Computers limit how much one call may log and say where
/// they cut.
pub fn log(level: Level, line: &str) {
    crate::abi::log(level, line);
}

/// Logs a line that somebody must look at.
#[macro_export]
macro_rules! error { ($($arg:tt)*) => { $crate::log($crate::Level::Error, &format!($($arg)*)) } }

/// Logs a line about something odd that was dealt with.
#[macro_export]
macro_rules! warn { ($($arg:tt)*) => { $crate::log($crate::Level::Warn, &format!($($arg)*)) } }

/// Logs a line about what happened.
#[macro_export]
macro_rules! info { ($($arg:tt)*) => { $crate::log($crate::Level::Info, &format!($($arg)*)) } }

/// Logs a line that helps to find faults.
#[macro_export]
macro_rules! debug { ($($arg:tt)*) => { $crate::log($crate::Level::Debug, &format!($($arg)*)) } }
