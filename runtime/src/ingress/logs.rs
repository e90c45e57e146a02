//! Logs of functions as their readers are told them: the lines kept, then new ones, and how many were lost on the way.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use nigh_proto::{CallId, FunctionName, PlatformError, v1};
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use crate::function::Functions;
use crate::logs::{Line, Lost};

/// The lines kept of what is wanted, in order of time, then new ones, where the reader follows.
pub(super) fn read(
    functions: &Functions,
    request: v1::LogsRequest,
) -> Result<impl Stream<Item = Result<v1::LogLine, Status>> + Send + use<>, PlatformError> {
    let follow = request.follow;
    let wanted = Wanted::from_wire(request)?;
    // First the ear, then the memory: no line falls between. Those heard twice are told apart by their number.
    let new = functions.hub().follow();
    let logs: Vec<_> = match &wanted.function {
        Some(name) => {
            let known = functions.get(name).ok_or_else(|| PlatformError::unknown_function(name))?;
            vec![known.function.log.clone()]
        }
        None => functions.all().iter().map(|known| known.function.log.clone()).collect(),
    };
    let mut kept: Vec<Arc<Line>> = logs.iter().flat_map(|log| log.lines()).collect();
    kept.sort_by_key(|line| line.time_us());
    let mut reader = Reader { wanted, next: HashMap::new(), lost: 0 };
    let told: Vec<_> = kept.iter().filter_map(|line| reader.take(line)).map(Ok).collect();
    let hub = functions.hub().clone();
    let new = stream::unfold((new, reader, hub), |(mut new, mut reader, hub)| async move {
        loop {
            match new.recv().await {
                Ok(line) => {
                    if let Some(line) = reader.take(&line) {
                        return Some((Ok(line), (new, reader, hub)));
                    }
                }
                // Which lines were lost shows in the numbers of those that follow.
                Err(RecvError::Lagged(lines)) => hub.lose(Lost::SlowReader, lines),
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(stream::iter(told).chain(new.take(if follow { usize::MAX } else { 0 })))
}

/// Which lines a reader wants.
struct Wanted {
    function: Option<FunctionName>,
    call: Option<String>,
    since_us: u64,
    level_max: Option<u32>,
}

impl Wanted {
    fn from_wire(request: v1::LogsRequest) -> Result<Self, PlatformError> {
        let function = match request.function.as_str() {
            "" => None,
            name => Some(name.parse().map_err(PlatformError::from)?),
        };
        let call = Some(request.call_id).filter(|id| !id.is_empty());
        if call.as_ref().is_some_and(|id| id.len() > CallId::BYTES_MAX) {
            let message = format!("no call has an id of over {} bytes", CallId::BYTES_MAX);
            return Err(PlatformError::malformed(message));
        }
        Ok(Self { function, call, since_us: request.since_us, level_max: request.level_max })
    }

    fn is_of_function(&self, line: &Line) -> bool {
        self.function.as_ref().is_none_or(|function| *function == line.function)
    }

    fn includes(&self, line: &Line) -> bool {
        self.call.as_ref().is_none_or(|id| line.call().as_str().starts_with(id.as_str()))
            && line.time_us() >= self.since_us
            && self.level_max.is_none_or(|level| line.level() <= level)
    }
}

/// Keeps track of what one reader of logs has been told.
struct Reader {
    wanted: Wanted,
    /// The number of the line that comes next, by function.
    next: HashMap<FunctionName, u64>,
    /// Lines lost of which it has not been told.
    lost: u64,
}

impl Reader {
    /// The line as told to the reader; nothing if it is not for it, or was told before.
    fn take(&mut self, line: &Line) -> Option<v1::LogLine> {
        if !self.wanted.is_of_function(line) {
            return None;
        }
        let lost = match self.next.get(&line.function) {
            Some(next) => line.number.checked_sub(*next)?,
            // What was logged before the first line told was not lost on the way to this reader.
            None => 0,
        };
        self.next.insert(line.function.clone(), line.number + 1);
        // Some of those lost may have been wanted: nobody knows, so they are told of with the next line that is.
        self.lost += lost;
        if !self.wanted.includes(line) {
            return None;
        }
        Some(line.to_wire(std::mem::take(&mut self.lost)))
    }
}
