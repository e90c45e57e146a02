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
    let filter = EnvFilter::try_new(chosen.as_deref().unwrap_or(default))
        .with_context(|| format!("{FILTER_VARIABLE} is no filter; try {FILTER_VARIABLE}=debug"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(console::colors_enabled_stderr()).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot begin logging: {error}"))
}
