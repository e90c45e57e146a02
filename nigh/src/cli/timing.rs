//! Where the time of one call went, as a small table with bars.

use std::fmt;
use std::time::Duration;

use nigh_proto::time::us;
use nigh_proto::{Estimate, Load, NodeName, Reply, Spread, Timing};
use serde_json::{Value, json};

/// Width of the longest bar.
const BAR_WIDTH: u32 = 16;
/// A call that took less needs no explanation.
const QUICK: Duration = Duration::from_millis(20);

/// A reply's measurements, for people.
pub(super) struct Breakdown<'a>(pub(super) &'a Reply);

impl fmt::Display for Breakdown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(reply) = self;
        let timing = &reply.timing;
        let total = timing.total();
        for Part { name, time, what } in parts(timing) {
            let share = share(time, total);
            writeln!(f, "  {name:<9}{:>12} {:>5.1} %  {:<16}  {what}", ms(time), share * 100.0, bar(time, total))?;
        }
        writeln!(f, "  {:<9}{:>12}          {:<16}  all that this caller waited", "total", ms(total), "")?;
        if !timing.reset.is_zero() {
            let what = "before this call came: making its instance as new";
            writeln!(f, "  {:<9}{:>12}          {:<16}  {what}", "reset", ms(timing.reset), "")?;
        }
        if let Some(reason) = reason(reply) {
            writeln!(f, "  mostly     {reason}")?;
        }
        match reply.version {
            Some(version) => writeln!(f, "  computer   {} (version {})", reply.computer, version.short())?,
            None => writeln!(f, "  computer   {} (its own function)", reply.computer)?,
        }
        write!(f, "  call       {}, passed on {}", reply.call, times(reply.hops))
    }
}

/// What took more than half of a call's time, and what can be done about it; nothing for a call that was quick anyway.
fn reason(reply: &Reply) -> Option<String> {
    let total = reply.timing.total();
    let largest = parts(&reply.timing).into_iter().max_by_key(|part| part.time)?;
    if total < QUICK || largest.time * 2 < total {
        return None;
    }
    let Load { running, queued, workers, .. } = reply.load;
    let advice = match largest.name {
        "network" => "look at the connection, and whether caller or broker are short of processor time".to_owned(),
        "broker" => "a computer failed or refused before another took the call: `nigh routes`".to_owned(),
        "queue" => format!(
            "{running} of {workers} places were taken and {queued} calls waited; add computers, or raise --concurrency"
        ),
        "init" => "a large module or memory to set up; deploy with --reuse to keep instances".to_owned(),
        _ => "the function itself; `nigh logs --call` shows what it said".to_owned(),
    };
    Some(format!("{}: {advice}", largest.name))
}

/// A dry run's answer, for people: the forecast of this computer.
pub(super) struct Expected<'a>(pub(super) &'a Estimate, pub(super) &'a NodeName);

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(estimate, computer) = self;
        writeln!(f, "  computer  {computer}")?;
        let Estimate { queue, init, run, samples, similar, init_spread, run_spread, modelled } = estimate;
        if *samples == 0 && !modelled {
            writeln!(f, "  queue    {:>12}", ms(*queue))?;
            return write!(f, "  no call of it has been measured there yet, so nothing is known of init and run");
        }
        writeln!(f, "  queue    {:>12}", ms(*queue))?;
        if *modelled {
            writeln!(f, "  run      {:>12}", ms(*run))?;
            writeln!(f, "  total    {:>12}", ms(*queue + *run))?;
            return write!(f, "  by the model of its hardware, if nothing else arrives");
        }
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

/// The parts in microseconds; their sum is the total. The reset was before the call.
pub(super) fn as_json(timing: &Timing) -> Value {
    let parts = parts(timing).map(|part| (part.name.to_owned(), us(part.time)));
    let total = parts.iter().map(|(_, us)| us).sum::<u64>();
    let mut told: serde_json::Map<String, Value> =
        parts.into_iter().map(|(name, us)| (name, Value::from(us))).collect();
    told.insert("total".into(), total.into());
    told.insert("reset".into(), us(timing.reset).into());
    told.into()
}

