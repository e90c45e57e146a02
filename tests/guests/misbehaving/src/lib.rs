//! Does what its payload tells it: fails, panics, floods the log, answers too much, keeps state, reads files. The tests
//! look at what the computer makes of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nigh_sdk::{Error, Request, Response, state};

nigh_sdk::function!(obey);

static CALLS: AtomicU64 = AtomicU64::new(0);

fn obey(request: Request) -> Result<Response, Error> {
    let command = request.text()?.to_owned();
    let (verb, argument) = command.split_once(' ').unwrap_or((command.as_str(), ""));
    match verb {
        "fail" => Err(Error::new("teapot", argument)),
        "panic" => panic!("{argument}"),
        "log" => {
            let lines: usize = argument.parse()?;
            (0..lines).for_each(|line| nigh_sdk::info!("line {line}"));
            Ok(Response::text("logged"))
        }
        "answer" => Ok(Response::new(vec![b'x'; argument.parse()?])),
        "count" => Ok(Response::text((CALLS.fetch_add(1, Ordering::Relaxed) + 1).to_string())),
        "take" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            (0..argument.parse::<usize>()?).for_each(|_| kept.push(vec![1; 1 << 20]));
            Ok(Response::text(kept.len().to_string()))
        }
        "spin" => {
            let time = Duration::from_millis(argument.parse()?);
            let began = Instant::now();
            while began.elapsed() < time {}
            Ok(Response::text("done"))
        }
        "read" => Ok(Response::new(std::fs::read(argument)?)),
        "write" => {
            std::fs::write(argument, "written by a guest")?;
            Ok(Response::text("written"))
        }
        "get" => Ok(state::get(argument)?.map_or_else(|| Response::text("nothing"), Response::new)),
        "put" => {
            let (name, content) = argument.split_once(' ').unwrap_or((argument, ""));
            state::put(name, content)?;
            Ok(Response::text("put"))
        }
        "fill" => {
            let (name, bytes) = argument.split_once(' ').unwrap_or((argument, ""));
            state::put(name, vec![b'x'; bytes.parse()?])?;
            Ok(Response::text("put"))
        }
        "delete" => {
            state::delete(argument)?;
            Ok(Response::text("deleted"))
        }
        // Counts in states of these names, and then in the last one once more.
        "tally" => tally(argument),
        "tally-and-fail" => tally(argument).and_then(|_| Err(Error::failed("after counting"))),
        "tally-and-panic" => tally(argument).map(|_| panic!("after counting")),
        "environment" => Ok(Response::text(std::env::vars().map(|(name, _)| name).collect::<Vec<_>>().join(","))),
        unknown => Err(Error::bad_input(format!("cannot {unknown}"))),
    }
}

fn tally(names: &str) -> Result<Response, Error> {
    let mut counts = Vec::new();
    for name in names.split(' ') {
        let count = state::get_text(name)?.map_or(Ok(0), |count| count.parse::<u64>())? + 1;
        state::put(name, count.to_string())?;
        counts.push(state::get_text(name)?.unwrap_or_default());
    }
    Ok(Response::text(counts.join(" ")))
}
