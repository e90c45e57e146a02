//! From what was said to a plan that can be driven.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use nigh_load::report::OlderFormat;
use nigh_load::workload::{
    self, Arrivals, Body, Gaps, Mix, PAYLOAD_BYTES_MAX, Payloads, Scale, Sizes, Timetable, Within, Workload,
};
use nigh_load::{Bounds, Pacing, Plan, Template, Timer, pictures};
use nigh_proto::{Endpoint, FunctionName, Headers};

use super::options::{GapsOption, LoadOptions, Span, What, When};

/// A plan, and what belongs to it.
pub(super) struct Planned {
    pub(super) plan: Plan,
    /// Brokers that a timetable names.
    pub(super) brokers: Vec<Endpoint>,
    /// How calls are made, in words.
    pub(super) settings: Vec<(String, String)>,
    /// The form of lines, where nothing else is said.
    pub(super) lines: OlderFormat,
}

/// The most that nothing else bounds.
const BETWEEN_CALLS: Span = Span { min: Duration::ZERO, max: Duration::from_millis(100) };

/// Makes a plan of what was said; `flow` is called in place of functions.
///
/// # Errors
/// What is missing or wrong, and what to say instead.
pub(super) fn plan(options: &LoadOptions, flow: Option<FunctionName>) -> anyhow::Result<Planned> {
    let LoadOptions { when, what, .. } = options;
    let mut named: Vec<FunctionName> = options.functions.iter().map(|share| share.function.clone()).collect();
    let mut shares: Vec<f64> = options.functions.iter().map(|share| share.share).collect();
    if let Some(flow) = flow {
        named.push(flow);
        shares.push(1.0);
    }
    let mut lines =
        if what.pictures.is_some() || what.video.is_some() { OlderFormat::Faces } else { OlderFormat::Client };
    let (mut functions, mut brokers, mut clients) = (named, Vec::new(), when.clients);
    let arrivals = match (&when.replay, when.in_flight) {
        (Some(_), _) => {
            lines = OlderFormat::MultiClient;
            let timetable = timetable(when, &functions)?;
            (functions, brokers) = (timetable.functions.clone(), timetable.brokers.clone());
            Arrivals::Timetable(Arc::new(timetable))
        }
        (None, Some(in_flight)) => {
            clients = in_flight;
            // Answers say when calls are made.
            Arrivals::Steady { gaps: Gaps::Constant, every: Duration::from_secs(1) }
        }
        (None, None) => arrivals(when)?,
    };
    let (sizes, payloads) = payloads(what, when.seed, &arrivals)?;
    let shares = if when.replay.is_some() { vec![1.0] } else { shares };
    let workload = Workload { seed: when.seed, clients, arrivals, mix: Mix::new(&shares, sizes)? };
    workload.check()?;
    let pacing = match when.in_flight {
        Some(_) => {
            Pacing::Closed { gaps: gaps(when.gaps)?, think: when.think.map_or(Duration::ZERO, |time| time.duration()) }
        }
        None if when.serial => Pacing::Serial,
        None => Pacing::Open,
    };
    let bounds = Bounds {
        timeout: what.timeout.duration(),
        in_flight_max: options.whom.in_flight_max,
        warm_up: when.warm_up.map_or(Duration::ZERO, |time| time.duration()),
        duration: when.duration.map(|time| time.duration()),
        count: when.count,
    };
    let template = Template {
        headers: Headers::new(what.header.clone())?,
        dry_run: what.dry_run,
        retry_safe: what.retry_safe,
        priority: what.priority,
    };
    let settings = settings(options, &functions);
    let plan = Plan { workload, functions, payloads, pacing, timer: Timer::Thread, bounds, template };
    Ok(Planned { plan, brokers, settings, lines })
}

fn gaps(option: GapsOption) -> anyhow::Result<Gaps> {
    match option {
        GapsOption::Constant => Ok(Gaps::Constant),
        GapsOption::Uniform => Ok(Gaps::Uniform),
        GapsOption::Poisson => Ok(Gaps::Poisson),
        GapsOption::Ipp | GapsOption::Bursts => bail!("a closed loop takes --gaps constant, uniform or poisson"),
    }
}

fn arrivals(when: &When) -> anyhow::Result<Arrivals> {
    // The mean gap of one client.
    let every = match (when.rate, when.every) {
        (Some(rate), _) => Some(Duration::from_secs_f64(f64::from(when.clients) / rate.0)),
        (None, every) => every.map(|time| time.duration()),
    };
    let missing =
        "say how often to call: --rate PER_SECOND or --every TIME, --in-flight N for a closed loop, or --replay FILE";
    match when.gaps {
        GapsOption::Constant | GapsOption::Uniform | GapsOption::Poisson => {
            Ok(Arrivals::Steady { gaps: gaps(when.gaps)?, every: every.context(missing)? })
        }
        GapsOption::Ipp => {
            let (on, off) = (when.on.duration(), when.off.duration());
            let within = match every {
                // The rate is that over all phases, so that it is comparable with other gaps.
                Some(every) => {
                    Within::Poisson(every.mul_f64(on.as_secs_f64() / (on.as_secs_f64() + off.as_secs_f64())))
                }
                None => {
                    let Span { min, max } =
                        when.sleep.context("for --gaps ipp say --rate PER_SECOND, or --sleep MIN..MAX")?;
                    Within::Uniform { min, max }
                }
            };
            Ok(Arrivals::OnOff { on, off, within })
        }
        GapsOption::Bursts => {
            if every.is_some() {
                bail!("for --gaps bursts say --period TIME, --burst N and --sleep MIN..MAX instead of a rate");
            }
            let Span { min: gap_min, max: gap_max } = when.sleep.unwrap_or(BETWEEN_CALLS);
            Ok(Arrivals::Bursts { period: when.period.duration(), calls: when.burst, gap_min, gap_max })
        }
    }
}

