//! Timetables: which call is due when, one in a line, as `time lambda server size`.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::BufRead;
use std::str::FromStr;
use std::time::Duration;

use nigh_proto::{Endpoint, FunctionName};

use super::lines::{Lines, malformed};
use super::{Arrivals, Body, Gaps, Mix, PAYLOAD_BYTES_MAX, Sizes, Workload, WorkloadError};

/// Calls in a timetable, at most.
pub(super) const ENTRIES_MAX: usize = 20_000_000;
/// Different functions and brokers in one, at most.
const NAMES_MAX: usize = 100_000;
/// The latest time in one: a year.
const AT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Calls in the order in which they are due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timetable {
    /// The functions called, by place.
    pub functions: Vec<FunctionName>,
    /// The brokers named, by place.
    pub brokers: Vec<Endpoint>,
    /// The calls, the earliest first.
    pub entries: Vec<Entry>,
}

/// One call of a timetable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// When, from the start of the run.
    pub at: Duration,
    /// Which function, by place.
    pub function: u32,
    /// Which broker, by place, where it says so.
    pub broker: Option<u32>,
    /// What is sent, where it says so.
    pub body: Option<Body>,
}

impl Timetable {
    /// Reads lines `time lambda server size`: seconds, a function, a broker, bytes. They may be in any order.
    ///
    /// # Errors
    /// [`WorkloadError`] with the line that is wrong, what is wrong with it, and what is right.
    pub fn read(source: impl BufRead) -> Result<Self, WorkloadError> {
        let (mut functions, mut brokers) = (Names::default(), Names::default());
        let mut entries = Vec::new();
        let mut lines = Lines::new(source);
        while let Some((number, line)) = lines.next()? {
            let mut fields = line.split_ascii_whitespace();
            let (Some(at), Some(function), Some(broker), Some(bytes), None) =
                (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(malformed(number, "write it as `time lambda server size`", line));
            };
            let at = seconds(at)
                .ok_or_else(|| malformed(number, "its time is not one in seconds, from 0 to a year", line))?;
            let bytes = bytes.parse().ok().filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX);
            let bytes = bytes.ok_or_else(|| {
                malformed(number, &format!("its size is not one in bytes, from 0 to {PAYLOAD_BYTES_MAX}"), line)
            })?;
            let function = functions.place(function).map_err(|why| malformed(number, &why, line))?;
            let broker = brokers.place(broker).map_err(|why| malformed(number, &why, line))?;
            entries.push(Entry { at, function, broker: Some(broker), body: Some(Body::Size(bytes)) });
            if entries.len() > ENTRIES_MAX {
                return Err(malformed(number, &format!("a timetable may have {ENTRIES_MAX} calls; split it"), line));
            }
        }
        Ok(Self { functions: functions.names, brokers: brokers.names, entries }.sorted())
    }

    /// The same in order of time; calls of one instant stay in the order in which they were told.
    pub(super) fn sorted(mut self) -> Self {
        self.entries.sort_by_key(|entry| entry.at);
        self
    }

    /// When the last call is due.
    pub fn length(&self) -> Duration {
        self.entries.last().map_or(Duration::ZERO, |entry| entry.at)
    }
}

/// The lines, as [`Timetable::read`] takes them, of calls that name all four.
impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn name<T>(names: &[T], place: Option<u32>) -> Option<&T> {
            names.get(usize::try_from(place?).ok()?)
        }
        for Entry { at, function, broker, body } in &self.entries {
            let bytes = match body {
                Some(Body::Size(bytes)) => *bytes,
                Some(Body::Given(_) | Body::Work(_)) | None => 0,
            };
            let function = name(&self.functions, Some(*function)).ok_or(fmt::Error)?;
            let broker = name(&self.brokers, *broker).ok_or(fmt::Error)?;
            writeln!(f, "{:.6} {function} {broker} {bytes}", at.as_secs_f64())?;
        }
        Ok(())
    }
}

/// A time in seconds, from 0 to a year.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let time = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (time <= AT_MAX).then_some(time)
}

/// Names by place, each once.
#[derive(Debug)]
struct Names<T> {
    names: Vec<T>,
    places: HashMap<String, u32>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { names: Vec::new(), places: HashMap::new() }
    }
}

impl<T: FromStr<Err: fmt::Display>> Names<T> {
    fn place(&mut self, text: &str) -> Result<u32, String> {
        if let Some(place) = self.places.get(text) {
            return Ok(*place);
        }
        let name = text.parse().map_err(|error: T::Err| error.to_string())?;
        let place = u32::try_from(self.names.len()).ok().filter(|_| self.names.len() < NAMES_MAX);
        let place = place.ok_or_else(|| format!("over {NAMES_MAX} different names"))?;
        self.names.push(name);
        self.places.insert(text.to_owned(), place);
        Ok(place)
    }
}

