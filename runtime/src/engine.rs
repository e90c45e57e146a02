//! The Wasm engine, sized to this host: what it compiles, and the pool that instances come from.

use nigh_proto::{Kind, Limits, module};
use wasmtime::{Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures};

use crate::config::Config;
use crate::error::Error;
use crate::http;
use crate::probe;

/// Bytes of native stack that one guest may use.
pub(crate) const STACK_BYTES: usize = 512 << 10;
/// Bytes of the same stack for the host's functions that a guest calls.
const HOST_STACK_BYTES: usize = 512 << 10;
/// Tables of one module, at most; compilers make one.
pub(crate) const TABLES_PER_MODULE_MAX: u32 = 4;
/// Bytes of an instance's bookkeeping beside memory and tables; grows with the module's functions and globals.
pub(crate) const INSTANCE_BYTES_MAX: usize = 4 << 20;
/// Address space kept behind a memory that had to move, so that it need not move again at once.
const GROWTH_BYTES: u64 = 1 << 20;
/// The share of the address space left to this process that the pool may take.
const ADDRESS_SPACE_PERCENT: u64 = 75;
/// Memory that an instance at work is expected to hold, at least: how many places make sense where memory is short.
const INSTANCE_RESIDENT_BYTES: u64 = 1 << 20;
/// Bytes of a memory that stay resident when its instance ends and are reset in place, instead of being given back to the
/// kernel, which costs every thread of the process; `PAGEMAP_SCAN` finds the pages written.
pub(crate) const KEEP_RESIDENT_BYTES: usize = 1 << 20;
/// The same for each table.
pub(crate) const TABLE_KEEP_RESIDENT_BYTES: usize = 32 << 10;
/// Memory slots that keep such pages, for each worker.
pub(crate) const WARM_SLOTS_PER_WORKER: u32 = 4;

/// How memories lie in the address space. Code is compiled for one shape and fits no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Address space reserved for each memory.
    pub(crate) reservation_bytes: u64,
    /// Inaccessible address space behind that.
    pub(crate) guard_bytes: u64,
}

impl Shape {
    /// So much reserved that no access needs a bounds check.
    pub(crate) const ROOMY: Self = Self { reservation_bytes: 4 << 30, guard_bytes: 32 << 20 };
    /// Nothing reserved: a memory takes what it holds, moves when it grows, and each access is checked.
    pub(crate) const TIGHT: Self = Self { reservation_bytes: 0, guard_bytes: 0 };

    /// Address space of one place in a pool.
    fn place_bytes(self) -> u64 {
        let stack = (STACK_BYTES + HOST_STACK_BYTES) as u64;
        self.reservation_bytes + self.guard_bytes + stack + INSTANCE_BYTES_MAX as u64
    }
}

/// An engine, and what was chosen for it.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) shape: Shape,
    /// Instances that there can be at once.
    pub(crate) places: u32,
}

/// Starts the engine alone.
///
/// # Errors
/// As [`start_sized`].
pub fn start(config: &Config) -> Result<wasmtime::Engine, Error> {
    start_sized(config).map(|started| started.engine)
}

/// Starts the engine: with a pool of `instances_max` places, with fewer where this host's memory or address space allows
/// no more, or at worst without one. Says what was chosen, and why.
///
/// # Errors
/// Where there is no engine for this host at all.
pub(crate) fn start_sized(config: &Config) -> Result<Started, Error> {
    start_pooled(config, settings, pool)
}

/// The same with these settings and such a pool.
pub(crate) fn start_pooled(
    config: &Config,
    settings: fn(Shape) -> wasmtime::Config,
    pool: fn(u32, u32) -> PoolingAllocationConfig,
) -> Result<Started, Error> {
    let workers = u32::try_from(config.workers).unwrap_or(u32::MAX);
    let (mut places, mut why) = wanted_places(config, workers);
    while places >= workers {
        let mut settings = settings(Shape::ROOMY);
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(places, workers)));
        match wasmtime::Engine::new(&settings) {
            Ok(engine) => {
                tracing::info!(places, why, keep_resident_bytes = KEEP_RESIDENT_BYTES, "pool of instances ready");
                return Ok(Started { engine, shape: Shape::ROOMY, places });
            }
            Err(error) => {
                tracing::debug!(places, %error, "pool of instances too large for this host");
                why = "the host's address space has no room for more";
                places /= 2;
            }
        }
    }
    let places = config.instances_max;
    tracing::warn!(
        places,
        "no pool of instances: this process has too little address space for it. Each call makes its memory anew and checks each access, which is slower; a higher `ulimit -v` helps"
    );
    let mut settings = settings(Shape::TIGHT);
    settings.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    let engine = wasmtime::Engine::new(&settings).map_err(|error| Error::Engine(format!("{error:#}")))?;
    Ok(Started { engine, shape: Shape::TIGHT, places })
}

