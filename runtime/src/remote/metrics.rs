//! How all that there is to watch of a computer whose functions run elsewhere is written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use nigh_telemetry::{Exposition, Telemetry};

use super::RemoteComputer;
use crate::metrics::{write_calls, write_counts, write_load};

/// Has it written when somebody asks.
pub(super) fn describe(telemetry: &Telemetry, computer: &Arc<RemoteComputer>) {
    let name = computer.name.clone();
    let computer: Weak<RemoteComputer> = Arc::downgrade(computer);
    telemetry.describe("computer", name, move |out| match computer.upgrade() {
        Some(computer) => write(&computer, out),
        None => Ok(()),
    });
}

fn write(computer: &RemoteComputer, out: &mut Exposition<'_>) -> fmt::Result {
    write_calls(&computer.meters.all(), out)?;
    out.gauge("nigh_computer_functions", "Functions ready to be called", computer.functions().len())?;
    let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for status in computer.function_statuses() {
        let sum = counts.entry(computer.meters.label(status.name.as_str())).or_default();
        *sum = (sum.0.saturating_add(status.running), sum.1.saturating_add(status.queued));
    }
    write_counts(&counts, out)?;
    write_load(&computer.load(), out)?;
    computer.http.write("nigh_computer_http_responses_total", out)?;
    let help = "Whether the system elsewhere answered when it was last looked at";
    out.gauge("nigh_computer_remote_up", help, u32::from(computer.gateway.is_up()))?;
    computer.client.responses.write("nigh_computer_remote_responses_total", out)
}
