//! What is added to a component's core modules: exports of their memory, and of a function that keeps their globals.

use std::borrow::Cow;
use std::collections::HashMap;

use wasm_encoder::{BlockType, ConstExpr, Encode, ExportKind, Function, GlobalType, RawSection, SectionId, ValType};
use wasmparser::{BinaryReader, BinaryReaderError, Parser, Payload, TypeRef};

use super::super::{MEMORY, State};

/// The function that keeps what a module's mutable globals hold when it is first called, and gives it back to them after
/// that.
pub(super) const GLOBALS: &str = "nigh:state/globals";
/// The first byte of a function's type.
const FUNCTION_TYPE: u8 = 0x60;

/// A core module of a component as it is to be.
pub(super) fn with_state_exported<'a>(module: &'a [u8], state: &State) -> Result<Cow<'a, [u8]>, BinaryReaderError> {
    if !state.can_be_exposed() || (state.memories == 0 && state.mutable.is_empty()) {
        return Ok(Cow::Borrowed(module));
    }
    let (mut types, mut functions) = (0, 0);
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::TypeSection(section) => {
                for group in section {
                    types += u32::try_from(group?.into_types().len()).unwrap_or(u32::MAX);
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    functions += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::FunctionSection(section) => functions += section.count(),
            _ => {}
        }
    }
    let added = Added::new(state, types, functions);
    let mut exposed = wasm_encoder::Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let Some((id, range)) = payload?.as_section() else { continue };
        exposed.section(&RawSection { id, data: &added.to(id, &module[range])? });
    }
    Ok(Cow::Owned(exposed.finish()))
}

/// What is added to the sections of a core module: to each so many items, in their binary form.
#[derive(Debug, Default)]
struct Added(HashMap<u8, (u32, Vec<u8>)>);

impl Added {
    /// To a module with this state that has so many types and functions.
    fn new(state: &State, types: u32, functions: u32) -> Self {
        let mut added = Self::default();
        if state.memories > 0 {
            added.add(SectionId::Export, |item| export(MEMORY, ExportKind::Memory, 0, item));
        }
        if state.mutable.is_empty() {
            return added;
        }
        added.add(SectionId::Type, |item| {
            item.push(FUNCTION_TYPE);
            item.extend([0, 0]);
        });
        added.add(SectionId::Function, |item| types.encode(item));
        added.add(SectionId::Export, |item| export(GLOBALS, ExportKind::Func, functions, item));
        // First the one that says whether anything is kept, then a place for each.
        added.add(SectionId::Global, |item| global_of_zero(ValType::I32, item));
        for (_, ty) in &state.mutable {
            added.add(SectionId::Global, |item| global_of_zero(number_type(*ty), item));
        }
        added.add(SectionId::Code, |item| keep_or_give_back(state).encode(item));
        added
    }

    fn add(&mut self, section: SectionId, write: impl FnOnce(&mut Vec<u8>)) {
        let (count, items) = self.0.entry(section.into()).or_default();
        *count += 1;
        write(items);
    }

    /// A section with what is added to it.
    fn to<'a>(&self, id: u8, section: &'a [u8]) -> Result<Cow<'a, [u8]>, BinaryReaderError> {
        let Some((added, items)) = self.0.get(&id) else { return Ok(Cow::Borrowed(section)) };
        let mut reader = BinaryReader::new(section, 0);
        let count = reader.read_var_u32()?;
        let mut extended = Vec::with_capacity(section.len() + items.len() + size_of::<u32>());
        (count + added).encode(&mut extended);
        extended.extend_from_slice(&section[reader.original_position()..]);
        extended.extend_from_slice(items);
        Ok(Cow::Owned(extended))
    }
}

fn export(name: &str, kind: ExportKind, index: u32, item: &mut Vec<u8>) {
    name.encode(item);
    kind.encode(item);
    index.encode(item);
}

fn global_of_zero(val_type: ValType, item: &mut Vec<u8>) {
    let zero = match val_type {
        ValType::I64 => ConstExpr::i64_const(0),
        ValType::F32 => ConstExpr::f32_const(0.0.into()),
        ValType::F64 => ConstExpr::f64_const(0.0.into()),
        ValType::V128 => ConstExpr::v128_const(0),
        ValType::I32 | ValType::Ref(_) => ConstExpr::i32_const(0),
    };
    GlobalType { val_type, mutable: true, shared: false }.encode(item);
    zero.encode(item);
}

/// Globals that hold references are kept nowhere: a module with one that is mutable is left as it is.
fn number_type(ty: wasmparser::ValType) -> ValType {
    match ty {
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::I32 | wasmparser::ValType::Ref(_) => ValType::I32,
    }
}

fn keep_or_give_back(state: &State) -> Function {
    let is_kept = state.globals;
    let places = || state.mutable.iter().map(|(global, _)| *global).zip(is_kept + 1..);
    let mut function = Function::new([]);
    let mut code = function.instructions();
    code.global_get(is_kept).if_(BlockType::Empty);
    for (global, place) in places() {
        code.global_get(place).global_set(global);
    }
    code.else_();
    for (global, place) in places() {
        code.global_get(global).global_set(place);
    }
    code.i32_const(1).global_set(is_kept).end().end();
    function
}
