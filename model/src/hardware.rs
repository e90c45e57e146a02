//! What a modelled computer is made of, as described.

pub(crate) mod file;
pub(crate) mod preset;

use std::collections::BTreeSet;
use std::fmt;

/// Processors, containers, workers and cores: at most this many of each, so that no sum overflows.
const COUNT_MAX: u32 = 1 << 20;
/// Operations per second of one core.
const SPEED: std::ops::RangeInclusive<f64> = 1e-3..=1e15;
/// Operations that one call may require; more is taken for this.
const OPS_MAX: u64 = 1 << 53;
/// Operations that wait at one container where nothing else is said; that of a function deployed.
pub const QUEUE_DEFAULT: u32 = 256;

/// The hardware of a computer, and what it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    /// What computes.
    pub processors: Vec<Processor>,
    /// What runs there; each belongs to one processor.
    pub containers: Vec<Container>,
    /// How utilisation and estimates are figured.
    pub formulas: Formulas,
}

/// A processor: cores of the same speed, and memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Processor {
    /// Its name, unique in the computer.
    pub name: String,
    /// What it is.
    pub kind: ProcessorKind,
    /// Operations per second of one core.
    pub speed: f64,
    /// Cores.
    pub cores: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// What a processor is. It makes no difference but in names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ProcessorKind {
    /// A CPU.
    #[serde(alias = "cpu")]
    GenericCpu,
    /// A GPU.
    #[serde(alias = "gpu")]
    GenericGpu,
}

/// A container: it runs one function on one processor.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Its name, unique in the computer.
    pub name: String,
    /// The name of its processor.
    pub processor: String,
    /// Operations that run at once.
    pub workers: u32,
    /// Operations that wait, at most.
    pub queue: u32,
    /// The function; no two containers of a computer run the same.
    pub function: String,
    /// What one call of it takes.
    pub requirement: Requirement,
    /// What it answers.
    pub output: Output,
}

/// What one call of a function takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Requirement {
    /// Operations and bytes of memory as linear functions of the input's size.
    Proportional {
        /// Operations.
        ops: Linear,
        /// Bytes of memory.
        memory: Linear,
    },
    /// The same for every input.
    Fixed(Demand),
}

/// A linear function of the size of an input in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    /// For each byte.
    pub coefficient: f64,
    /// In any case.
    pub offset: f64,
}

/// What one operation takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Operations of a core.
    pub ops: u64,
    /// Bytes of memory, while it runs.
    pub memory_bytes: u64,
}

/// What a function answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Its input.
    CopyInput,
    /// Always the same.
    Fixed(String),
}

/// How utilisation and estimates are figured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Formulas {
    /// Utilisation is the share of the cores that was busy. An estimate is what happens if nothing else arrives.
    #[default]
    Exact,
    /// As in the older system: utilisation counts operations rather than cores, so that it is too high where more run than
    /// there are cores; an estimate takes all that waits one after the other, and memory to be plenty.
    Older,
}

/// What is wrong with a description of hardware.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HardwareError {
    /// Two things of the same name.
    #[error("there are two {what}s called {name:?}; each needs a name of its own")]
    Duplicate {
        /// `processor` or `container`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two containers run the same function.
    #[error("two containers run {function:?}; a computer runs a function in one container: give that more workers")]
    DuplicateFunction {
        /// The function.
        function: String,
    },
    /// A container of a processor that there is not.
    #[error("container {container:?} is on processor {processor:?}, which there is not; there are: {known}")]
    UnknownProcessor {
        /// The container.
        container: String,
        /// Its processor.
        processor: String,
        /// Those that there are.
        known: String,
    },
    /// A number out of its range.
    #[error("{what} of {name:?} is {found}; it has to be {expected}")]
    Range {
        /// `cores`, `speed`, …
        what: &'static str,
        /// Whose.
        name: String,
        /// What it is.
        found: f64,
        /// What it may be.
        expected: String,
    },
    /// Something without a name.
    #[error("a {what} has no name")]
    NoName {
        /// `processor`, `container` or `function`.
        what: &'static str,
    },
    /// Too few or too many of something.
    #[error("{found} {what}; there have to be 1 to {COUNT_MAX}")]
    Count {
        /// `processors` or `containers`.
        what: &'static str,
        /// How many there are.
        found: usize,
    },
}

