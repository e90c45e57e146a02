//! What a module must look like to be deployed: valid, within bounds, of a known kind, with imports that a computer gives.
//!
//! Author tools, controller and computer all judge by this one rule, so a module that deploys also runs.

mod component;

use wasmparser::{
    Encoding, ExternalKind, FuncValidatorAllocations, Parser, Payload, TypeRef, ValidPayload, Validator, WasmFeatures,
};

use crate::deployment::{Kind, Limits};
use crate::status::{PlatformError, Reason};

pub use component::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX, component_features};

/// The native ABI's exports and imports; see the SDK for what they do.
pub mod abi {
    /// The function that reserves room for a request.
    pub const ALLOC: &str = "nigh_alloc_v1";
    /// The function that handles it.
    pub const HANDLE: &str = "nigh_handle_v1";
    /// The start of the handler's name, whatever the version.
    pub(crate) const HANDLE_PREFIX: &str = "nigh_handle_v";
    /// The module of the host's functions.
    pub const IMPORT_MODULE: &str = "nigh";
    /// The host's function that takes a log line.
    pub const LOG: &str = "log_v1";
    /// The host's function that reads a state.
    pub const STATE_GET: &str = "state_get_v1";
    /// The host's function that writes a state.
    pub const STATE_PUT: &str = "state_put_v1";
    /// The host's function that deletes a state.
    pub const STATE_DELETE: &str = "state_delete_v1";
    /// All of the host's functions.
    pub const IMPORTS: &[&str] = &[LOG, STATE_GET, STATE_PUT, STATE_DELETE];
    /// The module of WASI p1.
    pub const WASI: &str = "wasi_snapshot_preview1";
    /// What initialises a reactor.
    pub const INITIALIZE: &str = "_initialize";
    /// What runs a command.
    pub const START: &str = "_start";
    /// The memory.
    pub const MEMORY: &str = "memory";
}

/// What a module may measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleLimits {
    /// Bytes of the file.
    pub bytes_max: u64,
    /// Functions defined.
    pub functions_max: u32,
    /// Bytes of one function's body: what a compiler's time depends on most.
    pub function_bytes_max: u64,
    /// Exports.
    pub exports_max: u32,
    /// Elements that the tables begin with.
    pub table_elements_max: u64,
}

impl Default for ModuleLimits {
    fn default() -> Self {
        Self {
            bytes_max: 64 << 20,
            functions_max: 100_000,
            function_bytes_max: 2 << 20,
            exports_max: 10_000,
            table_elements_max: 20_000,
        }
    }
}

/// What inspection finds out about a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// How it is run.
    pub kind: Kind,
    /// Bytes of memory that an instance begins with.
    pub memory_bytes_min: u64,
}

/// Why a module cannot be deployed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// The file is something else.
    #[error(
        "not a WebAssembly file: it does not begin with the bytes \\0asm; deploy the .wasm that `nigh build` names"
    )]
    NotWasm,
    /// The file is cut off or damaged, or uses a proposal that is off.
    #[error("not a valid module (truncated, damaged, or using a feature that is off): {0}")]
    Invalid(String),
    /// No kind of function looks like this.
    #[error(
        "the module exports neither {} (a function built with nigh-sdk: is `nigh_sdk::function!(...)` in the crate?) nor {} (a program with `main`)",
        abi::HANDLE,
        abi::START
    )]
    NoEntry,
    /// The SDK that built it is of another version.
    #[error("the module exports {0}; this platform runs {handle}: build it with the nigh-sdk of this release", handle = abi::HANDLE)]
    OtherAbi(String),
    /// An export that the kind needs is missing or of the wrong type.
    #[error("the module does not export {0}; was it built as a cdylib for wasm32-wasip1 with nigh-sdk?")]
    MissingExport(&'static str),
    /// The module asks for something that no computer gives.
    #[error(
        "the module imports {module}::{name}, which no computer offers; native functions may import {}::{} and WASI p1, commands WASI p1",
        abi::IMPORT_MODULE,
        abi::LOG
    )]
    UnknownImport {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
    },
    /// A component that handles no requests.
    #[error(
        "the component does not export wasi:http/incoming-handler of WASI 0.2 (it exports {0}); build it for the world wasi:http/proxy, or a program as a core module for wasm32-wasip1"
    )]
    NoHandler(String),
    /// A component that asks for an interface that no computer gives.
    #[error(
        "the component imports {0}, which no computer offers; http functions may import WASI 0.2, and wasi:keyvalue@0.2.0-draft"
    )]
    UnknownInterface(String),
    /// One of [`ModuleLimits`].
    #[error("the module has {what} {found}; the limit is {limit}")]
    OverLimit {
        /// Which limit.
        what: &'static str,
        /// What the module has.
        found: u64,
        /// What it may have.
        limit: u64,
    },
    /// The instance could never start within its memory limit.
    #[error(
        "the module's memory begins with {wanted} bytes, over the function's limit of {limit}; deploy it with a higher --memory, or build it with less"
    )]
    MemoryOverLimit {
        /// What the module begins with.
        wanted: u64,
        /// The deployment's limit.
        limit: u64,
    },
    /// A program's instance cannot serve a second call.
    #[error("a program with `main` runs once in an instance; deploy it without --reuse, or build it with nigh-sdk")]
    ReuseOfCommand,
}

