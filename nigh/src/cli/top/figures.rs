//! What two looks at everybody come to: rates between them, and sums over computers.

use std::collections::BTreeMap;
use std::time::Duration;

use nigh_client::{DestinationState, FunctionStatus, Routes};
use nigh_proto::time::us;
use nigh_proto::{FunctionName, NodeName, Timing};
use serde::Serialize;

use super::sample::Sample;

/// What functions are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Order {
    /// Most calls first
    #[default]
    Calls,
    /// Most errors and refusals first
    Errors,
    /// Slowest first
    P99,
    /// By name
    Name,
}

/// Everything that is shown, in order.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    pub(super) functions: Vec<FunctionFigures>,
    pub(super) computers: Vec<ComputerFigures>,
    pub(super) brokers: Vec<BrokerFigures>,
    #[serde(skip)]
    pub(super) order: Order,
}

/// A function, on one computer or on all together. Rates are of the time between two looks; absent after the first.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct FunctionFigures {
    pub(super) function: String,
    pub(super) calls_per_s: Option<f64>,
    pub(super) errors_per_s: Option<f64>,
    pub(super) refused_per_s: Option<f64>,
    pub(super) running: u32,
    pub(super) queued: u32,
    /// Of the last 10 to 20 s; absent where no call ended in them.
    pub(super) p50_us: Option<u64>,
    pub(super) p99_us: Option<u64>,
    /// Means of the last calls.
    pub(super) queue_us: u64,
    pub(super) init_us: u64,
    pub(super) run_us: u64,
    pub(super) reset_us: u64,
    pub(super) calls: u64,
    pub(super) function_errors: u64,
    pub(super) refused: u64,
    /// A computer runs its calls one at a time, as they break its limits again and again.
    pub(super) held_back: bool,
    #[serde(skip)]
    latency: BTreeMap<Duration, u64>,
}

/// A computer.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ComputerFigures {
    pub(super) name: String,
    pub(super) endpoint: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Why it does not say how it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    pub(super) calls_per_s: Option<f64>,
    pub(super) running: u32,
    pub(super) queued: u32,
    pub(super) workers: u32,
    pub(super) utilisation: [f32; 3],
    pub(super) instances: u32,
    pub(super) instances_max: u32,
    /// Its hardware is modelled, and these are its processors: how busy each was in the last second.
    pub(super) modelled: bool,
    pub(super) processors: BTreeMap<String, f32>,
    pub(super) resident_bytes: u64,
    pub(super) functions: Vec<FunctionFigures>,
}

/// A broker, as its forwarding table tells.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct BrokerFigures {
    pub(super) name: String,
    pub(super) endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    pub(super) calls_per_s: Option<f64>,
    pub(super) failures_per_s: Option<f64>,
    pub(super) in_flight: u64,
    pub(super) in_use: u64,
    pub(super) set_aside: u64,
}

impl Figures {
    pub(super) fn new(sample: &Sample, before: Option<&Sample>, order: Order) -> Self {
        let computers: Vec<_> = sample.computers.iter().map(|told| computer(told, sample, before)).collect();
        let mut functions: BTreeMap<&str, FunctionFigures> = BTreeMap::new();
        for one in computers.iter().flat_map(|computer| &computer.functions) {
            functions.entry(&one.function).or_default().add(one);
        }
        let mut functions: Vec<_> = functions.into_values().map(FunctionFigures::with_percentiles).collect();
        functions.sort_by(|one, other| other.rank(order).total_cmp(&one.rank(order)));
        let brokers = sample.brokers.iter().map(|told| broker(told, sample, before)).collect();
        Self { functions, computers, brokers, order }
    }
}

