//! What the host needs to see of a module so that its instances can be made as new in place: an instance's whole state,
//! which is its memory and its mutable globals. The host reaches only what a module exports, so of a native module these
//! are exported under names of our own before the module is compiled; what is added to a component for the same end,
//! `component` tells. A module that keeps state elsewhere is left as it is, and each of its calls gets a newly made
//! instance; so does a native one that runs code while it is instantiated.

mod component;

use std::borrow::Cow;

use nigh_proto::module::abi;
use wasm_encoder::{ExportKind, ExportSection, RawSection};
use wasmparser::{BinaryReaderError, ExternalKind, Operator, Parser, Payload, TypeRef, ValType};

pub(crate) use component::{RENEW, RENEWAL, SHOW, expose as expose_component};

/// The start of the names under which state is exported. A module's own exports of such names are left out.
const PREFIX: &str = "nigh:state/";
/// The memory's name; that it is there says that the whole state is.
pub(crate) const MEMORY: &str = "nigh:state/memory";
/// Mutable globals of one module, at most; compilers make one or two.
const GLOBALS_MAX: usize = 64;

/// The name of the mutable global with this number, counted from 0 on.
pub(crate) fn global(number: usize) -> String {
    format!("{PREFIX}global/{number}")
}

/// The module as it is to be compiled. Does nothing to what is no native module.
///
/// # Errors
/// Where it is not a valid module.
pub(crate) fn expose(module: &[u8]) -> Result<Cow<'_, [u8]>, BinaryReaderError> {
    let state = State::of(module)?;
    if !state.is_native || (!state.is_whole() && !state.has_reserved_names) {
        return Ok(Cow::Borrowed(module));
    }
    let mut exposed = wasm_encoder::Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        if let Payload::ExportSection(section) = &payload {
            exposed.section(&state.exports(section.clone())?);
        } else if let Some((id, range)) = payload.as_section() {
            exposed.section(&RawSection { id, data: &module[range] });
        }
    }
    Ok(Cow::Owned(exposed.finish()))
}

/// What a module's instances can change.
#[derive(Debug, Default)]
struct State {
    is_native: bool,
    has_reserved_names: bool,
    /// Memories, tables or globals that others have too.
    shares: bool,
    /// It runs code while it is instantiated.
    starts: bool,
    memories: u32,
    /// Globals that it imports or defines.
    globals: u32,
    /// The indices and types of the mutable ones that it defines.
    mutable: Vec<(u32, ValType)>,
    /// It defines functions, and exports something.
    has_functions: bool,
    has_exports: bool,
    /// There is more.
    has_more: bool,
}

