//! The Wasm engine, sized to this host: what it compiles, and the pool that instances come from.

use nigh_proto::{Limits, module};
use wasmtime::{Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures};

use crate::config::Config;
use crate::error::Error;

/// Bytes of native stack that one guest may use.
pub(crate) const STACK_BYTES: usize = 512 << 10;
/// Bytes of the same stack for the host's functions that a guest calls.
const HOST_STACK_BYTES: usize = 512 << 10;
/// Elements that one table may hold.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Tables of one module, at most; compilers make one.
const TABLES_PER_MODULE_MAX: u32 = 4;
/// Bytes of an instance's bookkeeping beside memory and tables; grows with the module's functions and globals.
const INSTANCE_BYTES_MAX: usize = 4 << 20;
/// Address space reserved for each memory, so that no access needs a bounds check.
const RESERVATION_BYTES: u64 = 4 << 30;
/// Bytes of a memory that stay resident when its instance ends and are reset in place, instead of being given back to the
/// kernel, which costs every thread of the process; `PAGEMAP_SCAN` finds the pages written.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;
/// The same for each table.
const TABLE_KEEP_RESIDENT_BYTES: usize = 32 << 10;
/// Memory slots that keep such pages, for each worker.
const WARM_SLOTS_PER_WORKER: u32 = 4;

/// Starts the engine: with a pool of `instances_max` places, with fewer where this host's address space allows no more,
/// or at worst without one. Says what was chosen.
///
/// # Errors
/// Where there is no engine for this host at all.
pub fn start(config: &Config) -> Result<wasmtime::Engine, Error> {
    let workers = u32::try_from(config.workers).unwrap_or(u32::MAX);
    let mut places = config.instances_max;
    loop {
        let mut settings = settings();
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(places, workers)));
        match wasmtime::Engine::new(&settings) {
            Ok(engine) => {
                tracing::info!(places, keep_resident_bytes = KEEP_RESIDENT_BYTES, "pool of instances ready");
                return Ok(engine);
            }
            Err(error) if places > workers => {
                tracing::debug!(places, %error, "pool of instances too large for this host");
                places = (places / 2).max(workers);
            }
            Err(error) => {
                tracing::warn!(%error, "no pool of instances on this host; each call makes its memory anew, which is slower");
                break;
            }
        }
    }
    let mut settings = settings();
    settings.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    wasmtime::Engine::new(&settings).map_err(|error| Error::Engine(format!("{error:#}")))
}

fn settings() -> wasmtime::Config {
    let mut settings = wasmtime::Config::new();
    settings
        .wasm_features(WasmFeatures::all(), false)
        .wasm_features(module::features(), true)
        .epoch_interruption(true)
        .concurrency_support(false)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(STACK_BYTES + HOST_STACK_BYTES)
        .memory_reservation(RESERVATION_BYTES)
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
        .table_elements(TABLE_ELEMENTS_MAX)
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
        assert!(start(&Config { instances_max: 1 << 31, ..config() }).is_ok());
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
