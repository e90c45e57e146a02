//! Hardware that needs no file.

use super::{Container, Formulas, Hardware, Linear, Output, Processor, ProcessorKind, QUEUE_DEFAULT, Requirement};

/// Operations of a call on a CPU besides those for its input.
const CPU_OFFSET: f64 = 4e6;
/// The same on a GPU.
const GPU_OFFSET: f64 = 1e6;

/// What can be chosen of a Raspberry Pi.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raspberry {
    /// Containers on its CPU: functions `clambda0`, `clambda1`, …
    pub cpu_containers: u32,
    /// Workers of each.
    pub cpu_workers: u32,
    /// Containers on its GPU: functions `glambda0`, `glambda1`, …
    pub gpu_containers: u32,
    /// Workers of each.
    pub gpu_workers: u32,
}

/// What can be chosen of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntelServer {
    /// Containers: functions `clambda0`, `clambda1`, …
    pub containers: u32,
    /// Workers of each.
    pub workers: u32,
}

impl Default for Raspberry {
    fn default() -> Self {
        Self { cpu_containers: 1, cpu_workers: 4, gpu_containers: 1, gpu_workers: 2 }
    }
}

impl Default for IntelServer {
    fn default() -> Self {
        Self { containers: 1, workers: 4 }
    }
}

impl Hardware {
    /// A Raspberry Pi 3: four slow cores and a GPU, half a gigabyte each.
    pub fn raspberry(chosen: &Raspberry) -> Self {
        let processor = |name: &str, kind, cores| Processor {
            name: name.to_owned(),
            kind,
            speed: 1e11,
            cores,
            memory_bytes: 512 << 20,
        };
        let cpu = (0..chosen.cpu_containers).map(|n| container('c', n, "arm", chosen.cpu_workers, CPU_OFFSET));
        let gpu = (0..chosen.gpu_containers).map(|n| container('g', n, "bm2837", chosen.gpu_workers, GPU_OFFSET));
        Self {
            processors: vec![
                processor("arm", ProcessorKind::GenericCpu, 4),
                processor("bm2837", ProcessorKind::GenericGpu, 1),
            ],
            containers: cpu.chain(gpu).collect(),
            formulas: Formulas::default(),
        }
    }

    /// A server with 20 cores.
    pub fn intel_server(chosen: &IntelServer) -> Self {
        let processor = Processor {
            name: "xeon".to_owned(),
            kind: ProcessorKind::GenericCpu,
            speed: 4e9,
            cores: 20,
            memory_bytes: 128 << 30,
        };
        let containers = (0..chosen.containers).map(|n| container('c', n, "xeon", chosen.workers, CPU_OFFSET));
        Self { processors: vec![processor], containers: containers.collect(), formulas: Formulas::default() }
    }
}

fn container(letter: char, number: u32, processor: &str, workers: u32, offset: f64) -> Container {
    let requirement = Requirement::Proportional {
        ops: Linear { coefficient: 1e6, offset },
        memory: Linear { coefficient: 100.0, offset: 0.0 },
    };
    Container {
        name: format!("{letter}container{number}"),
        processor: processor.to_owned(),
        workers,
        queue: QUEUE_DEFAULT,
        function: format!("{letter}lambda{number}"),
        requirement,
        output: Output::CopyInput,
    }
}