impl From<ModuleError> for PlatformError {
    fn from(error: ModuleError) -> Self {
        let reason = if matches!(error, ModuleError::OverLimit { .. }) { Reason::TooLarge } else { Reason::Malformed };
        Self::new(reason, error.to_string())
    }
}

/// The proposals that are on: those that compilers use by default for wasm32-wasip1, and SIMD. Everything else only widens
/// what a hostile guest can attack. Computers configure their engine to the same.
pub fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::FLOATS
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::CALL_INDIRECT_OVERLONG
        | WasmFeatures::BULK_MEMORY_OPT
}

/// Judges a module; reads all of it once.
///
/// # Errors
/// [`ModuleError`], each saying what to do.
pub fn inspect(bytes: &[u8], limits: &ModuleLimits) -> Result<Module, ModuleError> {
    over("bytes", bytes.len() as u64, limits.bytes_max)?;
    if !bytes.starts_with(b"\0asm") {
        return Err(ModuleError::NotWasm);
    }
    if Parser::is_component(bytes) {
        return component::inspect(bytes, limits);
    }
    let mut facts = Facts::default();
    validate(bytes, features(), |payload| facts.take(payload, limits))?;
    facts.judge()
}

/// Shows each section of a module or component to `take`, and validates what it lets pass.
fn validate(
    bytes: &[u8],
    features: WasmFeatures,
    mut take: impl FnMut(&Payload<'_>) -> Result<(), ModuleError>,
) -> Result<(), ModuleError> {
    let mut validator = Validator::new_with_features(features);
    let mut allocations = FuncValidatorAllocations::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(invalid)?;
        // Bounds before validation: that is what makes validation cheap enough for strangers' files.
        take(&payload)?;
        if let ValidPayload::Func(function, body) = validator.payload(&payload).map_err(invalid)? {
            let mut function = function.into_validator(allocations);
            function.validate(&body).map_err(invalid)?;
            allocations = function.into_allocations();
        }
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
fn invalid(error: wasmparser::BinaryReaderError) -> ModuleError {
    ModuleError::Invalid(error.to_string())
}

fn over(what: &'static str, found: u64, limit: u64) -> Result<(), ModuleError> {
    if found > limit { Err(ModuleError::OverLimit { what, found, limit }) } else { Ok(()) }
}

/// What matters of a module's sections.
#[derive(Default)]
struct Facts {
    imports: Vec<(String, String)>,
    functions: Vec<String>,
    exports_memory: bool,
    memory_bytes_min: u64,
}

impl Facts {
    fn take(&mut self, payload: &Payload<'_>, limits: &ModuleLimits) -> Result<(), ModuleError> {
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => {
                return Err(ModuleError::Invalid("a component within a module".to_owned()));
            }
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    let import = import.map_err(invalid)?;
                    if !matches!(import.ty, TypeRef::Func(_)) || !is_offered(import.module, import.name) {
                        return Err(ModuleError::UnknownImport {
                            module: import.module.to_owned(),
                            name: import.name.to_owned(),
                        });
                    }
                    self.imports.push((import.module.to_owned(), import.name.to_owned()));
                }
            }
            Payload::FunctionSection(section) => {
                over("functions", section.count().into(), limits.functions_max.into())?
            }
            Payload::CodeSectionEntry(body) => {
                over("a function body of bytes", body.range().len() as u64, limits.function_bytes_max)?
            }
            Payload::TableSection(section) => {
                let mut elements = 0u64;
                for table in section.clone() {
                    elements = elements.saturating_add(table.map_err(invalid)?.ty.initial);
                }
                over("table elements", elements, limits.table_elements_max)?;
            }
            Payload::MemorySection(section) => {
                for memory in section.clone() {
                    let bytes = memory.map_err(invalid)?.initial.saturating_mul(64 << 10);
                    self.memory_bytes_min = self.memory_bytes_min.saturating_add(bytes);
                }
            }
            Payload::ExportSection(section) => {
                over("exports", section.count().into(), limits.exports_max.into())?;
                for export in section.clone() {
                    let export = export.map_err(invalid)?;
                    match export.kind {
                        ExternalKind::Func => self.functions.push(export.name.to_owned()),
                        ExternalKind::Memory if export.name == abi::MEMORY => self.exports_memory = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judge(self) -> Result<Module, ModuleError> {
        let exports = |name: &str| self.functions.iter().any(|have| have == name);
        let kind = if exports(abi::HANDLE) {
            if !exports(abi::ALLOC) {
                return Err(ModuleError::MissingExport(abi::ALLOC));
            }
            Kind::Native
        } else if let Some(other) = self.functions.iter().find(|name| name.starts_with(abi::HANDLE_PREFIX)) {
            return Err(ModuleError::OtherAbi(other.clone()));
        } else if exports(abi::START) {
            Kind::Command
        } else {
            return Err(ModuleError::NoEntry);
        };
        if !self.exports_memory {
            return Err(ModuleError::MissingExport(abi::MEMORY));
        }
        let is_foreign = |(module, _): &&(String, String)| kind == Kind::Command && module == abi::IMPORT_MODULE;
        if let Some((module, name)) = self.imports.iter().find(is_foreign) {
            return Err(ModuleError::UnknownImport { module: module.clone(), name: name.clone() });
        }
        Ok(Module { kind, memory_bytes_min: self.memory_bytes_min })
    }
}

/// Whether a computer gives this function to some kind of guest.
fn is_offered(module: &str, name: &str) -> bool {
    match module {
        abi::IMPORT_MODULE => abi::IMPORTS.contains(&name),
        abi::WASI => WASI_FUNCTIONS.contains(&name),
        _ => false,
    }
}

/// The functions of WASI p1.
#[rustfmt::skip]
const WASI_FUNCTIONS: &[&str] = &[
    "args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_res_get", "clock_time_get", "fd_advise",
    "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_get", "fd_fdstat_set_flags", "fd_fdstat_set_rights",
    "fd_filestat_get", "fd_filestat_set_size", "fd_filestat_set_times", "fd_pread", "fd_prestat_get",
    "fd_prestat_dir_name", "fd_pwrite", "fd_read", "fd_readdir", "fd_renumber", "fd_seek", "fd_sync", "fd_tell",
    "fd_write", "path_create_directory", "path_filestat_get", "path_filestat_set_times", "path_link", "path_open",
    "path_readlink", "path_remove_directory", "path_rename", "path_symlink", "path_unlink_file", "poll_oneoff",
    "proc_exit", "proc_raise", "sched_yield", "random_get", "sock_accept", "sock_recv", "sock_send", "sock_shutdown",
];

impl Module {
    /// Refuses limits under which no call of the module could succeed.
    ///
    /// # Errors
    /// [`ModuleError::MemoryOverLimit`] or [`ModuleError::ReuseOfCommand`].
    pub fn check_limits(&self, limits: &Limits) -> Result<(), ModuleError> {
        if self.memory_bytes_min > limits.memory_bytes {
            return Err(ModuleError::MemoryOverLimit { wanted: self.memory_bytes_min, limit: limits.memory_bytes });
        }
        if self.kind == Kind::Command && limits.reuse > 1 {
            return Err(ModuleError::ReuseOfCommand);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NATIVE: &str = r#"(module
        (import "nigh" "log_v1" (func (param i32 i32 i32)))
        (memory (export "memory") 1)
        (func (export "nigh_alloc_v1") (param i32) (result i32) i32.const 0)
        (func (export "nigh_handle_v1") (param i32 i32) (result i32) i32.const 0))"#;

    fn check(text: &str) -> Result<Module, ModuleError> {
        inspect(&wat::parse_str(text).unwrap(), &ModuleLimits::default())
    }

    #[test]
    fn kinds_are_told_apart() {
        assert_eq!(check(NATIVE).unwrap(), Module { kind: Kind::Native, memory_bytes_min: 65536 });
        assert_eq!(
            check(r#"(module (memory (export "memory") 2) (func (export "_start")))"#).unwrap().kind,
            Kind::Command
        );
        assert_eq!(check("(component)").unwrap_err(), ModuleError::NoHandler("nothing".to_owned()));
        assert_eq!(check("(module)").unwrap_err(), ModuleError::NoEntry);
    }

    /// Sizes are added up before anything is validated, so they may be any, and as many.
    #[test]
    fn sizes_beyond_all_bounds_are_refused() {
        let most = u64::MAX;
        for sizes in [
            format!("(memory i64 {most}) (memory i64 {most})"),
            format!("(table i64 {most} funcref) (table i64 {most} funcref)"),
        ] {
            for text in [format!("(module {sizes})"), format!("(component (core module {sizes}))")] {
                let wat = wat::parse_str(&text).unwrap();
                let refused = inspect(&wat, &ModuleLimits::default()).unwrap_err();
                assert!(
                    matches!(refused, ModuleError::Invalid(_) | ModuleError::OverLimit { .. }),
                    "{text}: {refused}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_run_is_refused_with_its_reason() {
        assert_eq!(inspect(b"GIF89a", &ModuleLimits::default()).unwrap_err(), ModuleError::NotWasm);
        assert_eq!(inspect(b"", &ModuleLimits::default()).unwrap_err(), ModuleError::NotWasm);
        let without_alloc = r#"(module (memory (export "memory") 1) (func (export "nigh_handle_v1")))"#;
        assert_eq!(check(without_alloc).unwrap_err(), ModuleError::MissingExport(abi::ALLOC));
        let newer = r#"(module (func (export "nigh_handle_v2")))"#;
        assert_eq!(check(newer).unwrap_err(), ModuleError::OtherAbi("nigh_handle_v2".into()));
        let importing = r#"(module (import "env" "system" (func)) (func (export "_start")))"#;
        assert!(matches!(check(importing).unwrap_err(), ModuleError::UnknownImport { .. }));
        let command_with_native_import =
            r#"(module (import "nigh" "log_v1" (func)) (memory (export "memory") 1) (func (export "_start")))"#;
        assert!(matches!(check(command_with_native_import).unwrap_err(), ModuleError::UnknownImport { .. }));
        let memory64 = r#"(module (memory (export "memory") i64 1) (func (export "_start")))"#;
        assert!(matches!(check(memory64).unwrap_err(), ModuleError::Invalid(_)));
    }

    #[test]
    fn a_gibibyte_of_memory_is_over_the_default_limit() {
        let module = check(r#"(module (memory (export "memory") 16384) (func (export "_start")))"#).unwrap();
        let default = Limits::default();
        assert_eq!(
            module.check_limits(&default).unwrap_err(),
            ModuleError::MemoryOverLimit { wanted: 1 << 30, limit: 128 << 20 }
        );
        assert!(module.check_limits(&Limits { memory_bytes: 1 << 30, ..default }).is_ok());
    }

    #[test]
    fn a_program_cannot_be_reused() {
        let module = check(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).unwrap();
        let reused = Limits { reuse: 2, ..Limits::default() };
        assert_eq!(module.check_limits(&reused), Err(ModuleError::ReuseOfCommand));
    }

    #[test]
    fn limits_are_checked_before_anything_else_is_done() {
        let module = wat::parse_str(NATIVE).unwrap();
        let tight = ModuleLimits { bytes_max: 10, ..ModuleLimits::default() };
        assert!(matches!(inspect(&module, &tight).unwrap_err(), ModuleError::OverLimit { what: "bytes", .. }));
        let tight = ModuleLimits { exports_max: 2, ..ModuleLimits::default() };
        assert!(matches!(inspect(&module, &tight).unwrap_err(), ModuleError::OverLimit { what: "exports", .. }));
    }

    proptest! {
        #[test]
        fn damaged_modules_are_refused_or_fine_but_never_panic(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut module = wat::parse_str(NATIVE).unwrap();
            let index = at.index(module.len());
            module[index] = byte;
            let _ = inspect(&module, &ModuleLimits::default());
            let _ = inspect(&module[..cut.index(module.len())], &ModuleLimits::default());
        }
    }

    #[test]
    fn truncated_modules_are_invalid() {
        let module = wat::parse_str(NATIVE).unwrap();
        for cut in 4..module.len() {
            assert!(inspect(&module[..cut], &ModuleLimits::default()).is_err(), "cut at {cut}");
        }
    }
}
