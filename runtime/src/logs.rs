//! What functions log: the last lines of each, kept, and every new line to whoever follows.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nigh_proto::time::us;
use nigh_proto::{CallId, FunctionName, v1};
use nigh_telemetry::Counts;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::threads::Handle;

/// Lines kept of one function.
const LINES_KEPT: usize = 1000;
/// Bytes kept of one function's lines.
const BYTES_KEPT: usize = 256 << 10;
/// New lines that a follower may be behind before it loses the oldest.
const FOLLOWER_LINES: usize = 4096;
/// Bytes of one line; a longer one goes on in the next.
pub(crate) const LINE_BYTES_MAX: usize = 4 << 10;
/// What a line costs of a call's allowance beside its text, so that empty lines are not free.
const LINE_COST: usize = 16;

/// The level of a panic's message.
pub(crate) const PANIC: u32 = 0;
/// The level of what a guest writes to its standard error.
pub(crate) const WARN: u32 = 2;
/// The level of what a native guest writes to its standard output.
pub(crate) const INFO: u32 = 3;
const DEBUG: u32 = 4;

/// One line.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) function: FunctionName,
    /// Counts the function's lines, from 0.
    pub(crate) number: u64,
    call: CallId,
    time_us: u64,
    level: u32,
    text: String,
}

impl Line {
    /// The line as its message.
    pub(crate) fn to_wire(&self, lost: u64) -> v1::LogLine {
        v1::LogLine {
            function: self.function.as_str().to_owned(),
            call_id: self.call.as_str().to_owned(),
            time_us: self.time_us,
            level: self.level,
            text: self.text.clone(),
            lost,
            number: self.number,
        }
    }

    /// In which call it was written.
    pub(crate) fn call(&self) -> &CallId {
        &self.call
    }

    /// How serious it is: the less, the more.
    pub(crate) fn level(&self) -> u32 {
        self.level
    }

    /// When it was written, for sorting lines of several functions.
    pub(crate) fn time_us(&self) -> u64 {
        self.time_us
    }
}

/// Why a line did not reach its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Its call had used up its allowance.
    Allowance,
    /// Who follows was too slow.
    SlowReader,
    /// Its function had used up what all its calls may write in a second.
    Rate,
}

impl Lost {
    pub(crate) const ALL: [Self; 3] = [Self::Allowance, Self::SlowReader, Self::Rate];

    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Allowance => "allowance",
            Self::SlowReader => "slow-reader",
            Self::Rate => "rate",
        }
    }
}

/// Where all lines pass.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    lines: broadcast::Sender<Arc<Line>>,
    lost: Arc<Counts<3>>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { lines: broadcast::Sender::new(FOLLOWER_LINES), lost: Arc::default() }
    }

    /// Counts lines that did not reach a reader.
    pub(crate) fn lose(&self, reason: Lost, lines: u64) {
        self.lost.add(reason as usize, lines);
    }

    /// How many did not, for this reason.
    pub(crate) fn lost(&self, reason: Lost) -> u64 {
        self.lost.read().find(|(at, _)| *at == reason as usize).map_or(0, |(_, lines)| lines)
    }

    /// Every line from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<Line>> {
        self.lines.subscribe()
    }
}

/// The lines of one function.
#[derive(Debug)]
pub(crate) struct FunctionLog {
    function: FunctionName,
    hub: Hub,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    written: u64,
    rate: Rate,
}

/// What all calls together may still write: an allowance that fills up to a second's worth.
#[derive(Debug, Default)]
struct Rate {
    /// Bytes left, and when that was so; nothing before the first line.
    left: Option<(f64, Instant)>,
    /// Lines dropped since the last one that was written.
    dropped: u64,
}

impl Rate {
    /// Whether a line of this cost may be written now.
    fn admit(&mut self, cost: usize, per_second: u64, now: Instant) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
        let (cost, full) = (cost as f64, per_second as f64);
        let left = self
            .left
            .map_or(full, |(left, at)| (left + now.saturating_duration_since(at).as_secs_f64() * full).min(full));
        // A line longer than a second's worth may go out alone.
        let fits = cost <= left || left >= full;
        self.left = Some((if fits { left - cost } else { left }, now));
        self.dropped += u64::from(!fits);
        fits
    }
}

