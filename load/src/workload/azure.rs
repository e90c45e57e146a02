//! Traces of invocations in the two public formats of Azure Functions: counts by minute (2019) and one invocation in a line
//! (2021).

use std::collections::HashMap;
use std::io::BufRead;
use std::time::Duration;

use nigh_proto::FunctionName;
use rand::RngExt as _;
use rand_distr::{Binomial, Distribution as _};

use super::lines::{Lines, malformed};
use super::timetable::{ENTRIES_MAX, Entry, Timetable, seconds};
use super::{Body, WorkloadError, dice};
use crate::dice::Purpose;

/// What the first line of counts by minute begins with.
const MINUTES_HEAD: &str = "HashOwner,HashApp,HashFunction,Trigger,";
/// The first line of single invocations.
const INVOCATIONS_HEAD: &str = "app,func,end_timestamp,duration";
/// Columns before the first minute.
const COLUMNS_BEFORE_MINUTES: usize = 4;
/// Different functions of a trace, at most.
const FUNCTIONS_MAX: usize = 1_000_000;
const MINUTE: Duration = Duration::from_secs(60);

/// Which part of a trace is replayed, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Where in the trace the replay begins.
    pub from: Duration,
    /// How much of the trace is replayed; all that follows where nothing is said.
    pub length: Option<Duration>,
    /// How many times as fast as it was.
    pub speed: f64,
    /// The share of invocations that are made, each left out or not by itself.
    pub sample: f64,
    /// Whether calls send how long the invocation ran, which [`invocations`] know.
    pub work: bool,
    /// What randomness starts from.
    pub seed: u64,
}

impl Default for Scale {
    fn default() -> Self {
        Self { from: Duration::ZERO, length: None, speed: 1.0, sample: 1.0, work: false, seed: 0 }
    }
}

impl Scale {
    fn check(&self) -> Result<(), WorkloadError> {
        if !(self.speed.is_finite() && self.speed > 0.0) {
            return Err(WorkloadError::new("the speed of a replay must be over 0"));
        }
        if !(self.sample > 0.0 && self.sample <= 1.0) {
            return Err(WorkloadError::new("the share of invocations to replay must be over 0 and up to 1"));
        }
        Ok(())
    }

    /// A timetable's call as it is due in the replay, if it is in the part that is replayed.
    fn entry(&self, entry: Entry) -> Option<Entry> {
        Some(Entry { at: self.due(entry.at)?, ..entry })
    }

    /// When an invocation at this time of the trace is due, if it is in the part that is replayed.
    fn due(&self, at: Duration) -> Option<Duration> {
        let since = at.checked_sub(self.from)?;
        if self.length.is_some_and(|length| since >= length) {
            return None;
        }
        Duration::try_from_secs_f64(since.as_secs_f64() / self.speed).ok()
    }
}

/// Reads any of the formats, told apart by their first line: a timetable, which names its functions itself, or one of the
/// traces of Azure Functions, whose functions are given to `onto` in turn.
///
/// # Errors
/// [`WorkloadError`] with the line that is wrong, and what is wrong with it.
pub fn replay(mut source: impl BufRead, onto: &[FunctionName], scale: &Scale) -> Result<Timetable, WorkloadError> {
    let head = source.fill_buf().map_err(|error| WorkloadError::new(format!("cannot be read: {error}")))?;
    let has_durations = head.starts_with(INVOCATIONS_HEAD.as_bytes());
    if scale.work && !has_durations {
        return Err(WorkloadError::new("it does not say how long invocations ran; only traces of single ones do"));
    }
    if has_durations {
        invocations(source, onto, scale)
    } else if head.starts_with(MINUTES_HEAD.as_bytes()) {
        minutes(source, onto, scale)
    } else if onto.is_empty() {
        scale.check()?;
        let mut timetable = Timetable::read(source)?;
        let mut dice = dice::stream(scale.seed, 0, Purpose::Arrival);
        let entries =
            timetable.entries.into_iter().filter(|_| scale.sample >= 1.0 || dice.random::<f64>() < scale.sample);
        timetable.entries = entries.filter_map(|entry| scale.entry(entry)).collect();
        Ok(timetable)
    } else {
        Err(WorkloadError::new("a timetable names its functions itself; name none beside it"))
    }
}

