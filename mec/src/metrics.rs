//! What is counted for those who watch it, and how that is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nigh_telemetry::{HttpResponses, Telemetry};

use crate::mec::Mec;
use crate::notify::News;

/// The words for what devices are told, and for how it went.
const NEWS: [&str; 3] = ["address", "deleted", "locations"];
const OUTCOMES: [&str; 2] = ["failed", "taken"];

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) responses: HttpResponses,
    /// By what was told, then by whether it was taken.
    notifications: [[AtomicU64; 2]; 3],
    is_registered: AtomicBool,
    is_proxy_reached: AtomicBool,
}

impl Tally {
    /// Whether it is registered with its MEC platform.
    pub(crate) fn set_registered(&self, is_registered: bool) {
        self.is_registered.store(is_registered, Ordering::Relaxed);
    }

    /// Whether the proxy that it drives takes what it is told.
    pub(crate) fn set_proxy_reached(&self, is_reached: bool) {
        self.is_proxy_reached.store(is_reached, Ordering::Relaxed);
    }

    /// Counts a try to tell a device something.
    pub(crate) fn count_notification(&self, news: &News, is_taken: bool) {
        if let Some(at) = NEWS.iter().position(|word| *word == news.word()) {
            self.notifications[at][usize::from(is_taken)].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Says what there is to tell of this role.
pub(crate) fn describe(telemetry: &Telemetry, mec: &Arc<Mec>) {
    let watched = Arc::downgrade(mec);
    telemetry.describe("mec", "mec", move |out| {
        let Some(mec) = watched.upgrade() else { return Ok(()) };
        let (contexts, failing) = mec.counts();
        out.gauges("nigh_mec_contexts", "Contexts of device applications", |samples| {
            samples.gauge(&[("state", "all")], contexts as f64)?;
            samples.gauge(&[("state", "failing")], failing as f64)
        })?;
        out.counters("nigh_mec_notifications_total", "Tries to tell a device what has changed", |samples| {
            for (word, counts) in NEWS.iter().zip(&mec.tally.notifications) {
                for (outcome, count) in OUTCOMES.iter().zip(counts) {
                    samples.counter(&[("news", word), ("outcome", outcome)], count.load(Ordering::Relaxed))?;
                }
            }
            Ok(())
        })?;
        if mec.config.platform.is_some() {
            let registered = f64::from(u8::from(mec.tally.is_registered.load(Ordering::Relaxed)));
            out.gauge("nigh_mec_registered", "Whether the MEC platform knows this service", registered)?;
        }
        if mec.config.lcm_proxy.is_some() {
            let reached = f64::from(u8::from(mec.tally.is_proxy_reached.load(Ordering::Relaxed)));
            out.gauge("nigh_mec_lcm_proxy_reached", "Whether the proxy that is driven takes what it is told", reached)?;
        }
        mec.tally.responses.write("nigh_mec_http_responses_total", out)
    });
}
