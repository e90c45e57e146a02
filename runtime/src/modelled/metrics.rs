//! How all that there is to watch of a modelled computer is written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use nigh_telemetry::{Exposition, Telemetry};

use super::Modelled;
use crate::metrics::{write_calls, write_counts, write_load};
use crate::serve::Computing as _;

/// Has it written when somebody asks.
pub(super) fn describe(telemetry: &Telemetry, computer: &Arc<Modelled>) {
    let name = computer.name().clone();
    let computer: Weak<Modelled> = Arc::downgrade(computer);
    telemetry.describe("computer", name, move |out| match computer.upgrade() {
        Some(computer) => write(&computer, out),
        None => Ok(()),
    });
}

fn write(computer: &Modelled, out: &mut Exposition<'_>) -> fmt::Result {
    write_calls(&computer.meters.all(), out)?;
    out.gauge("nigh_computer_functions", "Functions ready to be called", computer.functions.len())?;
    let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for status in computer.function_statuses() {
        let sum = counts.entry(computer.meters.label(status.name.as_str())).or_default();
        *sum = (sum.0.saturating_add(status.running), sum.1.saturating_add(status.queued));
    }
    write_counts(&counts, out)?;
    write_load(&computer.load(), out)?;
    computer.http.write("nigh_computer_http_responses_total", out)?;
    let help = "Share of a modelled processor's cores that was busy in the last second";
    out.gauges("nigh_computer_processor_utilisation_ratio", help, |samples| {
        let processors = computer.processors();
        processors.iter().try_for_each(|(processor, share)| samples.gauge(&[("processor", processor)], *share))
    })
}
