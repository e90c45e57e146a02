//! Computes for as long as its payload says, in milliseconds: `12.5`. Stands for a function of which only the time that it takes is
//! known, as in traces.
//!
//! Answers with the rounds of arithmetic that it came to, so that a slower processor shows. The time is that of the clock: it passes
//! too while others compute on the same core.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nigh_sdk::{Error, Request, Response};

nigh_sdk::function!(spin);

/// An hour, beyond which no function is let run by default.
const MS_MAX: f64 = 3_600_000.0;
/// Additions in one round: well under a microsecond, so that the end is not missed by much.
const ADDITIONS: u64 = 500;

fn spin(request: Request) -> Result<Response, Error> {
    let began = Instant::now();
    let time = time(request.text()?)?;
    let mut rounds = 0u64;
    while began.elapsed() < time {
        black_box((0..ADDITIONS).fold(rounds, |sum, term| black_box(sum.wrapping_add(term))));
        rounds += 1;
    }
    Ok(Response::text(rounds.to_string()))
}

fn time(text: &str) -> Result<Duration, Error> {
    let ms: Option<f64> = text.trim().parse().ok();
    let ms = ms.filter(|ms| (0.0..=MS_MAX).contains(ms));
    let ms = ms.ok_or_else(|| {
        let given: String = text.chars().take(40).collect();
        Error::bad_input(format!("{given:?} is no time; send milliseconds from 0 to {MS_MAX}, such as 12.5"))
    })?;
    Ok(Duration::from_secs_f64(ms / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_the_time_that_it_is_told() {
        let began = Instant::now();
        let response = spin(Request::new("20.5")).unwrap();
        assert!(began.elapsed() >= Duration::from_micros(20_500));
        let rounds: u64 = String::from_utf8(response.into_payload()).unwrap().parse().unwrap();
        assert!(rounds > 0);
        assert_eq!(spin(Request::new(" 0\n")).unwrap().payload(), b"0");
    }

    #[test]
    fn what_is_no_time_is_told_so() {
        for odd in ["", "soon", "-1", "NaN", "inf", "3600000.1", "1 2"] {
            let error = spin(Request::new(odd)).unwrap_err().to_string();
            assert!(error.contains("milliseconds"), "{odd:?}: {error}");
        }
    }
}