fn timetable(when: &When, functions: &[FunctionName]) -> anyhow::Result<Timetable> {
    let Some(path) = &when.replay else { bail!("there is nothing to replay") };
    let scale = Scale {
        from: when.from.map_or(Duration::ZERO, |time| time.duration()),
        length: when.length.map(|time| time.duration()),
        speed: when.speed,
        sample: when.sample,
        work: when.work,
        seed: when.seed,
    };
    let source: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(path).with_context(|| format!("cannot read the timetable {}", path.display()))?;
        Box::new(BufReader::new(file))
    };
    let timetable = workload::replay(source, functions, &scale).with_context(|| format!("{}", path.display()))?;
    if timetable.entries.is_empty() {
        bail!("{}: no call in that part of it", path.display());
    }
    Ok(timetable)
}

fn payloads(what: &What, seed: u64, arrivals: &Arrivals) -> anyhow::Result<(Sizes, Payloads)> {
    let given = if let Some(text) = &what.data {
        Some(vec![Bytes::from(text.clone())])
    } else if !what.file.is_empty() {
        Some(pictures::read(&what.file)?)
    } else if let Some(folder) = &what.pictures {
        Some(pictures::folder(folder)?)
    } else if let Some(video) = &what.video {
        Some(pictures::video(video, what.frames)?)
    } else {
        None
    };
    let Some(given) = given else {
        let bytes_max = match &what.size {
            Sizes::Constant(bytes) | Sizes::Uniform(_, bytes) => *bytes,
            Sizes::Choice(sizes) => sizes.iter().copied().max().unwrap_or_default(),
            Sizes::Given(_) | Sizes::InOrder(_) => 0,
        };
        let listed = match arrivals {
            Arrivals::Timetable(timetable) => timetable
                .entries
                .iter()
                .filter_map(|entry| if let Some(Body::Size(bytes)) = entry.body { Some(bytes) } else { None })
                .max(),
            Arrivals::Steady { .. } | Arrivals::OnOff { .. } | Arrivals::Bursts { .. } => None,
        };
        let bytes_max = bytes_max.max(listed.unwrap_or_default());
        return Ok((what.size.clone(), Payloads::filled(what.fill.into(), bytes_max, seed)));
    };
    if let Some(large) = given.iter().find(|payload| payload.len() as u64 > u64::from(PAYLOAD_BYTES_MAX)) {
        bail!("a payload of {} bytes; no function takes over {PAYLOAD_BYTES_MAX}", large.len());
    }
    let count = u32::try_from(given.len()).context("there are too many payloads")?;
    let in_order = what.in_order || what.video.is_some();
    Ok((if in_order { Sizes::InOrder(count) } else { Sizes::Given(count) }, Payloads::given(given)))
}

/// How calls are made, for those who read the report.
fn settings(options: &LoadOptions, functions: &[FunctionName]) -> Vec<(String, String)> {
    let LoadOptions { when, what, whom, .. } = options;
    let shares = options.functions.iter().map(|share| format!("{}={}", share.function, share.share));
    let named: Vec<String> = match options.functions.len() {
        0 => functions.iter().map(ToString::to_string).collect(),
        1 => vec![functions[0].to_string()],
        _ => shares.collect(),
    };
    let mut told = vec![("functions".to_owned(), shortened(&named))];
    let mut tell = |name: &str, value: String| told.push((name.to_owned(), value));
    let gaps = format!("{:?}", when.gaps).to_lowercase();
    match (when.in_flight, when.rate, when.every, &when.replay) {
        (Some(in_flight), ..) => tell("in flight", in_flight.to_string()),
        (_, Some(rate), ..) => tell("rate", format!("{} calls/s, {gaps}", rate.0)),
        (_, _, Some(every), _) => tell("every", format!("{every}, {gaps}")),
        (.., Some(path)) => tell("replay", path.display().to_string()),
        (None, None, None, None) => tell("gaps", gaps),
    }
    if let Some(think) = when.think {
        tell("think", think.to_string());
    }
    if when.gaps == GapsOption::Ipp {
        tell("phases", format!("{} with calls, {} without", when.on, when.off));
    }
    if when.in_flight.is_none() {
        tell("clients", format!("{}{}", when.clients, if when.serial { ", one call at a time" } else { "" }));
    }
    let sends = match (&what.data, &what.pictures, &what.video) {
        (Some(_), ..) => "a text".to_owned(),
        (_, Some(folder), _) => format!("pictures of {}", folder.display()),
        (.., Some(video)) => format!("frames of {}", video.display()),
        (None, None, None) if !what.file.is_empty() => format!("{} files", what.file.len()),
        (None, None, None) => match &what.size {
            Sizes::Constant(bytes) => format!("{bytes} B"),
            Sizes::Uniform(min, max) => format!("{min} to {max} B"),
            Sizes::Choice(sizes) => shortened(&sizes.iter().map(|bytes| format!("{bytes} B")).collect::<Vec<_>>()),
            Sizes::Given(_) | Sizes::InOrder(_) => String::new(),
        },
    };
    tell("payload", sends);
    if whom.to.len() + whom.http.len() > 1 {
        tell("persistence", whom.persistence.to_string());
    }
    if let Some(warm_up) = when.warm_up {
        tell("warm-up", warm_up.to_string());
    }
    tell("deadline", what.timeout.to_string());
    tell("seed", when.seed.to_string());
    told
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
