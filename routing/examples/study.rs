//! A study of the policies in a modelled edge: the very code that brokers run, in virtual time, with seeded randomness.
//!
//! Twelve computers of three speeds (1×, 2×, 4×), two workers each, first come first served. Three brokers, each of which
//! knows only what its own calls bring back. Calls arrive by a Poisson process whatever becomes of those before (open loop),
//! with payloads of three sizes on which their run time depends. One fast computer is eight times slower for a while, one
//! of middle speed dies and comes back. The first tenth of each run is left out.
//!
//! `cargo run --release -p nigh-routing --example study -- [--seeds N] [--seconds S] [--csv FILE]`
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its results")]

#[path = "study/edge.rs"]
mod edge;
#[path = "study/statistics.rs"]
mod statistics;

use std::io::Write as _;

use edge::{Edge, Setting};
use nigh_routing::{Policy, Strategy};
use statistics::{Interval, Outcome};

/// Shares of the whole edge's capacity that calls ask for.
const LOADS: [f64; 4] = [0.3, 0.5, 0.7, 0.85];

/// Policy, optimizer; the first is the one that the others are compared with.
const STRATEGIES: [(&str, &str); 8] = [
    ("predict", "ewma"),
    ("p2c-ewma", "ewma"),
    ("least-outstanding", "ewma"),
    ("least-latency", "ewma"),
    ("round-robin", "none"),
    ("round-robin", "ewma"),
    ("random", "none"),
    ("random", "ewma"),
];

struct Options {
    seeds: u64,
    seconds: f64,
    csv: Option<String>,
    strategies: Vec<(String, String)>,
}

fn options() -> Result<Options, String> {
    let strategies = STRATEGIES.map(|(policy, optimizer)| (policy.to_owned(), optimizer.to_owned())).to_vec();
    let mut options = Options { seeds: 20, seconds: 10.0, csv: None, strategies };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = |_| format!("{name} {value}: not a number");
        match name.as_str() {
            "--seeds" => {
                options.seeds = value.parse().map_err(|error: std::num::ParseIntError| wrong(error.to_string()))?
            }
            "--seconds" => {
                options.seconds = value.parse().map_err(|error: std::num::ParseFloatError| wrong(error.to_string()))?;
            }
            "--csv" => options.csv = Some(value),
            // Policies to compare instead, separated by spaces.
            "--policies" => {
                options.strategies = value.split_whitespace().map(|one| (one.to_owned(), "ewma".to_owned())).collect();
            }
            _ => return Err(format!("{name}: use --seeds, --seconds, --csv or --policies")),
        }
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = options()?;
    let mut csv = String::from("policy,optimizer,load,seeds,mean_ms,mean_ci,p50_ms,p50_ci,p99_ms,p99_ci,failed\n");
    println!("{} seeds, {} s each; mean of seeds ± 95 % confidence, in milliseconds", options.seeds, options.seconds);
    println!(
        "{:<28} {:>5} {:>16} {:>16} {:>18} {:>9} {:>7}",
        "policy", "load", "mean", "p50", "p99", "p99/1st", "failed"
    );
    for load in LOADS {
        let mut first = None;
        for (policy, optimizer) in &options.strategies {
            let policy: Policy = policy.parse()?;
            let strategy = Strategy { optimizer: optimizer.parse()?, ..Strategy::from(policy) };
            let outcomes: Vec<Outcome> = (0..options.seeds)
                .map(|seed| Edge::run(strategy, Setting { load, seconds: options.seconds, seed }))
                .collect();
            let of = |value: fn(&Outcome) -> f64| Interval::of(&outcomes.iter().map(value).collect::<Vec<_>>());
            let (mean, p50, p99) = (of(|one| one.mean), of(|one| one.p50), of(|one| one.p99));
            let failed: u64 = outcomes.iter().map(|one| one.failed).sum();
            let first = *first.get_or_insert(p99.mean);
            let name = match optimizer.as_str() {
                "ewma" => policy.to_string(),
                other => format!("{policy} (optimizer {other})"),
            };
            println!("{name:<28} {load:>5} {mean:>16} {p50:>16} {p99:>18} {:>9.2} {failed:>7}", p99.mean / first);
            csv += &format!(
                "{policy},{optimizer},{load},{},{:.4},{:.4},{:.4},{:.4},{:.4},{:.4},{failed}\n",
                options.seeds, mean.mean, mean.half, p50.mean, p50.half, p99.mean, p99.half
            );
        }
        println!();
    }
    if let Some(path) = &options.csv {
        std::fs::File::create(path)?.write_all(csv.as_bytes())?;
        eprintln!("written to {path}");
    }
    Ok(())
}
