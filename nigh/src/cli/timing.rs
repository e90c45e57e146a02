//! Where the time of one call went, as a small table with bars.

use std::fmt;
use std::time::Duration;

use nigh_proto::{Estimate, NodeName, Reply, Spread, Timing};
use serde_json::{Value, json};

/// Width of the longest bar.
const BAR_WIDTH: u32 = 32;

/// A reply's measurements, for people.
pub(super) struct Breakdown<'a>(pub(super) &'a Reply);

impl fmt::Display for Breakdown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(reply) = self;
        let total = reply.timing.total();
        for (part, time) in parts(&reply.timing) {
            let share = share(time, total);
            let line = format!("  {part:<9}{:>12} {:>5.1} %  {}", ms(time), share * 100.0, bar(time, total));
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f, "  {:<9}{:>12}", "total", ms(total))?;
        match reply.version {
            Some(version) => writeln!(f, "  computer   {} (version {})", reply.computer, version.short())?,
            None => writeln!(f, "  computer   {} (its own function)", reply.computer)?,
        }
        write!(f, "  call       {}, passed on {}", reply.call, times(reply.hops))
    }
}

/// A dry run's answer, for people: the forecast of this computer.
pub(super) struct Expected<'a>(pub(super) &'a Estimate, pub(super) &'a NodeName);

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(estimate, computer) = self;
        writeln!(f, "  computer  {computer}")?;
        let Estimate { queue, init, run, samples, similar, init_spread, run_spread } = estimate;
        if *samples == 0 {
            writeln!(f, "  queue    {:>12}", ms(*queue))?;
            return write!(f, "  no call of it has been measured there yet, so nothing is known of init and run");
        }
        writeln!(f, "  queue    {:>12}", ms(*queue))?;
        writeln!(f, "  init     {:>12}  {}", ms(*init), Range(init_spread))?;
        writeln!(f, "  run      {:>12}  {}", ms(*run), Range(run_spread))?;
        writeln!(f, "  total    {:>12}", ms(*queue + *init + *run))?;
        write!(f, "  from {} measured, {similar} of about this size", calls(*samples))?;
        if *similar == 0 { write!(f, ": carried over from other sizes") } else { Ok(()) }
    }
}

/// Where eight of ten calls lie.
struct Range<'a>(&'a Spread);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Spread { p10, p90 }) = self;
        write!(f, "eight of ten within {:.3} to {}", p10.as_secs_f64() * 1000.0, ms(*p90))
    }
}

/// The parts in microseconds.
pub(super) fn as_json(timing: &Timing) -> Value {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut parts: serde_json::Map<String, Value> =
        parts(timing).into_iter().map(|(part, time)| (part.to_owned(), us(time).into())).collect();
    parts.insert("total".into(), us(timing.total()).into());
    parts.into()
}

/// An estimate in microseconds.
pub(super) fn estimate_as_json(estimate: &Estimate) -> Value {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let Estimate { queue, init, run, samples, similar, init_spread, run_spread } = estimate;
    let spread = |spread: &Spread| json!({ "p10": us(spread.p10), "p90": us(spread.p90) });
    json!({
        "queue": us(*queue), "init": us(*init), "run": us(*run), "total": us(*queue + *init + *run),
        "init_spread": spread(init_spread), "run_spread": spread(run_spread),
        "samples": samples, "similar": similar,
    })
}

fn parts(timing: &Timing) -> [(&'static str, Duration); 6] {
    [
        ("network", timing.network),
        ("broker", timing.broker),
        ("queue", timing.queue),
        ("init", timing.init),
        ("run", timing.run),
        ("reset", timing.reset),
    ]
}

fn share(time: Duration, total: Duration) -> f64 {
    if total.is_zero() { 0.0 } else { time.as_secs_f64() / total.as_secs_f64() }
}

fn bar(time: Duration, total: Duration) -> String {
    // Rounded to the nearest, so that what is there at all and counts is seen.
    let width = (time * BAR_WIDTH * 2 + total).as_nanos().checked_div((total * 2).as_nanos()).unwrap_or(0);
    "█".repeat(usize::try_from(width).unwrap_or(0))
}

fn calls(count: u64) -> String {
    match count {
        1 => "one call".to_owned(),
        count => format!("{count} calls"),
    }
}

fn times(hops: u32) -> String {
    match hops {
        1 => "once".to_owned(),
        hops => format!("{hops} times"),
    }
}

/// Milliseconds to the microsecond.
pub(super) fn ms(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use nigh_proto::{CallId, Digest, Load, Outcome};

    use super::*;

    fn reply(timing: Timing) -> Reply {
        Reply {
            outcome: Outcome::Estimate(Estimate::default()),
            computer: "computer-10000".parse().unwrap(),
            responder: None,
            version: Some(Digest::of(b"x")),
            call: "some-call".parse::<CallId>().unwrap(),
            hops: 1,
            load: Load::default(),
            timing,
        }
    }

    #[test]
    fn parts_are_told_in_the_order_of_the_walk_with_their_share() {
        let ms = Duration::from_millis;
        let timing = Timing { network: ms(1), init: ms(1), run: ms(6), ..Timing::default() };
        let table = Breakdown(&reply(timing)).to_string();
        let expected = "  network      1.000 ms  12.5 %  ████
  broker       0.000 ms   0.0 %
  queue        0.000 ms   0.0 %
  init         1.000 ms  12.5 %  ████
  run          6.000 ms  75.0 %  ████████████████████████
  reset        0.000 ms   0.0 %
  total        8.000 ms
  computer   computer-10000 (version 2d711642b726)
  call       some-call, passed on once";
        assert_eq!(table, expected);
        assert_eq!(as_json(&timing)["total"], 8000);
    }

    #[test]
    fn a_forecast_tells_how_far_it_can_be_trusted() {
        let us = Duration::from_micros;
        let estimate = Estimate {
            queue: us(250),
            init: us(40),
            run: us(12_300),
            samples: 120,
            similar: 14,
            init_spread: Spread { p10: us(35), p90: us(60) },
            run_spread: Spread { p10: us(11_900), p90: us(14_200) },
        };
        let computer = "computer-7".parse().unwrap();
        let expected = "  computer  computer-7
  queue        0.250 ms
  init         0.040 ms  eight of ten within 0.035 to 0.060 ms
  run         12.300 ms  eight of ten within 11.900 to 14.200 ms
  total       12.590 ms
  from 120 calls measured, 14 of about this size";
        assert_eq!(Expected(&estimate, &computer).to_string(), expected);
        let json = estimate_as_json(&estimate);
        assert_eq!(
            (&json["run_spread"]["p90"], &json["similar"], &json["total"]),
            (&14_200.into(), &14.into(), &12_590.into())
        );
        let elsewhere = Expected(&Estimate { samples: 1, similar: 0, ..estimate }, &computer).to_string();
        assert!(
            elsewhere.ends_with("from one call measured, 0 of about this size: carried over from other sizes"),
            "{elsewhere}"
        );
        assert!(Expected(&Estimate::default(), &computer).to_string().contains("no call of it has been measured"));
    }

    #[test]
    fn a_call_that_took_no_time_has_no_bars() {
        let table = Breakdown(&reply(Timing::default())).to_string();
        assert!(!table.contains('█') && !table.contains("NaN"), "{table}");
    }
}