impl Hardware {
    /// Checks that it makes sense.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), HardwareError> {
        for (what, found) in [("processors", self.processors.len()), ("containers", self.containers.len())] {
            if !(1..=COUNT_MAX as usize).contains(&found) {
                return Err(HardwareError::Count { what, found });
            }
        }
        let mut processors = BTreeSet::new();
        for processor in &self.processors {
            processor.check()?;
            if !processors.insert(processor.name.as_str()) {
                return Err(HardwareError::Duplicate { what: "processor", name: processor.name.clone() });
            }
        }
        let (mut names, mut functions) = (BTreeSet::new(), BTreeSet::new());
        for container in &self.containers {
            container.check()?;
            if !processors.contains(container.processor.as_str()) {
                return Err(HardwareError::UnknownProcessor {
                    container: container.name.clone(),
                    processor: container.processor.clone(),
                    known: processors.into_iter().collect::<Vec<_>>().join(", "),
                });
            }
            if !names.insert(container.name.as_str()) {
                return Err(HardwareError::Duplicate { what: "container", name: container.name.clone() });
            }
            if !functions.insert(container.function.as_str()) {
                return Err(HardwareError::DuplicateFunction { function: container.function.clone() });
            }
        }
        Ok(())
    }
}

impl Processor {
    fn check(&self) -> Result<(), HardwareError> {
        if self.name.is_empty() {
            return Err(HardwareError::NoName { what: "processor" });
        }
        check_count("cores", &self.name, self.cores)?;
        if !SPEED.contains(&self.speed) {
            let expected = format!("from {:e} to {:e} operations per second", SPEED.start(), SPEED.end());
            return Err(HardwareError::Range { what: "speed", name: self.name.clone(), found: self.speed, expected });
        }
        if self.memory_bytes == 0 {
            let expected = "at least 1 byte".to_owned();
            return Err(HardwareError::Range { what: "memory", name: self.name.clone(), found: 0.0, expected });
        }
        Ok(())
    }

    /// Operations per second of each of so many that run; 0 where none does.
    pub(crate) fn speed_of_each(&self, running: u32) -> f64 {
        if running == 0 {
            return 0.0;
        }
        f64::from(self.cores.min(running)) * self.speed / f64::from(running)
    }
}

impl Container {
    fn check(&self) -> Result<(), HardwareError> {
        for (what, name) in [("container", &self.name), ("function", &self.function)] {
            if name.is_empty() {
                return Err(HardwareError::NoName { what });
            }
        }
        check_count("workers", &self.name, self.workers)?;
        if let Requirement::Proportional { ops, memory } = self.requirement {
            for number in [ops.coefficient, ops.offset, memory.coefficient, memory.offset] {
                if !number.is_finite() {
                    let expected = "a number".to_owned();
                    let name = self.name.clone();
                    return Err(HardwareError::Range { what: "a coefficient", name, found: number, expected });
                }
            }
        }
        Ok(())
    }
}

fn check_count(what: &'static str, name: &str, found: u32) -> Result<(), HardwareError> {
    if (1..=COUNT_MAX).contains(&found) {
        return Ok(());
    }
    let expected = format!("from 1 to {COUNT_MAX}");
    Err(HardwareError::Range { what, name: name.to_owned(), found: found.into(), expected })
}

impl Requirement {
    /// What a call with an input of this size takes.
    pub fn of(&self, input_bytes: u64) -> Demand {
        match self {
            Self::Proportional { ops, memory } => {
                Demand { ops: ops.at(input_bytes).min(OPS_MAX), memory_bytes: memory.at(input_bytes) }
            }
            Self::Fixed(Demand { ops, memory_bytes }) => {
                Demand { ops: (*ops).min(OPS_MAX), memory_bytes: *memory_bytes }
            }
        }
    }
}

impl Linear {
    /// Rounded, and nothing below 0.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "in single precision as the older system figures, so that both take the same; casts saturate"
    )]
    fn at(self, bytes: u64) -> u64 {
        let exact = self.coefficient as f32 * bytes as f32 + self.offset as f32;
        (0.5 + exact).max(0.0) as u64
    }
}

impl Output {
    /// What is answered to an input.
    pub fn of<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        match self {
            Self::CopyInput => input,
            Self::Fixed(value) => value.as_bytes(),
        }
    }
}

impl fmt::Display for ProcessorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GenericCpu => "GenericCpu",
            Self::GenericGpu => "GenericGpu",
        })
    }
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:e} × size + {:e}", self.coefficient, self.offset)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proportional { ops, memory } => write!(f, "{ops} operations, {memory} bytes"),
            Self::Fixed(Demand { ops, memory_bytes }) => write!(f, "{ops} operations, {memory_bytes} bytes"),
        }
    }
}

/// One line for each processor and container.
impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Processor { name, kind, speed, cores, memory_bytes } in &self.processors {
            writeln!(f, "{name}: {kind}, {cores} cores of {speed:e} operations/s, {memory_bytes} bytes")?;
        }
        for Container { name, processor, workers, queue, function, requirement, .. } in &self.containers {
            writeln!(
                f,
                "{name}: {function} on {processor}, {workers} workers, at most {queue} waiting, {requirement}"
            )?;
        }
        Ok(())
    }
}