impl FunctionFigures {
    fn new(status: &FunctionStatus, before: Option<&FunctionStatus>, seconds: f64) -> Self {
        let rate = |of: fn(&FunctionStatus) -> u64| rate(of(status), of(before?), seconds);
        let Timing { queue, init, run, reset, .. } = status.mean;
        let told = Self {
            function: status.function.to_string(),
            calls_per_s: rate(|status| status.calls),
            errors_per_s: rate(|status| status.function_errors),
            refused_per_s: rate(|status| status.refused),
            running: status.running,
            queued: status.queued,
            queue_us: us(queue),
            init_us: us(init),
            run_us: us(run),
            reset_us: us(reset),
            calls: status.calls,
            function_errors: status.function_errors,
            refused: status.refused,
            held_back: status.held_back,
            latency: status.latency.iter().copied().collect(),
            ..Self::default()
        };
        told.with_percentiles()
    }

    /// Adds the same function on another computer; percentiles are for [`FunctionFigures::with_percentiles`].
    fn add(&mut self, other: &Self) {
        let (mine, others) = (self.recent(), other.recent());
        let mean = |mine_us: u64, others_us: u64| match mine + others {
            0 => mine_us.max(others_us),
            all => (mine_us * mine + others_us * others) / all,
        };
        let sum =
            |one: Option<f64>, other: Option<f64>| one.zip(other).map(|(one, other)| one + other).or(one).or(other);
        *self = Self {
            function: other.function.clone(),
            calls_per_s: sum(self.calls_per_s, other.calls_per_s),
            errors_per_s: sum(self.errors_per_s, other.errors_per_s),
            refused_per_s: sum(self.refused_per_s, other.refused_per_s),
            running: self.running.saturating_add(other.running),
            queued: self.queued.saturating_add(other.queued),
            queue_us: mean(self.queue_us, other.queue_us),
            init_us: mean(self.init_us, other.init_us),
            run_us: mean(self.run_us, other.run_us),
            reset_us: mean(self.reset_us, other.reset_us),
            calls: self.calls.saturating_add(other.calls),
            function_errors: self.function_errors.saturating_add(other.function_errors),
            refused: self.refused.saturating_add(other.refused),
            held_back: self.held_back || other.held_back,
            latency: std::mem::take(&mut self.latency),
            ..Self::default()
        };
        for (upto, calls) in &other.latency {
            *self.latency.entry(*upto).or_default() += calls;
        }
    }

    /// Calls that ended in the window.
    fn recent(&self) -> u64 {
        self.latency.values().sum()
    }

    fn with_percentiles(mut self) -> Self {
        let all = self.recent();
        let at = |percent: u64| {
            let rank = (all * percent).div_ceil(100);
            let mut seen = 0;
            let reaches = |(_, calls): &(&Duration, &u64)| {
                seen += **calls;
                seen >= rank
            };
            self.latency.iter().find(reaches).map(|(upto, _)| us(*upto))
        };
        (self.p50_us, self.p99_us) = (at(50), at(99));
        self
    }

    fn rank(&self, order: Order) -> f64 {
        match order {
            Order::Calls => self.calls_per_s.unwrap_or(0.0),
            Order::Errors => self.errors_per_s.unwrap_or(0.0) + self.refused_per_s.unwrap_or(0.0),
            Order::P99 => f64::from(u32::try_from(self.p99_us.unwrap_or(0)).unwrap_or(u32::MAX)),
            // They come by name.
            Order::Name => 0.0,
        }
    }
}

type Computer = (
    NodeName,
    nigh_proto::Endpoint,
    nigh_proto::Labels,
    Result<nigh_client::ComputerStatus, nigh_proto::PlatformError>,
);

