//! The engine of components: set as that of modules is, with the component model on, and with a pool of its own, so that
//! neither kind takes the other's places and modules stay out of reach of what only components need.

use nigh_proto::{Limits, module};
use wasmtime::{Enabled, PoolingAllocationConfig};

use crate::config::Config;
use crate::engine::{self, Shape, Started};
use crate::error::Error;

/// Memories that a component instance has on average, at most.
const MEMORIES_PER_INSTANCE: u32 = 2;
/// Tables that it has on average, at most.
const TABLES_PER_INSTANCE: u32 = 8;
/// Bytes of bookkeeping of a component instance with all its core instances.
const COMPONENT_BYTES_MAX: usize = 16 << 20;

/// Starts the engine, with a pool as large as this host gives, or at worst without one.
pub(crate) fn start(config: &Config) -> Result<Started, Error> {
    engine::start_pooled(config, settings, pool)
}

/// What the engines of components have in common.
pub(crate) fn settings(shape: Shape) -> wasmtime::Config {
    let mut settings = engine::settings(shape);
    settings.wasm_features(module::component_features(), true);
    settings
}

fn pool(places: u32, workers: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(places)
        .max_component_instance_size(COMPONENT_BYTES_MAX)
        .total_core_instances(places.saturating_mul(module::CORE_INSTANCES_MAX))
        .max_core_instances_per_component(module::CORE_INSTANCES_MAX)
        .max_core_instance_size(engine::INSTANCE_BYTES_MAX)
        .total_memories(places.saturating_mul(MEMORIES_PER_INSTANCE))
        .max_memories_per_component(module::MEMORIES_MAX)
        .max_memories_per_module(1)
        .max_memory_size(usize::try_from(Limits::MAX.memory_bytes).unwrap_or(usize::MAX))
        .total_tables(places.saturating_mul(TABLES_PER_INSTANCE))
        .max_tables_per_component(module::TABLES_MAX)
        .max_tables_per_module(engine::TABLES_PER_MODULE_MAX)
        .table_elements(Limits::MAX.table_elements as usize)
        .total_stacks(places)
        .linear_memory_keep_resident(engine::KEEP_RESIDENT_BYTES)
        .table_keep_resident(engine::TABLE_KEEP_RESIDENT_BYTES)
        .max_unused_warm_slots(workers.saturating_mul(engine::WARM_SLOTS_PER_WORKER))
        .pagemap_scan(Enabled::Auto);
    pool
}
