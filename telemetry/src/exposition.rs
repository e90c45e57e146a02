//! Writing metrics: each family once, under the very name by which it is asked for.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::histogram::Histogram;

/// The ending of every counter's name, which the encoder adds itself.
const COUNTER: &str = "_total";
/// Units that a name may end with; the encoder tells of them beside the name.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

/// Where a role's metrics are written. Names are whole: `nigh_broker_calls_total`, `nigh_computer_run_seconds`.
pub struct Exposition<'a>(DescriptorEncoder<'a>);

/// The samples of one family, each with its labels.
pub struct Samples<'a>(MetricEncoder<'a>);

impl<'a> Exposition<'a> {
    pub(crate) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A number that only grows.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |samples| {
            samples.0.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// Numbers that only grow, by labels.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        write: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, write)
    }

    /// A number that goes up and down.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |samples| samples.0.encode_gauge(&value))
    }

    /// Numbers that go up and down, by labels.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        write: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, write)
    }

    /// How times are distributed.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn histogram(&mut self, name: &str, help: &str, times: &Histogram) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, |samples| write_histogram(&mut samples.0, times))
    }

    /// How times are distributed, by labels.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn histograms(
        &mut self,
        name: &str,
        help: &str,
        write: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, write)
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
    ) -> fmt::Result {
        debug_assert_eq!(name.ends_with(COUNTER), matches!(kind, MetricType::Counter), "{name}");
        let name = name.strip_suffix(COUNTER).unwrap_or(name);
        let with_unit = name.rsplit_once('_').filter(|(_, last)| UNITS.contains(last));
        let (stem, unit) = with_unit.map_or((name, None), |(stem, unit)| (stem, Some(Unit::Other(unit.to_owned()))));
        write(&mut Samples(self.0.encode_descriptor(stem, help, unit.as_ref(), kind)?))
    }
}

impl Samples<'_> {
    /// A sample of [`Exposition::counters`].
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn counter(&mut self, labels: &[(&'static str, &str)], value: u64) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A sample of [`Exposition::gauges`].
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn gauge(&mut self, labels: &[(&'static str, &str)], value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }

    /// A sample of [`Exposition::histograms`].
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn histogram(&mut self, labels: &[(&'static str, &str)], times: &Histogram) -> fmt::Result {
        write_histogram(&mut self.0.encode_family(&labels)?, times)
    }
}

fn write_histogram(encoder: &mut MetricEncoder<'_>, times: &Histogram) -> fmt::Result {
    let (buckets, count, sum) = times.read();
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

impl fmt::Debug for Exposition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition").finish_non_exhaustive()
    }
}

impl fmt::Debug for Samples<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Samples").finish_non_exhaustive()
    }
}
