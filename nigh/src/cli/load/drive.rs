//! Driving a plan: connections, progress while it goes on, results.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nigh_client::{CallQueue, Caller, CallerLimits};
use nigh_load::drive::{Ended, HttpCaller, InTurn, Keeping, Kept};
use nigh_load::report::{self, Calls};
use nigh_load::{Brokers, Plan, Recorder, Report, Tally, Target};
use nigh_proto::Endpoint;
use tokio_util::sync::CancellationToken;

use super::device::{self, Following};
use super::flows::Kind;
use super::options::{Driver, LoadOptions, Results, Whom};
use super::plan::{self, Planned};
use super::view::{self, ForPeople};
use crate::cli::{Global, local};
use crate::config::ports;
use crate::output::Output;
use crate::signals::StopSignals;

/// Time between two looks at how it goes.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(options: &LoadOptions, global: &Global, output: Output) -> anyhow::Result<()> {
    if options.several.is_asynchronous && options.several.driven_by == Driver::Client {
        bail!("--async has the broker run the flow; leave out --driven-by client");
    }
    let kind = Kind::of(&options.several, global).await?;
    let planned = plan::plan(options, kind.as_ref().and_then(Kind::name))?;
    let kept = options.results.save.as_ref().map(|folder| kept(folder.clone())).transpose()?;
    let Whom { to, http, connections, answer_max, .. } = &options.whom;
    if !http.is_empty() {
        if global.tls_dir.is_some() {
            bail!("--http speaks plain HTTP only; over TLS make the calls over gRPC, with --to");
        }
        let targets = http
            .iter()
            .map(|endpoint| (endpoint.clone(), Keeping::new(HttpCaller::new(endpoint.clone()), kept.clone())));
        return measure(targets.collect(), planned, options, output).await;
    }
    let answer_bytes_max = usize::try_from(answer_max.bytes()).unwrap_or(usize::MAX);
    let limits = CallerLimits { answer_bytes_max, ..CallerLimits::default() };
    if let Some(mec) = &options.whom.mec {
        let device = device::join(mec, &options.whom, &planned.plan.functions).await?;
        let following = Keeping::new(Following::new(&device, global.clone(), limits)?, kept);
        let measured = measure(vec![(device::endpoint(mec)?, following)], planned, options, output).await;
        device.leave().await;
        return measured;
    }
    let endpoints: Vec<Endpoint> = match (to.is_empty(), &global.broker, planned.brokers.is_empty()) {
        (false, ..) => to.clone(),
        (true, Some(broker), _) => vec![broker.clone()],
        (true, None, true) => vec![local(ports::CALLS)],
        (true, None, false) => planned.brokers.clone(),
    };
    let mut targets = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let remote = global.remote(endpoint.clone())?;
        let callers = (0..*connections).map(|_| Caller::new(remote.clone(), limits.clone())).collect();
        let in_turn = InTurn::new(callers).context("at least one connection is needed")?;
        targets.push((endpoint, Keeping::new(in_turn, kept.clone())));
    }
    let Some(kind) = kind else { return measure(targets, planned, options, output).await };
    let around = targets.into_iter().map(|(endpoint, target)| {
        let queue = CallQueue::new(global.remote(endpoint.clone())?, &limits);
        anyhow::Ok((endpoint, kind.around(target, queue)))
    });
    measure(around.collect::<Result<_, _>>()?, planned, options, output).await
}

fn kept(folder: PathBuf) -> anyhow::Result<Kept> {
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    Ok(Kept::new(folder))
}

