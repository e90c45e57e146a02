//! Arrivals against what theory says of them, each with a seed that was chosen once; and the same calls for the same seed.

use std::time::Duration;

use nigh_load::workload::{Arrivals, Due, Gaps, Mix, Sizes, Within, Workload};

use crate::stub::{bytes, steady, workload};

const SECOND: Duration = Duration::from_secs(1);

/// Gaps between the calls of a workload, in seconds.
fn gaps(workload: &Workload, count: usize) -> Vec<f64> {
    let instants: Vec<f64> = workload.merged().take(count + 1).map(|due| due.at.as_secs_f64()).collect();
    instants.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
}

/// The largest distance between a sample and a distribution, of Kolmogorov and Smirnov, times the root of the sample's size;
/// over 1.63 for one sample in a hundred that does come from it.
fn distance(mut values: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let count = values.len() as f64;
    let distances = values.iter().enumerate().map(|(place, value)| {
        let expected = cdf(*value);
        (expected - place as f64 / count).abs().max((expected - (place + 1) as f64 / count).abs())
    });
    distances.fold(0.0, f64::max) * count.sqrt()
}

#[test]
fn poisson_arrivals_have_exponential_gaps_from_one_client_and_from_many() {
    for clients in [1, 10] {
        // Together they make 100 calls per second.
        let workload = workload(steady(Gaps::Poisson, Duration::from_millis(10) * clients), clients, 11);
        let gaps = gaps(&workload, 20_000);
        let (mean, variance) = mean_and_variance(&gaps);
        // The mean of 20,000 has a standard error of 0.7 %, the variance one of 2 %.
        assert!((mean / 0.01 - 1.0).abs() < 0.021, "{clients} clients: mean {mean}");
        assert!((variance / 1e-4 - 1.0).abs() < 0.06, "{clients} clients: variance {variance}");
        let distance = distance(gaps, |gap| 1.0 - (-gap / 0.01).exp());
        assert!(distance < 1.63, "{clients} clients: {distance}");
    }
}

#[test]
fn uniform_and_constant_gaps_are_so() {
    let uniform = gaps(&workload(steady(Gaps::Uniform, Duration::from_millis(10)), 1, 3), 20_000);
    let (mean, variance) = mean_and_variance(&uniform);
    assert!((mean / 0.01 - 1.0).abs() < 0.013 && (variance / (4e-4 / 12.0) - 1.0).abs() < 0.03, "{mean} {variance}");
    assert!(distance(uniform, |gap| gap / 0.02) < 1.63);
    // Clients that keep the same beat take turns.
    let constant = gaps(&workload(steady(Gaps::Constant, SECOND), 4, 3), 100);
    assert!(constant.iter().all(|gap| (gap - 0.25).abs() < 1e-6), "{constant:?}");
}

#[test]
fn an_interrupted_poisson_process_has_hyperexponential_gaps() {
    // On for 2 s and off for 3 s on average, 50 calls per second while on.
    let (rate, leave_on, leave_off) = (50.0, 1.0 / 2.0, 1.0 / 3.0);
    let within = Within::Poisson(Duration::from_millis(20));
    let arrivals = Arrivals::OnOff { on: 2 * SECOND, off: 3 * SECOND, within };
    let gaps = gaps(&workload(arrivals, 1, 5), 60_000);
    // Kuczura 1973: two exponential phases.
    let sum = rate + leave_on + leave_off;
    let root = f64::sqrt(sum * sum - 4.0 * rate * leave_off);
    let (fast, slow) = (f64::midpoint(sum, root), f64::midpoint(sum, -root));
    let share = (rate - slow) / (fast - slow);
    let cdf = |gap: f64| share * (1.0 - (-fast * gap).exp()) + (1.0 - share) * (1.0 - (-slow * gap).exp());
    let expected_mean = share / fast + (1.0 - share) / slow;
    let expected_variance = 2.0 * (share / fast.powi(2) + (1.0 - share) / slow.powi(2)) - expected_mean * expected_mean;
    assert!((expected_mean - 0.05).abs() < 1e-9, "on for two fifths of the time: 20 calls per second");
    let (mean, variance) = mean_and_variance(&gaps);
    // Some 600 long gaps make nearly all of the variance.
    let error = (expected_variance / gaps.len() as f64).sqrt();
    assert!((mean - expected_mean).abs() < 3.0 * error, "{mean}, expected {expected_mean} ± {error}");
    assert!((variance / expected_variance - 1.0).abs() < 0.25, "{variance}, expected {expected_variance}");
    let distance = distance(gaps, cdf);
    assert!(distance < 1.63, "{distance}");
}

