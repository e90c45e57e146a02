//! The model against queueing theory: a table of mean sojourn times.
//!
//! `cargo run --release -p nigh-model --example queues`
#![expect(clippy::print_stdout, reason = "a table for people")]

mod queue;

use queue::QUEUES;

fn main() {
    println!("| queue | load | by formula, ms | measured, ms (99 %) | off | within | busy |");
    println!("|---|---|---|---|---|---|---|");
    for queue in QUEUES {
        for load in [0.1, 0.3, 0.5, 0.7, 0.9] {
            let (expected, found) = (queue.expected(load), queue.measure(load, 20, 100_000));
            let within = if found.sojourn.holds(expected) { "yes" } else { "no" };
            let off = (found.sojourn.mean / expected - 1.0) * 100.0;
            println!(
                "| {} | {load} | {expected:.3} | {:.3} ± {:.3} | {off:+.1} % | {within} | {:.3} |",
                queue.name, found.sojourn.mean, found.sojourn.half_width, found.busy.mean
            );
        }
    }
}