async fn measure<T: Target>(
    targets: Vec<(Endpoint, T)>,
    planned: Planned,
    options: &LoadOptions,
    output: Output,
) -> anyhow::Result<()> {
    let Planned { plan, brokers: named, mut settings, lines } = planned;
    let endpoints: Vec<String> = targets.iter().map(|(endpoint, _)| endpoint.to_string()).collect();
    settings.insert(1, ("to".to_owned(), endpoints.join(", ")));
    let mut plan = plan;
    if options.whom.to.is_empty() && options.whom.http.is_empty() && targets.len() == named.len() {
        // The timetable's own brokers, by place.
    } else {
        plan.forget_brokers();
    }
    let brokers = Brokers::new(targets, options.whom.persistence, plan.workload.clients)?;
    let results = &options.results;
    let label = label(results, &plan);
    let calls = calls(results, &plan, lines)?;
    let tally = Tally::new(&plan.functions, plan.bounds.warm_up);
    let stop = CancellationToken::new();
    let signals = StopSignals::listen()?;
    if let Some(delay) = options.when.delay {
        tokio::time::sleep(delay.duration()).await;
    }
    let began = SystemTime::now();
    let told_began = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S %z").to_string();
    let (recorder, samples) = Recorder::start(tally, calls).context("cannot start a thread")?;
    let quiet = output.is_json() || results.lines.is_some();
    let work = async {
        let horizon = plan.bounds.horizon();
        let driven = nigh_load::drive(plan, brokers, samples, stop.clone());
        let ended = watch(driven, &recorder, horizon, quiet).await;
        anyhow::Ok((ended, recorder.finish().await))
    };
    let (ended, (tally, calls)) = signals.run(work, stop.clone()).await?;
    let (report, slices) = tally.report(label, told_began, settings, ended.horizon, ended.stopped_early);
    if let Some(Err(error)) = calls.map(Calls::finish) {
        output.note(format_args!("warning: not every call was written: {error}"));
    }
    if let Some(folder) = &results.out {
        report::write(folder, &report, &slices, began)?;
    }
    tell(&report, results, output)
}

fn tell(report: &Report, results: &Results, output: Output) -> anyhow::Result<()> {
    if results.lines.is_none() {
        output.result(report, |_| ForPeople(report))?;
    }
    if let Some(folder) = results.out.as_ref().filter(|_| !output.is_json()) {
        output.note(format_args!("written to {}; look at {}", folder.display(), folder.join("report.html").display()));
    }
    if report.calls.answered > 0 || report.calls.due == 0 {
        return Ok(());
    }
    let errors = report.errors.first().map_or("no reason known", |error| error.kind.as_str());
    bail!("no call was answered ({errors}); `nigh invoke` says more about a single call")
}

/// What a run is called.
fn label(results: &Results, plan: &Plan) -> String {
    let folder = results.out.as_ref().and_then(|folder| folder.file_name());
    let functions = || plan.functions.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    results.label.clone().or_else(|| folder.map(|name| name.to_string_lossy().into_owned())).unwrap_or_else(functions)
}

/// Where single calls are written, if anywhere.
fn calls(results: &Results, plan: &Plan, lines: report::OlderFormat) -> anyhow::Result<Option<Calls>> {
    if results.out.is_none() && results.lines.is_none() {
        return Ok(None);
    }
    let format = results.lines.map_or(lines, Into::into);
    let offset = results.time_offset.map_or(Duration::ZERO, |time| time.duration());
    let mut calls = Calls::new(&plan.functions, format, offset);
    if results.lines.is_some() {
        calls = calls.lines_to(std::io::LineWriter::new(std::io::stdout()));
    }
    if let Some(folder) = &results.out {
        calls = calls.in_folder(folder, results.append, results.overwrite)?;
    }
    Ok(Some(calls))
}

/// Shows how it goes until it has ended.
async fn watch(
    driven: impl Future<Output = Ended>,
    recorder: &Recorder,
    horizon: Option<Duration>,
    quiet: bool,
) -> Ended {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(1000) };
    let template = if horizon.is_some() { "{bar:24} {elapsed} {msg}" } else { "{spinner} {elapsed} {msg}" };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let began = tokio::time::Instant::now();
    let mut looks = tokio::time::interval(LOOK);
    let mut driven = std::pin::pin!(driven);
    let ended = loop {
        tokio::select! {
            ended = &mut driven => break ended,
            _ = looks.tick() => {
                let share = horizon.map_or(0.0, |horizon| began.elapsed().as_secs_f64() / horizon.as_secs_f64());
                bar.set_position(view::per_mille(share));
                bar.set_message(view::Line(recorder.progress(), LOOK).to_string());
            }
        }
    };
    bar.finish_and_clear();
    ended
}