impl FunctionLog {
    pub(crate) fn new(function: FunctionName, hub: Hub) -> Self {
        Self { function, hub, kept: Mutex::default() }
    }

    /// The lines kept, oldest first.
    pub(crate) fn lines(&self) -> Vec<Arc<Line>> {
        self.kept.lock().lines.iter().cloned().collect()
    }

    fn push(&self, call: &CallId, level: u32, text: String, per_second: u64) {
        let mut kept = self.kept.lock();
        if !kept.rate.admit(text.len() + LINE_COST, per_second, Instant::now()) {
            self.hub.lose(Lost::Rate, 1);
            return;
        }
        let dropped = std::mem::take(&mut kept.rate.dropped);
        if dropped > 0 {
            let note = format!(
                "[{dropped} lines dropped here: the function has used its {per_second} bytes of log a second; log less, or deploy with a larger --log-rate]"
            );
            self.write(&mut kept, call, WARN, note);
        }
        self.write(&mut kept, call, level, text);
    }

    fn write(&self, kept: &mut Kept, call: &CallId, level: u32, text: String) {
        let line = Arc::new(Line {
            function: self.function.clone(),
            number: kept.written,
            call: call.clone(),
            time_us: now_us(),
            level,
            text,
        });
        kept.written += 1;
        kept.bytes += line.text.len();
        kept.lines.push_back(line.clone());
        while kept.lines.len() > LINES_KEPT || kept.bytes > BYTES_KEPT {
            let oldest = kept.lines.pop_front().map_or(0, |line| line.text.len());
            kept.bytes -= oldest;
        }
        // Under the lock, so that followers see a function's lines in order. Fails only where nobody follows.
        let _ = self.hub.lines.send(line);
    }
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    us(since)
}

/// The lines of one call, up to its allowance.
#[derive(Debug)]
pub(crate) struct CallLog {
    log: Handle<FunctionLog>,
    call: CallId,
    allowance: usize,
    left: usize,
    is_cut: bool,
    /// What all calls of the function may write in a second.
    per_second: u64,
}

impl CallLog {
    /// For a call that may log so many bytes, of a function whose calls may log so many in a second.
    pub(crate) fn new(log: impl Into<Handle<FunctionLog>>, call: CallId, allowance: u64, per_second: u64) -> Self {
        let log = log.into();
        let allowance = usize::try_from(allowance).unwrap_or(usize::MAX);
        Self { log, call, allowance, left: allowance, is_cut: false, per_second }
    }

    /// Bytes that are worth handing over; the rest would be cut.
    pub(crate) fn bytes_of_interest(&self) -> usize {
        // One more than what is left, so that a cut is noticed.
        self.left.saturating_add(1)
    }

    /// Writes text, one line for each of its lines.
    pub(crate) fn write(&mut self, level: u32, text: &[u8]) {
        for line in text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n') {
            let (head, rest) = line.split_at(line.len().min(LINE_BYTES_MAX));
            self.write_line(level, head);
            rest.chunks(LINE_BYTES_MAX).for_each(|part| self.write_line(level, part));
        }
    }

    fn write_line(&mut self, level: u32, text: &[u8]) {
        if self.is_cut {
            self.log.hub.lose(Lost::Allowance, 1);
            return;
        }
        let cost = text.len() + LINE_COST;
        let fitting = text.len().min(self.left);
        if fitting > 0 || text.is_empty() {
            self.log.push(&self.call, level.min(DEBUG), printable(&text[..fitting]), self.per_second);
        }
        if cost > self.left {
            self.is_cut = true;
            let note = format!(
                "[log cut here: this call has used its {} bytes; log less, or deploy with a larger log limit]",
                self.allowance
            );
            self.log.push(&self.call, WARN, note, self.per_second);
        }
        self.left = self.left.saturating_sub(cost);
    }
}