/// Counts by minute: `HashOwner,HashApp,HashFunction,Trigger,1,2,…,1440`. Invocations are spread over their minute at
/// random. The trace's functions are given to `onto` in turn.
///
/// # Errors
/// [`WorkloadError`] with the line that is wrong, and what is wrong with it.
pub fn minutes(source: impl BufRead, onto: &[FunctionName], scale: &Scale) -> Result<Timetable, WorkloadError> {
    scale.check()?;
    let mut assigned = Assigned::new(onto)?;
    let mut entries = Vec::new();
    let mut lines = Lines::new(source);
    match lines.next()? {
        Some((_, head)) if head.starts_with(MINUTES_HEAD) => {}
        Some((number, head)) => {
            return Err(malformed(number, "no trace by minutes; expected HashOwner,HashApp,…", head));
        }
        None => return Err(WorkloadError::new("the trace is empty")),
    }
    let mut row = 0;
    while let Some((number, line)) = lines.next()? {
        let mut columns = line.split(',');
        let name = columns.by_ref().nth(2);
        let name = name.ok_or_else(|| malformed(number, "expected owner, app, function, trigger and counts", line))?;
        let function = assigned.place(name)?;
        let mut dice = dice::stream(scale.seed, row, Purpose::Arrival);
        row = row.wrapping_add(1);
        for (minute, count) in (0_u32..).zip(columns.skip(COLUMNS_BEFORE_MINUTES - 3)) {
            let count: u64 = count.trim().parse().map_err(|_| {
                malformed(number, &format!("the count of minute {} is no whole number", minute + 1), line)
            })?;
            let begins = MINUTE * minute;
            // Minutes out of the part that is replayed need no draws.
            if begins + MINUTE <= scale.from || scale.length.is_some_and(|length| begins >= scale.from + length) {
                continue;
            }
            let count = if scale.sample < 1.0 {
                Binomial::new(count, scale.sample).map_or(0, |binomial| binomial.sample(&mut dice))
            } else {
                count
            };
            if entries.len() as u64 + count > ENTRIES_MAX as u64 {
                return Err(too_many());
            }
            let instants = (0..count).filter_map(|_| scale.due(begins + MINUTE.mul_f64(dice.random::<f64>())));
            entries.extend(instants.map(|at| Entry { at, function, broker: None, body: None }));
        }
    }
    Ok(Timetable { functions: onto.to_vec(), brokers: Vec::new(), entries }.sorted())
}

/// Single invocations: `app,func,end_timestamp,duration`, both in seconds. Each begins its duration before its end. The
/// trace's functions are given to `onto` in turn.
///
/// # Errors
/// As [`minutes`].
pub fn invocations(source: impl BufRead, onto: &[FunctionName], scale: &Scale) -> Result<Timetable, WorkloadError> {
    scale.check()?;
    let mut assigned = Assigned::new(onto)?;
    let mut entries = Vec::new();
    let mut dice = dice::stream(scale.seed, 0, Purpose::Arrival);
    let mut lines = Lines::new(source);
    match lines.next()? {
        Some((_, head)) if head == INVOCATIONS_HEAD => {}
        Some((number, head)) => {
            return Err(malformed(number, "no trace of invocations; expected app,func,end_timestamp,duration", head));
        }
        None => return Err(WorkloadError::new("the trace is empty")),
    }
    while let Some((number, line)) = lines.next()? {
        let mut columns = line.split(',');
        let (Some(_), Some(name), Some(end), Some(duration), None) =
            (columns.next(), columns.next(), columns.next(), columns.next(), columns.next())
        else {
            return Err(malformed(number, "expected app,func,end_timestamp,duration", line));
        };
        let (Some(end), Some(duration)) = (seconds(end), seconds(duration)) else {
            return Err(malformed(number, "its times are not in seconds, from 0 to a year", line));
        };
        let function = assigned.place(name)?;
        let is_made = scale.sample >= 1.0 || dice.random::<f64>() < scale.sample;
        // What ran already when the trace begins was due at its very beginning.
        if let Some(at) = scale.due(end.saturating_sub(duration)).filter(|_| is_made) {
            let us = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
            entries.push(Entry { at, function, broker: None, body: scale.work.then_some(Body::Work(us)) });
        }
        if entries.len() > ENTRIES_MAX {
            return Err(too_many());
        }
    }
    Ok(Timetable { functions: onto.to_vec(), brokers: Vec::new(), entries }.sorted())
}

fn too_many() -> WorkloadError {
    WorkloadError::new(format!("over {ENTRIES_MAX} invocations; replay a shorter part of the trace, or a sample of it"))
}

/// Which function stands for which of the trace's.
struct Assigned {
    places: HashMap<String, u32>,
    onto: u32,
}

impl Assigned {
    fn new(onto: &[FunctionName]) -> Result<Self, WorkloadError> {
        match u32::try_from(onto.len()) {
            Ok(onto) if onto > 0 => Ok(Self { places: HashMap::new(), onto }),
            _ => Err(WorkloadError::new("name the functions that stand for those of the trace")),
        }
    }