#[test]
fn phases_with_calls_begin_with_one_and_drop_what_comes_after_their_end() {
    let within = Within::Uniform { min: Duration::from_millis(10), max: Duration::from_millis(30) };
    let arrivals = Arrivals::OnOff { on: SECOND, off: SECOND, within };
    let dues: Vec<Due> = workload(arrivals, 1, 9).merged().take(20_000).collect();
    assert!(dues.iter().all(|due| due.at <= due.expires.unwrap()), "a call within its phase");
    let rate = dues.len() as f64 / dues.last().unwrap().at.as_secs_f64();
    // In a phase of mean length 1 s one call at its beginning and one every 20 ms; phases make half of the time. About 400
    // phases give a standard error of some 5 %.
    assert!((rate / (51.0 / 2.0) - 1.0).abs() < 0.15, "{rate}");
}

#[test]
fn bursts_come_at_exponential_times_with_a_poisson_number_of_calls() {
    let (gap_min, gap_max) = (Duration::from_micros(1), Duration::from_micros(2));
    let arrivals = Arrivals::Bursts { period: SECOND, calls: 5.0, gap_min, gap_max };
    let instants: Vec<f64> = workload(arrivals, 1, 2).merged().take(50_000).map(|due| due.at.as_secs_f64()).collect();
    let mut sizes = vec![1.0];
    for pair in instants.windows(2) {
        if pair[1] - pair[0] > 3e-6 {
            sizes.push(1.0);
        } else {
            *sizes.last_mut().unwrap() += 1.0;
        }
    }
    let (mean, variance) = mean_and_variance(&sizes);
    // Empty bursts are not seen: a Poisson number that is not zero.
    let seen = 1.0 - f64::exp(-5.0);
    let expected = 5.0 / seen;
    assert!((mean / expected - 1.0).abs() < 0.02, "{mean}, expected {expected}");
    assert!((variance / (expected * (6.0 - expected)) - 1.0).abs() < 0.06, "{variance}");
    let rate = instants.len() as f64 / instants.last().unwrap();
    assert!((rate / 5.0 - 1.0).abs() < 0.05, "{rate}");
}

fn mixed(clients: u32, seed: u64) -> Workload {
    let mix = Mix::new(&[3.0, 1.0], Sizes::Uniform(100, 500)).unwrap();
    Workload { seed, clients, arrivals: steady(Gaps::Poisson, Duration::from_millis(7)), mix }
}

#[test]
fn the_same_seed_gives_the_same_calls_whoever_draws_them() {
    let whole: Vec<Due> = mixed(6, 42).merged().take(3000).collect();
    assert_eq!(whole, mixed(6, 42).merged().take(3000).collect::<Vec<_>>());
    assert_ne!(whole, mixed(6, 43).merged().take(3000).collect::<Vec<_>>());
    // Each client by itself, on a thread of its own, makes the very calls that it makes among the others.
    let threads: Vec<_> = (0..6)
        .map(|client| std::thread::spawn(move || mixed(6, 42).client(client).take(3000).collect::<Vec<_>>()))
        .collect();
    let mut alone: Vec<Due> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    alone.sort_by_key(|due| (due.at, due.client));
    alone.truncate(3000);
    assert_eq!(whole, alone);
    // One client more changes nothing of the others'.
    let more = mixed(7, 42).merged().filter(|due| due.client < 6).take(3000);
    assert_eq!(whole, more.collect::<Vec<_>>());
}

#[test]
fn functions_and_sizes_have_their_shares() {
    let dues: Vec<Due> = mixed(4, 1).merged().take(40_000).collect();
    let first = dues.iter().filter(|due| due.function == 0).count() as f64 / dues.len() as f64;
    assert!((first - 0.75).abs() < 0.01, "{first}");
    let sizes: Vec<f64> = dues.iter().map(|due| f64::from(bytes(due.body))).collect();
    let (mean, _) = mean_and_variance(&sizes);
    assert!((mean - 300.0).abs() < 3.0 && sizes.iter().all(|size| (100.0..=500.0).contains(size)), "{mean}");
    assert!(Mix::new(&[0.0], Sizes::Constant(1)).is_err() && Mix::new(&[1.0, f64::NAN], Sizes::Constant(1)).is_err());
}

#[test]
fn workloads_out_of_range_are_refused() {
    let fails = |arrivals, clients| workload(arrivals, clients, 0).check().is_err();
    assert!(fails(steady(Gaps::Constant, Duration::ZERO), 1));
    assert!(fails(steady(Gaps::Constant, SECOND), 0));
    assert!(fails(steady(Gaps::Constant, SECOND), 1_000_000));
    let on_off = |min, max| Arrivals::OnOff { on: SECOND, off: SECOND, within: Within::Uniform { min, max } };
    assert!(fails(on_off(SECOND, Duration::ZERO), 1));
    assert!(fails(on_off(Duration::ZERO, Duration::ZERO), 1));
    assert!(!fails(on_off(Duration::ZERO, SECOND), 1));
    let bursts = |calls| Arrivals::Bursts { period: SECOND, calls, gap_min: SECOND, gap_max: SECOND };
    assert!(fails(bursts(f64::NAN), 1) && fails(bursts(0.0), 1) && !fails(bursts(5.0), 1));
}