/// An engine that compiles modules of this kind for one of this shape, and runs nothing.
pub(crate) fn for_compiling(shape: Shape, kind: Kind) -> wasmtime::Result<wasmtime::Engine> {
    let mut settings = if kind == Kind::Http { http::engine::settings(shape) } else { settings(shape) };
    wasmtime::Engine::new(settings.allocation_strategy(InstanceAllocationStrategy::OnDemand))
}

/// Places that the pool should have, and what decided. Below `workers` there is no use in a pool.
fn wanted_places(config: &Config, workers: u32) -> (u32, &'static str) {
    let by_memory = u32::try_from(config.memory_bytes_max / INSTANCE_RESIDENT_BYTES).unwrap_or(u32::MAX).max(workers);
    let by_address_space = probe::address_space_left().map_or(u32::MAX, |left| {
        let share = left / 100 * ADDRESS_SPACE_PERCENT;
        u32::try_from(share / Shape::ROOMY.place_bytes()).unwrap_or(u32::MAX)
    });
    [
        (config.instances_max, "instances_max"),
        (by_memory, "memory_bytes_max"),
        (by_address_space, "this process's limit of address space (ulimit -v)"),
    ]
    .into_iter()
    .min_by_key(|(places, _)| *places)
    .unwrap_or((config.instances_max, "instances_max"))
}

/// What every engine has in common.
pub(crate) fn settings(shape: Shape) -> wasmtime::Config {
    let mut settings = wasmtime::Config::new();
    settings
        .wasm_features(WasmFeatures::all(), false)
        .wasm_features(module::features(), true)
        .epoch_interruption(true)
        .concurrency_support(false)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(STACK_BYTES + HOST_STACK_BYTES)
        .memory_reservation(shape.reservation_bytes)
        .memory_guard_size(shape.guard_bytes)
        .memory_reservation_for_growth(GROWTH_BYTES)
        .memory_init_cow(true)
        .native_unwind_info(false)
        .wasm_backtrace_max_frames(None);
    settings
}

fn pool(places: u32, workers: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(places)
        .total_memories(places)
        .total_tables(places.saturating_mul(TABLES_PER_MODULE_MAX))
        .max_tables_per_module(TABLES_PER_MODULE_MAX)
        .max_memories_per_module(1)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memory_size(usize::try_from(Limits::MAX.memory_bytes).unwrap_or(usize::MAX))
        .table_elements(Limits::MAX.table_elements as usize)
        .total_stacks(places)
        .total_component_instances(0)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
        .max_unused_warm_slots(workers.saturating_mul(WARM_SLOTS_PER_WORKER))
        .pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("computer-1".parse().unwrap())
    }

    #[test]
    fn a_pool_too_large_for_any_host_becomes_smaller() {
        // 2^31 places of over 4 GiB are more than any address space has.
        let huge = Config { instances_max: 1 << 31, memory_bytes_max: u64::MAX, ..config() };
        let started = start_sized(&huge).unwrap();
        assert!(started.shape == Shape::ROOMY && started.places < 1 << 31);
    }

    #[test]
    fn a_pool_has_no_more_places_than_memory_is_there_for() {
        let small = Config { memory_bytes_max: 32 << 20, workers: 2, ..config() };
        assert_eq!(wanted_places(&small, 2), (32, "memory_bytes_max"));
        let tiny = Config { memory_bytes_max: 1 << 20, workers: 2, ..config() };
        assert_eq!(wanted_places(&tiny, 2).0, 2, "but one for each worker");
        assert_eq!(wanted_places(&config(), 2), (256, "instances_max"));
    }

    #[test]
    fn what_compiles_and_what_runs_agree() {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let hash = |engine: &wasmtime::Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let running = start_sized(&config()).unwrap();
        assert_eq!(hash(&running.engine), hash(&for_compiling(running.shape, Kind::Native).unwrap()));
        assert_ne!(hash(&running.engine), hash(&for_compiling(Shape::TIGHT, Kind::Native).unwrap()));
        let components = http::engine::start(&config()).unwrap();
        assert_eq!(hash(&components.engine), hash(&for_compiling(components.shape, Kind::Http).unwrap()));
        assert_ne!(hash(&running.engine), hash(&components.engine), "code of one form is none of the other");
    }

    #[test]
    fn what_intake_refuses_the_engine_refuses_too() {
        let engine = start(&config()).unwrap();
        for text in [
            "(module (memory i64 1))",
            "(module (memory 1 1 shared))",
            "(module (memory 1) (memory 1))",
            "(module (func (param externref)))",
            "(module (func (param v128) local.get 0 local.get 0 i8x16.relaxed_swizzle drop))",
        ] {
            let module = wat::parse_str(text).unwrap();
            assert!(wasmtime::Module::new(&engine, &module).is_err(), "{text}");
            assert!(module::inspect(&module, &module::ModuleLimits::default()).is_err(), "{text}");
        }
        let simd = "(module (func (param v128) (result v128) local.get 0 local.get 0 i8x16.add))";
        assert!(wasmtime::Module::new(&engine, wat::parse_str(simd).unwrap()).is_ok());
    }
}
