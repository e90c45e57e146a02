//! Operations come, wait, run and end; what one would take; how busy everything is.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::hardware::{Container, Demand, Hardware, HardwareError, Processor};
use crate::processor::{Machine, Place, Started};

/// A modelled computer.
///
/// What ends at an instant ends before what arrives at it. Time never goes back: an earlier time than one told before is
/// taken for that one.
#[derive(Debug, Clone)]
pub struct Model {
    containers: Vec<Placed>,
    by_function: BTreeMap<String, ContainerId>,
    machines: Vec<Machine>,
    places: BTreeMap<OpId, (ContainerId, Place)>,
    completions: Vec<Completion>,
    now: u64,
    next: u64,
}

/// A container, and where it is.
#[derive(Debug, Clone)]
struct Placed {
    container: Container,
    machine: usize,
    /// Its number on that processor.
    queue: usize,
}

/// Names a container of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(usize);

/// Names an operation of one model: they are numbered in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u64);

/// What a container is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// The container.
    pub container: ContainerId,
    /// What it takes.
    pub demand: Demand,
}

/// An operation that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Which.
    pub id: OpId,
    /// Where it ran.
    pub container: ContainerId,
    /// When it arrived.
    pub submitted: Duration,
    /// When it started.
    pub started: Duration,
    /// When it ended.
    pub finished: Duration,
}

/// What an operation would take that arrived now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Until it starts.
    pub wait: Duration,
    /// From then on.
    pub run: Duration,
}

/// Why an operation is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No container runs this function.
    #[error("no container runs {function:?}; there are containers for: {known}")]
    NoContainer {
        /// The function.
        function: String,
        /// Those that there are.
        known: String,
    },
    /// It needs more memory than its processor has, so that it would wait for ever.
    #[error("the operation needs {wanted} bytes of memory; processor {processor} has {total}")]
    TooMuchMemory {
        /// What it needs.
        wanted: u64,
        /// The processor's name.
        processor: String,
        /// What there is.
        total: u64,
    },
    /// As many wait as may.
    #[error("{waiting} operations wait at container {container}, its limit")]
    QueueFull {
        /// The container's name.
        container: String,
        /// How many wait.
        waiting: u32,
    },
}

impl Model {
    /// Sets the hardware up; nothing runs yet.
    ///
    /// # Errors
    /// Where the hardware makes no sense.
    pub fn new(hardware: Hardware) -> Result<Self, HardwareError> {
        hardware.check()?;
        let Hardware { processors, containers, formulas } = hardware;
        let machines = processors.into_iter().map(|processor| Machine::new(processor, formulas)).collect();
        let mut model = Self {
            containers: Vec::with_capacity(containers.len()),
            by_function: BTreeMap::new(),
            machines,
            places: BTreeMap::new(),
            completions: Vec::new(),
            now: 0,
            next: 0,
        };
        containers.into_iter().for_each(|container| model.place(container));
        Ok(model)
    }

    fn place(&mut self, container: Container) {
        let id = ContainerId(self.containers.len());
        let machine = self.machines.iter().position(|machine| machine.processor().name == container.processor);
        let machine = machine.expect("checked hardware has every container's processor");
        let queue = self.machines[machine].add(id, &container);
        self.by_function.insert(container.function.clone(), id);
        self.containers.push(Placed { container, machine, queue });
    }

    /// All containers, in the order of the hardware.
    pub fn containers(&self) -> impl ExactSizeIterator<Item = (ContainerId, &Container)> {
        self.containers.iter().enumerate().map(|(at, placed)| (ContainerId(at), &placed.container))
    }

    /// One container.
    ///
    /// # Panics
    /// Where it is of another model.
    pub fn container(&self, id: ContainerId) -> &Container {
        &self.containers[id.0].container
    }

    /// The processor that a container is on.
    ///
    /// # Panics
    /// Where the container is of another model.
    pub fn processor_of(&self, id: ContainerId) -> &Processor {
        self.machines[self.containers[id.0].machine].processor()
    }