/// Text without anything that a terminal would act on.
pub(crate) fn printable(text: &[u8]) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in String::from_utf8_lossy(text).chars() {
        if c == '\t' || c == '\n' || !c.is_control() {
            clean.push(c);
        } else if c != '\r' {
            let _ = write!(clean, "{}", c.escape_default());
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Arc<FunctionLog> {
        Arc::new(FunctionLog::new("echo".parse().unwrap(), Hub::new()))
    }

    fn texts(log: &FunctionLog) -> Vec<String> {
        log.lines().iter().map(|line| line.text.clone()).collect()
    }

    #[test]
    fn lines_are_cut_at_the_allowance_with_a_note() {
        let log = log();
        let mut call = CallLog::new(log.clone(), CallId::random(), 40, u64::MAX);
        call.write(INFO, b"first");
        call.write(INFO, b"second is much longer than what is left");
        call.write(INFO, b"third");
        let texts = texts(&log);
        assert_eq!(texts[..2], ["first", "second is much long"]);
        assert!(texts[2].contains("log cut here") && texts[2].contains("40 bytes"), "{texts:?}");
        assert_eq!(texts.len(), 3);
    }

    #[test]
    fn empty_lines_use_up_the_allowance_too() {
        let log = log();
        let mut call = CallLog::new(log.clone(), CallId::random(), 100, u64::MAX);
        (0..1000).for_each(|_| call.write(INFO, b""));
        assert!(log.lines().len() < 10);
    }

    #[test]
    fn all_calls_together_write_no_more_than_the_functions_rate() {
        let log = log();
        for _ in 0..10 {
            let mut call = CallLog::new(log.clone(), CallId::random(), u64::MAX, 1000);
            (0..10).for_each(|_| call.write(INFO, &[b'x'; 84]));
        }
        // Ten lines of 84 bytes and their cost; a slow machine may have let a few more through meanwhile.
        assert!((10..60).contains(&texts(&log).len()), "{}", texts(&log).len());
        let (mut rate, start) = (Rate::default(), Instant::now());
        let admitted = (0..100).filter(|_| rate.admit(100, 1000, start)).count();
        assert_eq!((admitted, rate.dropped), (10, 90));
        let half_a_second_later = start + std::time::Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| rate.admit(100, 1000, half_a_second_later)).count(), 5);
        let much_later = start + std::time::Duration::from_secs(100);
        assert!(rate.admit(1_000_000, 1000, much_later), "a long line goes out alone");
        assert!(!rate.admit(1, 1000, much_later));
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(printable(b"a\x1b[31mred\x07\tb\r"), "a\\u{1b}[31mred\\u{7}\tb");
        assert_eq!(printable(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn a_function_keeps_a_bounded_number_of_lines_and_bytes() {
        let log = log();
        let mut call = CallLog::new(log.clone(), CallId::random(), u64::MAX, u64::MAX);
        (0..2 * LINES_KEPT).for_each(|n| call.write(INFO, n.to_string().as_bytes()));
        assert_eq!(texts(&log).len(), LINES_KEPT);
        assert_eq!(texts(&log)[0], LINES_KEPT.to_string());
        (0..100).for_each(|_| call.write(INFO, &[b'x'; LINE_BYTES_MAX]));
        assert!(texts(&log).iter().map(String::len).sum::<usize>() <= BYTES_KEPT);
    }

    #[test]
    fn followers_get_lines_in_order_one_for_each_line_of_text() {
        let log = log();
        let mut follower = log.hub.follow();
        CallLog::new(log.clone(), CallId::random(), 1000, u64::MAX).write(PANIC, b"panicked\nhere");
        let lines: Vec<_> = std::iter::from_fn(|| follower.try_recv().ok()).map(|line| line.to_wire(0)).collect();
        assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["panicked", "here"]);
        assert!(lines.iter().all(|line| line.level == 0 && line.function == "echo"));
    }
}