impl State {
    fn of(module: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut state = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            state.take(payload?)?;
        }
        Ok(state)
    }

    fn take(&mut self, payload: Payload<'_>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let ty = import?.ty;
                    self.shares |= !matches!(ty, TypeRef::Func(_));
                    self.globals += u32::from(matches!(ty, TypeRef::Global(_)));
                }
            }
            Payload::MemorySection(section) => self.memories = section.count(),
            Payload::GlobalSection(section) => {
                for global in section {
                    let ty = global?.ty;
                    self.has_more |= ty.mutable && matches!(ty.content_type, ValType::Ref(_));
                    if ty.mutable {
                        self.mutable.push((self.globals, ty.content_type));
                    }
                    self.globals += 1;
                }
            }
            Payload::FunctionSection(_) => self.has_functions = true,
            Payload::ExportSection(section) => {
                self.has_exports = true;
                for export in section {
                    let export = export?;
                    self.is_native |= export.name == abi::HANDLE;
                    self.has_reserved_names |= export.name.starts_with(PREFIX);
                }
            }
            Payload::StartSection { .. } => self.starts = true,
            Payload::CodeSectionEntry(body) if !self.has_more => {
                let mut operators = body.get_operators_reader()?;
                while !operators.eof() {
                    self.has_more |= changes_more(&operators.read()?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether memories and numbers in globals are all that there is.
    fn is_plain(&self) -> bool {
        !self.has_more && self.mutable.len() <= GLOBALS_MAX
    }

    /// Whether a component's module can be made to export all of it. One that has state, but no functions or exports beside
    /// which others could stand, is of no use to anybody.
    fn can_be_exposed(&self) -> bool {
        let has_state = self.memories > 0 || !self.mutable.is_empty();
        let has_room = self.has_exports && (self.has_functions || self.mutable.is_empty());
        self.is_plain() && !self.has_reserved_names && (has_room || !has_state)
    }

    /// Whether a native module's memory and globals are all that there is, and as they begin until its first call.
    fn is_whole(&self) -> bool {
        self.is_plain() && !self.shares && !self.starts && self.memories == 1
    }

    fn exports(&self, own: wasmparser::ExportSectionReader<'_>) -> Result<ExportSection, BinaryReaderError> {
        let mut exports = ExportSection::new();
        for export in own {
            let export = export?;
            let kind = match export.kind {
                ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
                ExternalKind::Table => ExportKind::Table,
                ExternalKind::Memory => ExportKind::Memory,
                ExternalKind::Global => ExportKind::Global,
                ExternalKind::Tag => ExportKind::Tag,
            };
            if !export.name.starts_with(PREFIX) {
                exports.export(export.name, kind, export.index);
            }
        }
        if self.is_whole() {
            exports.export(MEMORY, ExportKind::Memory, 0);
            for (number, (index, _)) in self.mutable.iter().enumerate() {
                exports.export(&global(number), ExportKind::Global, *index);
            }
        }
        Ok(exports)
    }
}

/// Whether an instruction changes an instance's state beyond memory and globals: its tables, or which of its passive
/// segments are left.
fn changes_more(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
            | Operator::DataDrop { .. }
            | Operator::ElemDrop { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of state that a module made of these items exports.
    fn exposed(items: &str) -> Vec<String> {
        let text = format!(
            r#"(module (memory (export "memory") 1) {items}
                (func (export "nigh_alloc_v1") (param i32) (result i32) i32.const 0)
                (func (export "nigh_handle_v1") (param i32 i32) (result i32) i32.const 0))"#
        );
        names(&wat::parse_str(text).unwrap())
    }

    fn names(module: &[u8]) -> Vec<String> {
        let exposed = expose(module).unwrap();
        wasmparser::validate(&exposed).unwrap();
        let exports = Parser::new(0).parse_all(&exposed).filter_map(|payload| match payload.unwrap() {
            Payload::ExportSection(section) => Some(section),
            _ => None,
        });
        let names = exports.flatten().map(|export| export.unwrap().name.to_owned());
        names.filter(|name| name.starts_with(PREFIX)).collect()
    }

    #[test]
    fn memory_and_mutable_globals_are_exposed() {
        assert_eq!(exposed(""), [MEMORY]);
        let items =
            "(global i32 (i32.const 1)) (global (mut i64) (i64.const 2)) (global (mut v128) (v128.const i64x2 1 2))
            (table 3 funcref) (elem (i32.const 1) $f) (func $f) (data (i32.const 8) \"x\") (data \"passive\")
            (func (call_indirect (i32.const 1)) (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 1)))";
        assert_eq!(exposed(items), [MEMORY, "nigh:state/global/0", "nigh:state/global/1"]);
    }

    #[test]
    fn a_module_with_other_state_is_left_as_it_is() {
        for items in [
            "(table 3 funcref) (func (table.set 0 (i32.const 0) (ref.null func)))",
            "(table 3 funcref) (func (drop (table.grow 0 (ref.null func) (i32.const 1))))",
            "(table 3 funcref) (func (table.fill 0 (i32.const 0) (ref.null func) (i32.const 1)))",
            "(table 3 funcref) (func (table.copy (i32.const 0) (i32.const 1) (i32.const 1)))",
            "(table 3 funcref) (elem func $f) (func $f (table.init 0 (i32.const 0) (i32.const 0) (i32.const 1)))",
            "(elem func $f) (func $f (elem.drop 0))",
            "(data \"passive\") (func (data.drop 0))",
            "(global (mut funcref) (ref.null func))",
            "(global (mut externref) (ref.null extern))",
            "(start $f) (func $f)",
        ] {
            assert!(exposed(items).is_empty(), "{items}");
        }
        assert!(exposed(&"(global (mut i32) (i32.const 0))".repeat(GLOBALS_MAX + 1)).is_empty());
    }

    #[test]
    fn a_module_cannot_pretend_to_be_exposed() {
        let items = r#"(global (mut funcref) (ref.null func)) (global $g (mut i32) (i32.const 0))
            (export "nigh:state/memory" (memory 0)) (export "nigh:state/global/0" (global $g))"#;
        assert!(exposed(items).is_empty());
        let items = r#"(global $a (mut i32) (i32.const 0)) (export "nigh:state/global/7" (global $a))"#;
        assert_eq!(exposed(items), [MEMORY, "nigh:state/global/0"]);
    }

    #[test]
    fn programs_are_left_as_they_are() {
        let program = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).unwrap();
        assert_eq!(*expose(&program).unwrap(), *program);
    }
}
