//! What the process says about itself: structured lines on standard error.

use std::env;
use std::io;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// The variable that chooses what is logged, as in `NIGH_LOG=debug` or `NIGH_LOG=info,nigh_broker=trace`.
const FILTER_VARIABLE: &str = "NIGH_LOG";

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Begins logging to standard error; `default` is the filter where the environment says nothing.
pub(crate) fn start(format: LogFormat, default: &str) -> anyhow::Result<()> {
    let chosen = env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let filter = EnvFilter::try_new(filter_of(chosen.as_deref().unwrap_or(default)))
        .with_context(|| format!("{FILTER_VARIABLE} is no filter; try {FILTER_VARIABLE}=debug"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(console::colors_enabled_stderr()).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot begin logging: {error}"))
}

/// A level alone is of this program's own crates: below `info`, transports and compilers tell of every frame and pass. Who
/// wants that asks for them by name.
fn filter_of(chosen: &str) -> String {
    match chosen {
        "debug" | "trace" => format!("info,nigh={chosen}"),
        chosen => chosen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_of_this_program_and_anything_else_stands_as_it_is() {
        assert_eq!(filter_of("debug"), "info,nigh=debug");
        for chosen in ["warn", "debug,h2=trace", "info,nigh_broker=trace"] {
            assert_eq!(filter_of(chosen), chosen);
        }
        assert!(EnvFilter::try_new(filter_of("trace")).is_ok());
    }
}
