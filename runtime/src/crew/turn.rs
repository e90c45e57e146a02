//! A call's place in the crew, and how a guest that computes is told to let others go first.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::brevity::AT_ONCE_MAX;
use super::{Crew, is_seated};
use crate::function::Version;
use crate::pool::Reusable;
use crate::schedule::{Demand, LONG, Number, SHARE_SLICE};
use crate::threads::Handle;

/// A slice of a long call while only other long ones wait: longer than a tick, as each change costs caches.
const LONG_SLICE: Duration = Duration::from_millis(5);

thread_local! {
    /// The slice that this thread runs.
    pub(super) static SLICE: Cell<Option<Slice>> = const { Cell::new(None) };
}

/// A guest's time on a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) number: Number,
    pub(super) began: Instant,
    pub(super) kind: Kind,
    /// It was looked in on before: it has been at it since the last tick.
    pub(super) was_looked_at: bool,
    /// The guest gave the thread back to let others compute.
    pub(super) has_yielded: bool,
    /// The call has ended, and the schedule knows that it no longer computes.
    pub(super) is_over: bool,
}

/// Whose time it is, and so when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// That of a thread which serves the network, and wants to go on doing so.
    Lent,
    /// A brief call's.
    Brief,
    /// A long call's, while no brief one wanted to compute: the first that does goes first.
    Spare,
    /// A long call's while brief ones wait: its share, which no crowd of them can cut short.
    Share,
}

impl Kind {
    /// How long a guest computes before it makes way for those who want to compute; nothing where it need not.
    fn slice(self, demand: Demand) -> Option<Duration> {
        match (self, demand) {
            (Self::Lent, _) => Some(AT_ONCE_MAX),
            (_, Demand::None) => None,
            (Self::Spare, Demand::Brief) => Some(Duration::ZERO),
            (_, Demand::Brief) => Some(SHARE_SLICE),
            (_, Demand::Long) => Some(LONG_SLICE),
        }
    }
}

/// A call's place in the crew; the schedule learns of its end when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) crew: Handle<Crew>,
    pub(crate) number: Number,
    /// It has computed for so long in one slice that the schedule had to learn of it.
    is_long: bool,
    /// The schedule knows that the call has ended.
    is_over: bool,
    /// The memory of the kept instance that the call took, as long as the schedule has not been told of that: one that was
    /// seated mostly gives it back.
    borrowed_bytes: Option<u64>,
}

impl Turn {
    pub(super) fn new(crew: Handle<Crew>, number: Number) -> Self {
        Self { crew, number, is_long: false, is_over: false, borrowed_bytes: None }
    }

    /// A kept instance of this version, if there is one.
    pub(crate) fn take_kept(&mut self, version: &Version, now: Instant) -> Option<Reusable> {
        let instance = self.crew.pool.take(version, now)?;
        let memory_bytes = instance.memory_bytes();
        if is_seated(self.number) {
            self.borrowed_bytes = Some(memory_bytes);
        } else {
            self.crew.released_bytes.fetch_add(memory_bytes, Ordering::Relaxed);
        }
        Some(instance)
    }

    /// Whether the guest in this thread's slice should let others compute.
    pub(crate) fn should_yield(&mut self) -> bool {
        let Some(slice) = SLICE.get() else { return false };
        let ran = slice.began.elapsed();
        let is_news = !self.is_long && ran >= LONG;
        self.is_long |= is_news;
        let is_due = slice.kind.slice(self.crew.demand()).is_some_and(|slice| ran >= slice);
        // A thread that the kernel kept from running has lost time that its guest never had. Whoever is seen a second time has
        // computed meanwhile.
        let yields = is_news || (is_due && (slice.was_looked_at || slice.kind != Kind::Lent));
        SLICE.set(Some(Slice { has_yielded: yields, was_looked_at: true, ..slice }));
        yields
    }

    /// Ends the call and keeps its instance for a later one, if there is room.
    pub(crate) fn end_and_keep(mut self, idle: Reusable) {
        if self.end(Some(idle.memory_bytes())) {
            self.crew.keep(idle);
        }
    }

    /// Ends the call in a while: until then no other may have its place. One that is seated, and so keeps others from a
    /// thread, ends now.
    pub(crate) fn end_after(self, rest: Duration) {
        if is_seated(self.number) {
            return;
        }
        self.crew.desk.lock().schedule.keep_place(self.number, rest);
        let turn = self;
        turn.crew.runtime.clone().spawn(async move {
            // A computer that ends need not wait for that.
            let _ = tokio::time::timeout(rest, turn.crew.stopping.cancelled()).await;
            drop(turn);
        });
    }

    /// Tells the schedule that the call has ended, and says whether there is room to keep an instance with so much memory.
    fn end(&mut self, kept_bytes: Option<u64>) -> bool {
        self.is_over = true;
        // Mostly it ends in a slice of its own, and with that the slice is over too.
        let own = SLICE.get().filter(|slice| slice.number == self.number);
        let is_given_back = kept_bytes.is_some() && self.borrowed_bytes == kept_bytes;
        if let Some(memory_bytes) = self.borrowed_bytes.take_if(|_| !is_given_back) {
            self.crew.released_bytes.fetch_add(memory_bytes, Ordering::Relaxed);
        }
        if is_seated(self.number) && self.crew.seats.get_up(self.number, Instant::now()) {
            SLICE.set(own.map(|slice| Slice { is_over: true, ..slice }));
            return is_given_back || kept_bytes.is_some_and(|bytes| self.may_keep(bytes));
        }
        let mut desk = self.crew.desk();
        desk.schedule.finish(self.number);
        if let Some(slice) = own {
            desk.schedule.pause(self.number, 0, Duration::ZERO, Instant::now());
            SLICE.set(Some(Slice { is_over: true, ..slice }));
        }
        let may_keep = is_given_back || kept_bytes.is_some_and(|bytes| desk.schedule.keep(bytes));
        // A thread of the crew looks for more to do anyway.
        let is_of_crew = SLICE.get().is_some_and(|slice| slice.kind != Kind::Lent);
        let must_wake = desk.resting > 0 && !is_of_crew && (desk.is_over || desk.schedule.demand() > Demand::None);
        self.crew.leave(desk);
        if must_wake {
            self.crew.work.notify_one();
        }
        may_keep
    }

    /// Asks the schedule for room to keep an instance.
    fn may_keep(&self, memory_bytes: u64) -> bool {
        let mut desk = self.crew.desk();
        let may_keep = desk.schedule.keep(memory_bytes);
        self.crew.leave(desk);
        may_keep
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(None);
        }
    }
}

/// Whether this thread serves the network, and is lent to a guest.
pub(crate) fn is_lent() -> bool {
    SLICE.get().is_some_and(|slice| slice.kind == Kind::Lent)
}

/// Whether the guest in this thread's slice gave it back although it could go on.
pub(crate) fn has_yielded() -> bool {
    SLICE.get().is_some_and(|slice| slice.has_yielded)
}