    /// What a call of a function with an input of this size asks for.
    ///
    /// # Errors
    /// [`Refusal::NoContainer`].
    pub fn operation(&self, function: &str, input_bytes: u64) -> Result<Operation, Refusal> {
        let Some(&container) = self.by_function.get(function) else {
            let known = self.by_function.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Refusal::NoContainer { function: function.to_owned(), known });
        };
        Ok(Operation { container, demand: self.container(container).requirement.of(input_bytes) })
    }

    /// Takes an operation that arrives now: it starts at once if there is a worker and memory, else it waits.
    ///
    /// # Errors
    /// [`Refusal::TooMuchMemory`], [`Refusal::QueueFull`].
    pub fn submit(&mut self, operation: Operation, now: Duration) -> Result<OpId, Refusal> {
        self.settle(now);
        self.check(&operation)?;
        let Placed { container, machine, queue } = &self.containers[operation.container.0];
        let waiting = self.machines[*machine].counts(*queue).1;
        let id = OpId(self.next);
        if waiting >= container.queue && self.waits(&operation) {
            return Err(Refusal::QueueFull { container: container.name.clone(), waiting });
        }
        self.next += 1;
        let place = self.machines[*machine].submit(id, *queue, operation.demand, self.now);
        self.places.insert(id, (operation.container, place));
        Ok(id)
    }

    /// Ends an operation that nobody wants any more; what it has done is lost. False where it has ended already.
    pub fn cancel(&mut self, id: OpId, now: Duration) -> bool {
        self.settle(now);
        let Some((container, place)) = self.places.remove(&id) else { return false };
        let mut started = Vec::new();
        let machine = self.containers[container.0].machine;
        self.machines[machine].cancel(id, &place, self.now, &mut started);
        self.note(started);
        true
    }

    /// Goes on to this time. Returns all that has ended since this was asked last, in the order of time.
    #[must_use = "what has ended is told only once"]
    pub fn advance(&mut self, to: Duration) -> std::vec::Drain<'_, Completion> {
        self.settle(to);
        self.completions.drain(..)
    }

    /// When something ends next, if nothing arrives before. What has ended already and was not told yet does not count.
    pub fn next_event(&self) -> Option<Duration> {
        self.next_machine().map(|(at, _)| Duration::from_nanos(at))
    }

    /// What an operation would take that arrived now.
    ///
    /// # Errors
    /// [`Refusal::TooMuchMemory`].
    pub fn estimate(&mut self, operation: Operation, now: Duration) -> Result<Estimate, Refusal> {
        self.settle(now);
        self.check(&operation)?;
        let Placed { machine, queue, .. } = &self.containers[operation.container.0];
        Ok(self.machines[*machine].estimate(OpId(self.next), *queue, operation.demand, self.now))
    }

    /// What really happens to an operation that arrives now, if nothing else does; whatever formulas the hardware asks for.
    ///
    /// # Errors
    /// [`Refusal::TooMuchMemory`].
    pub fn foresee(&mut self, operation: Operation, now: Duration) -> Result<Estimate, Refusal> {
        self.settle(now);
        self.check(&operation)?;
        let Placed { machine, queue, .. } = &self.containers[operation.container.0];
        Ok(self.machines[*machine].foresee(OpId(self.next), *queue, operation.demand, self.now))
    }

    /// Whether an operation that arrives now has to wait.
    pub fn would_wait(&mut self, operation: Operation, now: Duration) -> bool {
        self.settle(now);
        self.waits(&operation)
    }

    /// Whether an operation runs; false where it waits or has ended.
    pub fn is_running(&self, id: OpId) -> bool {
        self.places.get(&id).is_some_and(|(_, place)| matches!(place, Place::Running(_)))
    }

    /// How many operations of a container run and wait.
    ///
    /// # Panics
    /// Where the container is of another model.
    pub fn counts(&self, id: ContainerId) -> (u32, u32) {
        let Placed { machine, queue, .. } = &self.containers[id.0];
        self.machines[*machine].counts(*queue)
    }

    /// How busy the processor of a container is: in the last whole second, and in the mean of the last 10 and 30, from 0 to 1.
    ///
    /// # Panics
    /// Where the container is of another model.
    pub fn utilisation_of(&mut self, id: ContainerId, now: Duration) -> [f32; 3] {
        self.settle(now);
        let machine = self.containers[id.0].machine;
        self.machines[machine].shares(self.now)
    }

    /// The same of every processor.
    pub fn utilisation(&mut self, now: Duration) -> impl Iterator<Item = (&Processor, [f32; 3])> {
        self.settle(now);
        let now = self.now;
        self.machines.iter_mut().map(move |machine| {
            let shares = machine.shares(now);
            (machine.processor(), shares)
        })
    }

    /// Operations that wait or run.
    pub fn under_way(&self) -> usize {
        self.places.len()
    }

    fn waits(&self, operation: &Operation) -> bool {
        let Placed { machine, queue, .. } = &self.containers[operation.container.0];
        !self.machines[*machine].could_start(OpId(self.next), *queue, operation.demand)
    }

    fn check(&self, operation: &Operation) -> Result<(), Refusal> {
        let machine = &self.machines[self.containers[operation.container.0].machine];
        let (wanted, total) = (operation.demand.memory_bytes, machine.memory_total());
        if wanted > total {
            return Err(Refusal::TooMuchMemory { wanted, processor: machine.processor().name.clone(), total });
        }
        Ok(())
    }

    /// Lets everything happen that happens until `to`, in the order of time.
    fn settle(&mut self, to: Duration) {
        let to = u64::try_from(to.as_nanos()).unwrap_or(u64::MAX);
        let mut started = Vec::new();
        while let Some((at, machine)) = self.next_machine().filter(|(at, _)| *at <= to) {
            self.now = self.now.max(at);
            if let Some(done) = self.machines[machine].finish(at, &mut started) {
                self.places.remove(&done.id);
                self.completions.push(done);
            }
            self.note(started.drain(..));
        }
        self.now = self.now.max(to);
    }

    /// Where something ends next, and when.
    fn next_machine(&self) -> Option<(u64, usize)> {
        let next = |(index, machine): (usize, &Machine)| Some((machine.next()?, index));
        self.machines.iter().enumerate().filter_map(next).min()
    }

    fn note(&mut self, started: impl IntoIterator<Item = Started>) {
        for (id, place) in started {
            if let Some((_, known)) = self.places.get_mut(&id) {
                *known = place;
            }
        }
    }
}

impl OpId {
    /// Its number: 0 for the first operation, and one more for each.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl Completion {
    pub(crate) fn new(id: OpId, container: ContainerId, submitted: u64, started: u64, finished: u64) -> Self {
        let [submitted, started, finished] = [submitted, started, finished].map(Duration::from_nanos);
        Self { id, container, submitted, started, finished }
    }

    /// How long it waited.
    pub fn wait(&self) -> Duration {
        self.started.saturating_sub(self.submitted)
    }

    /// How long it ran.
    pub fn run(&self) -> Duration {
        self.finished.saturating_sub(self.started)
    }
}

impl Estimate {
    /// From arrival to end.
    pub fn total(&self) -> Duration {
        self.wait + self.run
    }
}