    fn place(&mut self, name: &str) -> Result<u32, WorkloadError> {
        if let Some(place) = self.places.get(name) {
            return Ok(*place);
        }
        let known = u32::try_from(self.places.len()).ok().filter(|known| (*known as usize) < FUNCTIONS_MAX);
        let known = known.ok_or_else(|| WorkloadError::new(format!("over {FUNCTIONS_MAX} functions in the trace")))?;
        let place = known % self.onto;
        self.places.insert(name.to_owned(), place);
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn onto(names: &[&str]) -> Vec<FunctionName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    const DAY: &str =
        "HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,a,f,http,3,0,2\no,a,g,timer,0,1,0\no,a,h,queue,0,0,60\n";

    #[test]
    fn counts_by_minute_become_instants_within_their_minute() {
        let table = minutes(DAY.as_bytes(), &onto(&["echo", "sha256"]), &Scale::default()).unwrap();
        let of = |function, minute: u64| {
            let within = Duration::from_secs(60 * minute)..Duration::from_secs(60 * minute + 60);
            table.entries.iter().filter(|entry| entry.function == function && within.contains(&entry.at)).count()
        };
        // The third function of the trace shares the first of the two.
        assert_eq!([of(0, 0), of(0, 1), of(0, 2), of(1, 0), of(1, 1), of(1, 2)], [3, 0, 62, 0, 1, 0]);
        assert!(table.entries.is_sorted_by_key(|entry| entry.at));
        assert_eq!(table, minutes(DAY.as_bytes(), &onto(&["echo", "sha256"]), &Scale::default()).unwrap());
    }

    #[test]
    fn a_part_of_a_trace_is_replayed_faster_and_thinned() {
        let scale = Scale { from: Duration::from_secs(120), length: Some(MINUTE), speed: 60.0, ..Scale::default() };
        let table = minutes(DAY.as_bytes(), &onto(&["echo"]), &scale).unwrap();
        assert_eq!(table.entries.len(), 62);
        assert!(table.length() < Duration::from_secs(1));
        let thinned = minutes(DAY.as_bytes(), &onto(&["echo"]), &Scale { sample: 0.5, ..scale }).unwrap();
        assert!((15..47).contains(&thinned.entries.len()), "{}", thinned.entries.len());
    }

    #[test]
    fn invocations_begin_their_duration_before_their_end() {
        let text = "app,func,end_timestamp,duration\na,f,10.5,0.5\na,g,3,1\na,f,0.2,5\n";
        let table = invocations(text.as_bytes(), &onto(&["echo", "sha256"]), &Scale::default()).unwrap();
        let told: Vec<_> = table.entries.iter().map(|entry| (entry.at.as_millis(), entry.function)).collect();
        assert_eq!(told, [(0, 0), (2000, 1), (10_000, 0)]);
    }

    #[test]
    fn invocations_send_how_long_they_ran_where_that_is_wanted() {
        let text = "app,func,end_timestamp,duration\na,f,10.5,0.5\na,g,9000,8000\n";
        let scale = Scale { work: true, ..Scale::default() };
        let table = replay(text.as_bytes(), &onto(&["spin"]), &scale).unwrap();
        let sent: Vec<_> = table.entries.iter().map(|entry| entry.body).collect();
        assert_eq!(sent, [Some(Body::Work(500_000)), Some(Body::Work(u32::MAX))], "as long as can be told");
        let error = replay(DAY.as_bytes(), &onto(&["spin"]), &scale).unwrap_err().to_string();
        assert!(error.contains("how long"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let functions = onto(&["echo"]);
        let by_minute = |text: &str| minutes(text.as_bytes(), &functions, &Scale::default()).unwrap_err().to_string();
        assert!(by_minute("").contains("empty"));
        assert!(by_minute("a,b\n").contains("line 1"));
        assert!(by_minute(&format!("{MINUTES_HEAD}1\no,a,f,http,many\n")).contains("line 2: the count of minute 1"));
        assert!(by_minute(&format!("{MINUTES_HEAD}1\no,a\n")).contains("line 2"));
        assert!(by_minute(&format!("{MINUTES_HEAD}1\no,a,f,http,99999999999\n")).contains("over 20000000"));
        let single = |text: &str| invocations(text.as_bytes(), &functions, &Scale::default()).unwrap_err().to_string();
        assert!(single("app,func\n").contains("line 1"));
        assert!(single("app,func,end_timestamp,duration\na,f,1\n").contains("line 2"));
        assert!(single("app,func,end_timestamp,duration\na,f,-1,NaN\n").contains("its times"));
        assert!(minutes(DAY.as_bytes(), &[], &Scale::default()).is_err());
        assert!(minutes(DAY.as_bytes(), &functions, &Scale { speed: 0.0, ..Scale::default() }).is_err());
        assert!(minutes(DAY.as_bytes(), &functions, &Scale { sample: f64::NAN, ..Scale::default() }).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in "([a-z0-9,.-]{0,20}\n){0,4}", with_head in 0_usize..3) {
            let heads = ["", "app,func,end_timestamp,duration\n", "HashOwner,HashApp,HashFunction,Trigger,1\n"];
            let text = format!("{}{text}", heads[with_head]);
            let _ = minutes(text.as_bytes(), &onto(&["echo"]), &Scale::default());
            let _ = invocations(text.as_bytes(), &onto(&["echo"]), &Scale::default());
        }
    }
}
