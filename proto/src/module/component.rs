//! What a component must look like: valid, within bounds, a handler of HTTP requests, with imports of WASI 0.2 alone.

use wasmparser::{Encoding, Payload, TypeRef, WasmFeatures};

use super::{Module, ModuleError, ModuleLimits, features, invalid, over, validate};
use crate::deployment::Kind;

/// Core instances of one component instance, at most: its modules and the shims that toolchains put between them.
pub const CORE_INSTANCES_MAX: u32 = 64;
/// Memories of one component instance, at most; toolchains make one or two.
pub const MEMORIES_MAX: u32 = 8;
/// Tables of one component instance, at most.
pub const TABLES_MAX: u32 = 16;
/// Components within components, at most.
const DEPTH_MAX: usize = 8;

/// The interface that makes a component an http function.
const HANDLER: &str = "wasi:http/incoming-handler";

/// The interfaces that computers offer, each of WASI 0.2.
#[rustfmt::skip]
const INTERFACES: &[&str] = &[
    "wasi:cli/environment", "wasi:cli/exit", "wasi:cli/stderr", "wasi:cli/stdin", "wasi:cli/stdout",
    "wasi:cli/terminal-input", "wasi:cli/terminal-output", "wasi:cli/terminal-stderr", "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout", "wasi:clocks/monotonic-clock", "wasi:clocks/wall-clock", "wasi:filesystem/preopens",
    "wasi:filesystem/types", "wasi:http/outgoing-handler", "wasi:http/types", "wasi:io/error", "wasi:io/poll",
    "wasi:io/streams", "wasi:random/insecure", "wasi:random/insecure-seed", "wasi:random/random",
    "wasi:sockets/instance-network", "wasi:sockets/ip-name-lookup", "wasi:sockets/network", "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket", "wasi:sockets/udp", "wasi:sockets/udp-create-socket",
];

/// Interfaces of drafts that computers offer, each of just this version.
const DRAFTS: &[&str] =
    &["wasi:keyvalue/atomics@0.2.0-draft", "wasi:keyvalue/batch@0.2.0-draft", "wasi:keyvalue/store@0.2.0-draft"];

/// The proposals that are on for components.
pub fn component_features() -> WasmFeatures {
    features() | WasmFeatures::COMPONENT_MODEL
}

/// Judges a component; reads all of it once.
pub(super) fn inspect(bytes: &[u8], limits: &ModuleLimits) -> Result<Module, ModuleError> {
    let mut facts = Facts::default();
    validate(bytes, component_features(), |payload| facts.take(payload, limits))?;
    facts.judge()
}

/// What matters of a component's sections and those of all within it.
#[derive(Default)]
struct Facts {
    depth: usize,
    exports: Vec<String>,
    functions: u64,
    exported: u64,
    table_elements: u64,
    tables: u64,
    memories: u64,
    memory_bytes_min: u64,
    core_instances: u64,
}