fn computer((name, endpoint, labels, status): &Computer, sample: &Sample, before: Option<&Sample>) -> ComputerFigures {
    let mut told =
        ComputerFigures { name: name.to_string(), endpoint: endpoint.to_string(), ..ComputerFigures::default() };
    told.labels = labels.to_wire().into_iter().collect();
    let status = match status {
        Ok(status) => status,
        Err(error) => return ComputerFigures { error: Some(error.message.clone()), ..told },
    };
    let seconds = before.map_or(0.0, |before| sample.taken.duration_since(before.taken).as_secs_f64());
    let functions_before = before
        .and_then(|before| before.computers.iter().find(|(other, ..)| other == name))
        .and_then(|(.., status)| Some(&status.as_ref().ok()?.functions));
    let function_before =
        |function: &FunctionName| functions_before?.iter().find(|status| status.function == *function);
    let functions = status.functions.iter();
    told.functions = functions.map(|one| FunctionFigures::new(one, function_before(&one.function), seconds)).collect();
    told.calls_per_s = before.map(|_| told.functions.iter().filter_map(|one| one.calls_per_s).sum());
    told.running = status.load.running;
    told.queued = status.load.queued;
    told.workers = status.load.workers;
    told.utilisation = status.load.utilisation;
    told.instances = status.instances;
    told.instances_max = status.instances_max;
    told.modelled = status.modelled;
    told.processors = status.processors.iter().map(|one| (one.processor.clone(), one.share)).collect();
    told.resident_bytes = status.resident_bytes;
    told
}

type Broker = (nigh_proto::Broker, Result<Routes, nigh_proto::PlatformError>);

fn broker((broker, routes): &Broker, sample: &Sample, before: Option<&Sample>) -> BrokerFigures {
    let mut told = BrokerFigures {
        name: broker.name.to_string(),
        endpoint: broker.endpoint.to_string(),
        ..BrokerFigures::default()
    };
    let routes = match routes {
        Ok(routes) => routes,
        Err(error) => return BrokerFigures { error: Some(error.message.clone()), ..told },
    };
    let routes_before = before.and_then(|before| {
        let (_, routes) = before.brokers.iter().find(|(other, _)| other.name == broker.name)?;
        Some((routes.as_ref().ok()?, sample.taken.duration_since(before.taken).as_secs_f64()))
    });
    let sum = |routes: &Routes, of: fn(&nigh_client::Destination) -> u64| -> u64 {
        routes.routes.iter().flat_map(|route| &route.destinations).map(of).sum()
    };
    let rate = |of| routes_before.and_then(|(before, seconds)| rate(sum(routes, of), sum(before, of), seconds));
    told.calls_per_s = rate(|destination| destination.calls);
    told.failures_per_s = rate(|destination| destination.failures);
    told.in_flight = sum(routes, |destination| destination.in_flight.into());
    told.in_use = sum(routes, |destination| u64::from(destination.state == DestinationState::InUse));
    told.set_aside = sum(routes, |destination| u64::from(destination.state != DestinationState::InUse));
    told
}