/// What a timetable is drawn from: clients that each make calls at random.
#[derive(Debug, Clone)]
pub struct Generator {
    /// What they call.
    pub function: FunctionName,
    /// Whom they ask.
    pub broker: Endpoint,
    /// Bytes that they send.
    pub sizes: Sizes,
    /// Mean time between two calls of one client.
    pub every: Duration,
    /// How many they are.
    pub clients: u32,
    /// When they begin.
    pub begins: Duration,
    /// For how long they go on.
    pub lasts: Duration,
    /// What randomness starts from.
    pub seed: u64,
}

impl Generator {
    /// Draws a timetable.
    ///
    /// # Errors
    /// [`WorkloadError`] where a number is out of range, or there would be too many calls.
    pub fn draw(&self) -> Result<Timetable, WorkloadError> {
        let arrivals = Arrivals::Steady { gaps: Gaps::Poisson, every: self.every };
        let mix = Mix::new(&[1.0], self.sizes.clone())?;
        let workload = Workload { seed: self.seed, clients: self.clients, arrivals, mix };
        workload.check()?;
        if self.begins + self.lasts > AT_MAX {
            return Err(WorkloadError::new("a timetable may last a year at most"));
        }
        let due = workload.merged().take_while(|due| due.at < self.lasts).take(ENTRIES_MAX + 1);
        let entry =
            |due: super::Due| Entry { at: self.begins + due.at, function: 0, broker: Some(0), body: Some(due.body) };
        let entries: Vec<_> = due.map(entry).collect();
        if entries.len() > ENTRIES_MAX {
            let message = format!("over {ENTRIES_MAX} calls; draw a shorter timetable, or at a lower rate");
            return Err(WorkloadError::new(message));
        }
        Ok(Timetable { functions: vec![self.function.clone()], brokers: vec![self.broker.clone()], entries })
    }
}

impl Timetable {
    /// The lines as one text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Only a timetable whose calls lack a name has no lines.
        let _ = write!(text, "{self}");
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Timetable, WorkloadError> {
        Timetable::read(text.as_bytes())
    }

    #[test]
    fn a_timetable_is_read_in_order_of_time() {
        let timetable =
            read("2.5 echo 10.0.0.1:6473 100\n\n0.25 sha256 10.0.0.2:6473 0\r\n2.5 sha256 10.0.0.1:6473 7\n");
        let timetable = timetable.unwrap();
        assert_eq!(timetable.functions.iter().map(FunctionName::as_str).collect::<Vec<_>>(), ["echo", "sha256"]);
        assert_eq!(timetable.brokers.len(), 2);
        let entry = |ms, function, broker, bytes| Entry {
            at: Duration::from_millis(ms),
            function,
            broker: Some(broker),
            body: Some(Body::Size(bytes)),
        };
        assert_eq!(timetable.entries, [entry(250, 1, 1, 0), entry(2500, 0, 0, 100), entry(2500, 1, 0, 7)]);
        assert_eq!(timetable.length(), Duration::from_millis(2500));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, part) in [
            ("1 echo a:1", "line 1: write it as"),
            ("0 echo a:1 1\n1 echo a:1 1 1", "line 2: write it as"),
            ("-1 echo a:1 1", "its time"),
            ("NaN echo a:1 1", "its time"),
            ("1e300 echo a:1 1", "its time"),
            ("1 Echo a:1 1", "function name"),
            ("1 echo a 1", "endpoint"),
            ("1 echo a:1 -1", "its size"),
            ("1 echo a:1 99999999999", "its size"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let long = "x".repeat(300 << 10);
        assert!(read(&long).unwrap_err().to_string().contains("is this a trace"));
        let error = Timetable::read([0xff_u8, 0xfe, b'\n'].as_slice()).unwrap_err();
        assert!(error.to_string().contains("UTF-8"));
    }

    #[test]
    fn a_drawn_timetable_reads_as_it_was_written() {
        let generator = Generator {
            function: "echo".parse().unwrap(),
            broker: "localhost:6473".parse().unwrap(),
            sizes: Sizes::Uniform(100, 500),
            every: Duration::from_millis(100),
            clients: 5,
            begins: Duration::from_secs(3),
            lasts: Duration::from_secs(10),
            seed: 42,
        };
        let timetable = generator.draw().unwrap();
        // 500 calls are expected, give or take four times their standard deviation.
        assert!((410..590).contains(&timetable.entries.len()), "{}", timetable.entries.len());
        assert!(timetable.entries.iter().all(|entry| entry.at >= generator.begins && entry.body.is_some()));
        let text = timetable.to_text();
        assert_eq!(read(&text).unwrap().to_text(), text);
        assert_eq!(generator.draw().unwrap(), timetable);
        assert!(Generator { clients: 0, ..generator.clone() }.draw().is_err());
        assert!(Generator { every: Duration::ZERO, ..generator }.draw().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in "([0-9.e-]{0,5} [a-zA-Z]{0,4} [a-z:0-9]{0,5} [0-9-]{0,5}\n){0,3}.{0,20}") {
            let _ = read(&text);
        }
    }
}