impl Facts {
    fn take(&mut self, payload: &Payload<'_>, limits: &ModuleLimits) -> Result<(), ModuleError> {
        match payload {
            Payload::Version { encoding, .. } => {
                if self.depth == 0 && *encoding == Encoding::Module {
                    return Err(ModuleError::Invalid("a module where a component began".to_owned()));
                }
                self.depth += 1;
                over("components within each other", self.depth as u64, DEPTH_MAX as u64)?;
            }
            Payload::End(_) => self.depth = self.depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if self.depth == 1 => {
                for import in section.clone() {
                    let name = import.map_err(invalid)?.name.name;
                    if !is_offered(name) {
                        return Err(ModuleError::UnknownInterface(name.to_owned()));
                    }
                }
            }
            Payload::ComponentExportSection(section) if self.depth == 1 => {
                over("exports", section.count().into(), limits.exports_max.into())?;
                for export in section.clone() {
                    self.exports.push(export.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::InstanceSection(section) => {
                let instances = section
                    .clone()
                    .into_iter()
                    .filter(|instance| matches!(instance, Ok(wasmparser::Instance::Instantiate { .. })));
                self.core_instances += instances.count() as u64;
                over("core instances", self.core_instances, CORE_INSTANCES_MAX.into())?;
            }
            module => self.take_module(module, limits)?,
        }
        Ok(())
    }

    /// Sections of the core modules within.
    fn take_module(&mut self, payload: &Payload<'_>, limits: &ModuleLimits) -> Result<(), ModuleError> {
        match payload {
            Payload::FunctionSection(section) => {
                self.functions += u64::from(section.count());
                over("functions", self.functions, limits.functions_max.into())?;
            }
            Payload::CodeSectionEntry(body) => {
                over("a function body of bytes", body.range().len() as u64, limits.function_bytes_max)?;
            }
            Payload::ExportSection(section) => {
                self.exported += u64::from(section.count());
                over("exports", self.exported, limits.exports_max.into())?;
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    self.table_elements = self.table_elements.saturating_add(table.map_err(invalid)?.ty.initial);
                    self.tables += 1;
                }
                over("table elements", self.table_elements, limits.table_elements_max)?;
                over("tables", self.tables, TABLES_MAX.into())?;
            }
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    let bytes = memory.map_err(invalid)?.initial.saturating_mul(64 << 10);
                    self.memory_bytes_min = self.memory_bytes_min.saturating_add(bytes);
                    self.memories += 1;
                }
                over("memories", self.memories, MEMORIES_MAX.into())?;
            }
            Payload::ImportSection(section) => {
                let shared = |import: &wasmparser::Import<'_>| matches!(import.ty, TypeRef::Memory(ty) if ty.shared);
                for import in section.clone().into_imports() {
                    if shared(&import.map_err(invalid)?) {
                        return Err(ModuleError::Invalid("a shared memory".to_owned()));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judge(self) -> Result<Module, ModuleError> {
        if !self.exports.iter().any(|name| interface_of(name) == Some(HANDLER)) {
            let exports = if self.exports.is_empty() { "nothing".to_owned() } else { self.exports.join(", ") };
            return Err(ModuleError::NoHandler(exports));
        }
        Ok(Module { kind: Kind::Http, memory_bytes_min: self.memory_bytes_min })
    }
}

/// Whether computers give this import.
fn is_offered(name: &str) -> bool {
    DRAFTS.contains(&name) || interface_of(name).is_some_and(|interface| INTERFACES.contains(&interface))
}

/// The interface that a name with a version of WASI 0.2 stands for.
fn interface_of(name: &str) -> Option<&str> {
    let (interface, version) = name.split_once('@')?;
    let patch = version.strip_prefix("0.2.")?;
    (!patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit())).then_some(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDLER_ONLY: &str = r#"(component
        (instance)
        (export "wasi:http/incoming-handler@0.2.3" (instance 0)))"#;

    fn check(text: &str) -> Result<Module, ModuleError> {
        super::super::inspect(&wat::parse_str(text).unwrap(), &ModuleLimits::default())
    }

    #[test]
    fn a_component_that_handles_requests_is_an_http_function() {
        assert_eq!(check(HANDLER_ONLY).unwrap(), Module { kind: Kind::Http, memory_bytes_min: 0 });
        let with_memory = HANDLER_ONLY.replacen("(component", "(component (core module (memory 3))", 1);
        assert_eq!(check(&with_memory).unwrap().memory_bytes_min, 3 << 16);
    }

    #[test]
    fn other_components_are_refused_with_what_they_export() {
        let command = HANDLER_ONLY.replace("wasi:http/incoming-handler", "wasi:cli/run");
        let newer = HANDLER_ONLY.replace("incoming-handler@0.2.3", "incoming-handler@0.3.0");
        for (text, exports) in [(command, "wasi:cli/run@0.2.3"), (newer, "wasi:http/incoming-handler@0.3.0")] {
            assert_eq!(check(&text).unwrap_err(), ModuleError::NoHandler(exports.to_owned()));
        }
    }

    #[test]
    fn imports_are_of_wasi_alone() {
        let importing =
            |name: &str| HANDLER_ONLY.replacen("(component", &format!("(component (import \"{name}\" (instance))"), 1);
        assert!(check(&importing("wasi:io/streams@0.2.0")).is_ok());
        assert!(check(&importing("wasi:keyvalue/store@0.2.0-draft")).is_ok());
        for foreign in
            ["wasi:keyvalue/store@0.2.0", "wasi:io/streams@0.3.0", "wasi:io/streams@0.2.0-rc-2023-11-10", "mine"]
        {
            assert_eq!(check(&importing(foreign)).unwrap_err(), ModuleError::UnknownInterface(foreign.to_owned()));
        }
    }

    #[test]
    fn what_is_within_counts_towards_the_limits() {
        let inside = |module: &str, times: usize| {
            HANDLER_ONLY.replacen(
                "(component",
                &format!("(component {}", format!("(core module {module})").repeat(times)),
                1,
            )
        };
        assert!(matches!(
            check(&inside("(memory 1)", 9)).unwrap_err(),
            ModuleError::OverLimit { what: "memories", .. }
        ));
        assert!(matches!(
            check(&inside("(table 10001 funcref)", 2)).unwrap_err(),
            ModuleError::OverLimit { what: "table elements", .. }
        ));
        assert!(matches!(check(&inside("(memory 1 1 shared)", 1)).unwrap_err(), ModuleError::Invalid(_)));
        let nested = "(component ".repeat(9) + &")".repeat(9);
        assert!(matches!(check(&nested).unwrap_err(), ModuleError::OverLimit { .. }));
    }

    #[test]
    fn a_component_cut_short_is_invalid() {
        let component = wat::parse_str(HANDLER_ONLY).unwrap();
        for cut in 4..component.len() {
            assert!(super::super::inspect(&component[..cut], &ModuleLimits::default()).is_err(), "cut at {cut}");
        }
    }
}