/// How fast a count grew; nothing where it shrank, because whoever counts has started anew.
fn rate(now: u64, before: u64, seconds: f64) -> Option<f64> {
    let grown = u32::try_from(now.checked_sub(before)?).map_or(f64::INFINITY, f64::from);
    (seconds > 0.0).then(|| grown / seconds)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use nigh_client::{ComputerStatus, Destination, Route};
    use nigh_proto::{Digest, Load, PlatformError, Reason};

    use super::*;

    fn function(name: &str, calls: u64, latency: &[(u64, u64)]) -> FunctionStatus {
        FunctionStatus {
            function: name.parse().unwrap(),
            version: Some(Digest::of(b"x")),
            calls,
            function_errors: calls / 10,
            refused: 2,
            running: 3,
            queued: 4,
            p50: Duration::ZERO,
            p99: Duration::ZERO,
            latency: latency.iter().map(|(us, calls)| (Duration::from_micros(*us), *calls)).collect(),
            mean: Timing { run: Duration::from_micros(1500), ..Timing::default() },
            held_back: name == "rare",
        }
    }

    fn status(name: &str, functions: Vec<FunctionStatus>) -> ComputerStatus {
        ComputerStatus {
            name: name.parse().unwrap(),
            load: Load { running: 3, queued: 4, workers: 8, utilisation: [0.5, 0.25, 0.125], service: Duration::ZERO },
            functions,
            resident_bytes: 64 << 20,
            instances_max: 256,
            instances: 5,
            processors: Vec::new(),
            modelled: false,
        }
    }

    pub(in super::super) fn sample(taken: Instant, calls: u64) -> Sample {
        let computer = |number: u16, status| {
            let name: NodeName = format!("computer-{number}").parse().unwrap();
            let labels = nigh_proto::Labels::new([format!("zone=z{number}").parse().unwrap()]).unwrap();
            (name, format!("127.0.0.1:{number}").parse().unwrap(), labels, status)
        };
        let fast = vec![function("echo", calls, &[(100, 98), (200, 2)]), function("rare", 1, &[])];
        let slow = vec![function("echo", calls, &[(100, 1), (90_000, 1)])];
        let gone = PlatformError::new(Reason::Unreachable, "cannot connect");
        let destination = |state, calls| Destination {
            endpoint: "127.0.0.1:1".parse().unwrap(),
            weight_ms: None,
            state,
            in_flight: 2,
            calls,
            failures: 0,
            by_hand: false,
            is_final: true,
        };
        let destinations =
            vec![destination(DestinationState::InUse, calls), destination(DestinationState::SetAside, calls)];
        let routes = vec![Route { function: "echo".parse().unwrap(), destinations }];
        let broker = nigh_proto::Broker {
            name: "broker-1".parse().unwrap(),
            endpoint: "127.0.0.1:9".parse().unwrap(),
            table_endpoint: None,
            http_endpoint: None,
            older: false,
        };
        Sample {
            taken,
            computers: vec![
                computer(1, Ok(status("computer-1", fast))),
                computer(2, Ok(status("computer-2", slow))),
                computer(3, Err(gone)),
            ],
            brokers: vec![(broker, Ok(Routes { policy: "random".into(), routes }))],
        }
    }

    pub(in super::super) fn figures(order: Order) -> Figures {
        let began = Instant::now();
        Figures::new(&sample(began + Duration::from_secs(2), 150), Some(&sample(began, 100)), order)
    }

    #[test]
    fn a_functions_figures_are_of_all_computers_together() {
        let figures = figures(Order::Calls);
        let echo = &figures.functions[0];
        assert_eq!((echo.function.as_str(), echo.calls_per_s, echo.errors_per_s), ("echo", Some(50.0), Some(5.0)));
        assert_eq!((echo.running, echo.queued, echo.calls), (6, 8, 300));
        // 102 calls in all, one of them very slow.
        assert_eq!((echo.p50_us, echo.p99_us), (Some(100), Some(200)));
        assert_eq!(echo.run_us, 1500);
        assert_eq!(figures.computers[1].functions[0].p99_us, Some(90_000));
        assert_eq!(figures.functions[1].p50_us, None, "nothing was called of late");
    }

    #[test]
    fn whoever_started_anew_or_is_new_has_no_rate_yet() {
        let began = Instant::now();
        let later = began + Duration::from_secs(1);
        let anew = Figures::new(&sample(later, 3), Some(&sample(began, 100)), Order::Calls);
        assert_eq!(anew.functions[0].calls_per_s, None);
        let first = Figures::new(&sample(began, 3), None, Order::Calls);
        assert_eq!((first.functions[0].calls_per_s, first.brokers[0].calls_per_s), (None, None));
    }

    #[test]
    fn functions_are_sorted_as_asked_for() {
        let first = |order| figures(order).functions[0].function.clone();
        assert_eq!([Order::Calls, Order::P99, Order::Name].map(first), ["echo"; 3]);
    }

    #[test]
    fn programs_learn_everything_also_who_did_not_answer() {
        let json = serde_json::to_value(figures(Order::Name)).unwrap();
        assert_eq!(json["functions"][0]["p50_us"], 100);
        assert_eq!(json["computers"][0]["functions"][0]["calls"], 150);
        assert_eq!(json["computers"][2]["error"], "cannot connect");
        assert_eq!(json["brokers"][0]["calls_per_s"], 50.0);
        assert_eq!((&json["brokers"][0]["in_use"], &json["brokers"][0]["set_aside"]), (&1.into(), &1.into()));
    }
}