/// An estimate in microseconds.
pub(super) fn estimate_as_json(estimate: &Estimate) -> Value {
    let Estimate { queue, init, run, samples, similar, init_spread, run_spread, modelled } = estimate;
    let spread = |spread: &Spread| json!({ "p10": us(spread.p10), "p90": us(spread.p90) });
    json!({
        "queue": us(*queue), "init": us(*init), "run": us(*run), "total": us(*queue + *init + *run),
        "init_spread": spread(init_spread), "run_spread": spread(run_spread),
        "samples": samples, "similar": similar, "modelled": modelled,
    })
}

/// One part of a call's time.
struct Part {
    name: &'static str,
    time: Duration,
    what: &'static str,
}

/// In the order of the walk. Together they are the total: what nobody else accounts for is the network's.
fn parts(timing: &Timing) -> [Part; 5] {
    let part = |name, time, what| Part { name, time, what };
    [
        part("network", timing.network, "there and back, connecting included: all that is not below"),
        part("broker", timing.broker, "choosing a computer"),
        part("queue", timing.queue, "waiting for a turn at the computer"),
        part("init", timing.init, "making or taking an instance"),
        part("run", timing.run, "in the function"),
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
    use nigh_proto::{CallId, Digest, Outcome};

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
            steps: Vec::new(),
            states: Vec::new(),
        }
    }

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn parts_are_told_in_the_order_of_the_walk_with_their_share() {
        let timing = Timing { network: MS(1), init: MS(1), run: MS(6), reset: MS(3), ..Timing::default() };
        let table = Breakdown(&reply(timing)).to_string();
        let expected = "  network      1.000 ms  12.5 %  ██                there and back, connecting included: all that is not below
  broker       0.000 ms   0.0 %                    choosing a computer
  queue        0.000 ms   0.0 %                    waiting for a turn at the computer
  init         1.000 ms  12.5 %  ██                making or taking an instance
  run          6.000 ms  75.0 %  ████████████      in the function
  total        8.000 ms                            all that this caller waited
  reset        3.000 ms                            before this call came: making its instance as new
  computer   computer-10000 (version 2d711642b726)
  call       some-call, passed on once";
        assert_eq!(table, expected);
        assert_eq!((&as_json(&timing)["total"], &as_json(&timing)["reset"]), (&8000.into(), &3000.into()));
    }

    #[test]
    fn a_slow_call_is_explained_by_what_took_most_of_it() {
        let slow = |timing| Breakdown(&reply(timing)).to_string();
        let why = |timing| slow(timing).lines().find_map(|line| line.strip_prefix("  mostly     ").map(str::to_owned));
        assert!(why(Timing { run: MS(500), queue: MS(2), ..Timing::default() }).unwrap().starts_with("run: "));
        assert!(why(Timing { run: MS(2), queue: MS(90), ..Timing::default() }).unwrap().contains("--concurrency"));
        assert!(why(Timing { broker: MS(90), ..Timing::default() }).unwrap().contains("nigh routes"));
        assert_eq!(why(Timing { run: MS(10), ..Timing::default() }), None, "quick");
        assert_eq!(why(Timing { run: MS(10), queue: MS(10), init: MS(10), ..Timing::default() }), None, "no one part");
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
            modelled: false,
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
        let modelled = Expected(&Estimate { samples: 0, modelled: true, ..estimate }, &computer).to_string();
        assert!(modelled.contains("12.550 ms\n  by the model") && !modelled.contains("init"), "{modelled}");
    }

    #[test]
    fn a_call_that_took_no_time_has_no_bars() {
        let table = Breakdown(&reply(Timing::default())).to_string();
        assert!(!table.contains('█') && !table.contains("NaN"), "{table}");
    }
}
