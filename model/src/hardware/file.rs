//! Descriptions of hardware as files: TOML, and the older system's JSON.

use std::fmt;

use serde::Deserialize;

use super::{
    Container, Demand, Formulas, Hardware, HardwareError, Linear, Output, Processor, ProcessorKind, QUEUE_DEFAULT,
    Requirement,
};

/// The version of the JSON form.
const VERSION: &str = "1.0";

/// Why a file describes no hardware.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not TOML of this form.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// It is not JSON of this form.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error("version {found:?}; this release reads version {VERSION:?}")]
    Version {
        /// What the file says.
        found: String,
    },
    /// What it describes makes no sense.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
}

impl Hardware {
    /// A description in TOML, for a look and to begin with.
    pub const EXAMPLE: &str = include_str!("example.toml");
    /// The same in JSON, as the older system reads it.
    pub const EXAMPLE_JSON: &str = include_str!("example.json");

    /// Reads a description: JSON where it begins with a brace, else TOML.
    ///
    /// # Errors
    /// Where and why it cannot be read, or makes no sense.
    pub fn from_text(text: &str) -> Result<Self, FileError> {
        let hardware = if text.trim_start().starts_with('{') { from_json(text)? } else { from_toml(text)? };
        hardware.check()?;
        Ok(hardware)
    }
}

fn from_toml(text: &str) -> Result<Hardware, FileError> {
    let TomlFile { formulas, processor, container } = toml::from_str(text)?;
    let processors = processor.into_iter().map(|one| Processor {
        name: one.name,
        kind: one.kind,
        speed: one.speed,
        cores: one.cores,
        memory_bytes: one.memory.0,
    });
    Ok(Hardware {
        processors: processors.collect(),
        containers: container.into_iter().map(Into::into).collect(),
        formulas,
    })
}

fn from_json(text: &str) -> Result<Hardware, FileError> {
    // The version first: what else there has to be depends on it.
    let JsonVersion { version } = serde_json::from_str(text)?;
    if version != VERSION {
        return Err(FileError::Version { found: version });
    }
    let JsonFile { processors, containers } = serde_json::from_str(text)?;
    let processors = processors.into_iter().map(|one| Processor {
        name: one.name,
        kind: one.kind,
        speed: one.speed,
        cores: one.cores.0,
        memory_bytes: one.memory.0,
    });
    let containers = containers.into_iter().map(Into::into).collect();
    Ok(Hardware { processors: processors.collect(), containers, formulas: Formulas::default() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlFile {
    #[serde(default)]
    formulas: Formulas,
    processor: Vec<TomlProcessor>,
    container: Vec<TomlContainer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlProcessor {
    name: String,
    #[serde(default = "cpu")]
    kind: ProcessorKind,
    speed: f64,
    cores: u32,
    memory: Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlContainer {
    name: Option<String>,
    processor: String,
    workers: u32,
    #[serde(default = "queue")]
    queue: u32,
    function: String,
    ops: Amount,
    #[serde(default)]
    memory: Amount,
    output: Option<String>,
}

/// A number, or a linear function of the input's size.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged, expecting = "a number, or { coefficient = NUMBER, offset = NUMBER }")]
enum Amount {
    Fixed(f64),
    Linear(Coefficients),
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Coefficients {
    coefficient: f64,
    #[serde(default)]
    offset: f64,
}

impl Default for Amount {
    fn default() -> Self {
        Self::Fixed(0.0)
    }
}

impl From<Amount> for Linear {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Fixed(offset) => Self { coefficient: 0.0, offset },
            Amount::Linear(Coefficients { coefficient, offset }) => Self { coefficient, offset },
        }
    }
}

impl From<TomlContainer> for Container {
    fn from(one: TomlContainer) -> Self {
        let requirement = match (one.ops, one.memory) {
            (Amount::Fixed(ops), Amount::Fixed(memory)) => {
                Requirement::Fixed(Demand { ops: whole(ops), memory_bytes: whole(memory) })
            }
            (ops, memory) => Requirement::Proportional { ops: ops.into(), memory: memory.into() },
        };
        Self {
            name: one.name.unwrap_or_else(|| one.function.clone()),
            processor: one.processor,
            workers: one.workers,
            queue: one.queue,
            function: one.function,
            requirement,
            output: one.output.map_or(Output::CopyInput, Output::Fixed),
        }
    }
}

#[derive(Deserialize)]
struct JsonVersion {
    version: String,
}

/// The older form. As there, what else is in it is of no concern.
#[derive(Deserialize)]
struct JsonFile {
    processors: Vec<JsonProcessor>,
    containers: Vec<JsonContainer>,
}

#[derive(Deserialize)]
struct JsonProcessor {
    name: String,
    #[serde(rename = "type")]
    kind: ProcessorKind,
    speed: f64,
    cores: Count,
    memory: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct JsonContainer {
    name: String,
    processor: String,
    num_workers: Count,
    lambda: JsonLambda,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct JsonLambda {
    name: String,
    #[serde(flatten)]
    requirements: JsonRequirements,
    #[serde(flatten)]
    output: JsonOutput,
}

#[derive(Deserialize)]
#[serde(tag = "requirements", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
enum JsonRequirements {
    Proportional { op_coeff: f64, op_offset: f64, mem_coeff: f64, mem_offset: f64 },
}

#[derive(Deserialize)]
#[serde(tag = "output-type", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
enum JsonOutput {
    CopyInput,
    Fixed { output_value: String },
}

impl From<JsonContainer> for Container {
    fn from(one: JsonContainer) -> Self {
        let JsonRequirements::Proportional { op_coeff, op_offset, mem_coeff, mem_offset } = one.lambda.requirements;
        Self {
            name: one.name,
            processor: one.processor,
            workers: one.num_workers.0,
            queue: QUEUE_DEFAULT,
            function: one.lambda.name,
            requirement: Requirement::Proportional {
                ops: Linear { coefficient: op_coeff, offset: op_offset },
                memory: Linear { coefficient: mem_coeff, offset: mem_offset },
            },
            output: match one.lambda.output {
                JsonOutput::CopyInput => Output::CopyInput,
                JsonOutput::Fixed { output_value } => Output::Fixed(output_value),
            },
        }
    }
}

/// A number of things that may be written as `4` or `4.0`.
struct Count(u32);

/// A number of bytes, or a size such as `512MiB`.
struct Bytes(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        let count = u32::try_from(whole(number)).map_err(serde::de::Error::custom)?;
        if f64::from(count) != number {
            return Err(serde::de::Error::custom(format!("{number} is no whole number from 0 on")));
        }
        Ok(Self(count))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a size such as \"512MiB\"")
            }

            fn visit_u64<E>(self, bytes: u64) -> Result<u64, E> {
                Ok(bytes)
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<u64, E> {
                u64::try_from(bytes).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(bytes), &self))
            }

            fn visit_f64<E: serde::de::Error>(self, bytes: f64) -> Result<u64, E> {
                if bytes >= 0.0 {
                    return Ok(whole(bytes));
                }
                Err(E::invalid_value(serde::de::Unexpected::Float(bytes), &self))
            }

            fn visit_str<E: serde::de::Error>(self, size: &str) -> Result<u64, E> {
                let size: bytesize::ByteSize =
                    size.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(size), &self))?;
                Ok(size.as_u64())
            }
        }
        deserializer.deserialize_any(Visitor).map(Self)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded; the cast saturates at 0 and the end"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

fn cpu() -> ProcessorKind {
    ProcessorKind::GenericCpu
}

fn queue() -> u32 {
    QUEUE_DEFAULT
}
