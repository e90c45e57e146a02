//! What is added to a component as a whole: an import from the host, a resource that stands for nothing, the core module that makes
//! an instance as new, and the export by which the host has it do so.

use wasm_encoder::{
    Alias, BlockType, CanonicalFunctionSection, CanonicalOption, CodeSection, Component, ComponentAliasSection,
    ComponentExportKind, ComponentExportSection, ComponentImportSection, ComponentTypeRef, ComponentTypeSection,
    ComponentValType, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection, InstanceSection,
    InstanceType, MemoryType, Module, ModuleArg, ModuleSection, PrimitiveValType, TypeSection, ValType,
};

use super::super::MEMORY;
use super::globals::GLOBALS;
use super::{Counts, RENEW, RENEWAL, SHOW};
use crate::reset::MEMORY_BYTES_MAX;

/// The names by which the core module takes a handle, and gives it back.
const TAKE: &str = "take";
const DROP: &str = "drop";
/// What its own export is called.
const OWN_RENEW: &str = "renew";
/// Bytes of a page of Wasm memory, as a power of two.
const PAGE_BITS: i32 = 16;
/// Pages that the memory of an instance may have that is made as new in place.
const PAGES_MAX: usize = MEMORY_BYTES_MAX >> PAGE_BITS;

/// What is added to which component.
pub(super) struct Plan {
    pub(super) counts: Counts,
    /// The core instance that defines the memory.
    pub(super) memory: u32,
    /// Those with mutable globals.
    pub(super) stateful: Vec<u32>,
}

impl Plan {
    /// Adds all of it to a component whose core modules export their state.
    pub(super) fn append_to(&self, component: &mut Component) {
        let at = self.counts;
        // Types: that of the interface, the resource, then that of the export.
        let (interface, nothing, renew) = (at.types, at.types + 1, at.types + 2);
        let globals = u32::try_from(self.stateful.len()).unwrap_or(u32::MAX);
        let take = at.core_functions + globals;
        let (show, drop, own_renew) = (take + 1, take + 2, take + 3);

        component.section(&types());
        let mut imports = ComponentImportSection::new();
        imports.import(RENEWAL, ComponentTypeRef::Instance(interface));
        component.section(&imports);
        component.section(&self.aliases());

        let mut canonical = CanonicalFunctionSection::new();
        // Of the component's own, handles are taken and given back without going to the host.
        canonical.resource_new(nothing);
        canonical.lower(at.functions, [CanonicalOption::Memory(at.core_memories)]);
        canonical.resource_drop(nothing);
        component.section(&canonical);

        component.section(&ModuleSection(&module(globals)));
        let mut instances = InstanceSection::new();
        let mut items = vec![
            (MEMORY.to_owned(), ExportKind::Memory, at.core_memories),
            (TAKE.to_owned(), ExportKind::Func, take),
            (SHOW.to_owned(), ExportKind::Func, show),
            (DROP.to_owned(), ExportKind::Func, drop),
        ];
        items.extend((0..globals).map(|number| (of_number(number), ExportKind::Func, at.core_functions + number)));
        instances.export_items(items);
        instances.instantiate(at.core_modules, [("", ModuleArg::Instance(at.core_instances))]);
        component.section(&instances);

        let mut aliases = ComponentAliasSection::new();
        aliases.alias(Alias::CoreInstanceExport {
            instance: at.core_instances + 1,
            kind: ExportKind::Func,
            name: OWN_RENEW,
        });
        component.section(&aliases);
        let mut types = ComponentTypeSection::new();
        let number = PrimitiveValType::U32;
        types.function().params([("handles", number)]).result(Some(number.into()));
        component.section(&types);
        let mut canonical = CanonicalFunctionSection::new();
        canonical.lift(own_renew, renew, []);
        component.section(&canonical);
        let mut exports = ComponentExportSection::new();
        exports.export(RENEW, ComponentExportKind::Func, at.functions + 1, None);
        component.section(&exports);
    }

    /// What the host offers, and what core instances export of their state.
    fn aliases(&self) -> ComponentAliasSection {
        let mut aliases = ComponentAliasSection::new();
        let (instance, kind) = (self.counts.instances, ComponentExportKind::Func);
        aliases.alias(Alias::InstanceExport { instance, kind, name: SHOW });
        aliases.alias(Alias::CoreInstanceExport { instance: self.memory, kind: ExportKind::Memory, name: MEMORY });
        for &instance in &self.stateful {
            aliases.alias(Alias::CoreInstanceExport { instance, kind: ExportKind::Func, name: GLOBALS });
        }
        aliases
    }
}

/// That of the interface, and the resource.
fn types() -> ComponentTypeSection {
    let mut interface = InstanceType::new();
    interface.ty().defined_type().list(PrimitiveValType::U8);
    interface.ty().function().params([("memory", ComponentValType::Type(0))]).result(None);
    interface.export(SHOW, ComponentTypeRef::Func(1));
    let mut types = ComponentTypeSection::new();
    types.instance(&interface);
    types.resource(ValType::I32, None);
    types
}

/// The name by which the core module is given the function that keeps the globals of the instance with this number.
fn of_number(number: u32) -> String {
    format!("{GLOBALS}/{number}")
}

/// The core module, for so many instances with globals.
fn module(globals: u32) -> Module {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types.ty().function([ValType::I32], []);
    types.ty().function([ValType::I32, ValType::I32], []);
    types.ty().function([ValType::I32], [ValType::I32]);
    let (nothing, takes, takes_two, takes_and_gives) = (0, 1, 2, 3);
    let mut imports = ImportSection::new();
    let memory = MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
    imports.import("", MEMORY, memory);
    imports.import("", TAKE, EntityType::Function(takes_and_gives));
    imports.import("", SHOW, EntityType::Function(takes_two));
    imports.import("", DROP, EntityType::Function(takes));
    for number in 0..globals {
        imports.import("", &of_number(number), EntityType::Function(nothing));
    }
    let mut functions = FunctionSection::new();
    functions.function(takes_and_gives);
    let mut exports = ExportSection::new();
    exports.export(OWN_RENEW, ExportKind::Func, FIRST_GLOBALS + globals);
    let mut code = CodeSection::new();
    code.function(&renew(globals));
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);
    module
}

// The core module's functions: these, then those that keep globals, then its own.
const TAKES: u32 = 0;
const SHOWS: u32 = 1;
const DROPS: u32 = 2;
const FIRST_GLOBALS: u32 = 3;

/// `renew(handles) -> is_done`: gives back the globals, puts the table in order that has had no more than so many handles,
/// all of them given back, and shows the memory.
fn renew(globals: u32) -> Function {
    const HANDLES: u32 = 0;
    const LEFT: u32 = 1;
    let mut function = Function::new([(1, ValType::I32)]);
    let mut code = function.instructions();
    let pages_max = i32::try_from(PAGES_MAX).unwrap_or(i32::MAX);
    code.memory_size(0).i32_const(pages_max).i32_gt_u().if_(BlockType::Empty).i32_const(0).return_().end();
    for number in 0..globals {
        code.call(FIRST_GLOBALS + number);
    }
    // With as many taken as there have ever been, the table has no other place that is free. One with a higher number
    // means that it had more, or that a place is not.
    code.local_get(HANDLES).local_set(LEFT);
    code.block(BlockType::Empty).loop_(BlockType::Empty);
    code.local_get(LEFT).i32_eqz().br_if(1);
    code.i32_const(0).call(TAKES).local_get(HANDLES).i32_gt_u().if_(BlockType::Empty).i32_const(0).return_().end();
    code.local_get(LEFT).i32_const(1).i32_sub().local_set(LEFT).br(0).end().end();
    // The one given back last is the first to be taken again, so the lowest number is given back last.
    code.local_get(HANDLES).local_set(LEFT);
    code.block(BlockType::Empty).loop_(BlockType::Empty);
    code.local_get(LEFT).i32_eqz().br_if(1);
    code.local_get(LEFT).call(DROPS);
    code.local_get(LEFT).i32_const(1).i32_sub().local_set(LEFT).br(0).end().end();
    code.i32_const(0).memory_size(0).i32_const(PAGE_BITS).i32_shl().call(SHOWS);
    code.i32_const(1).end();
    function
}
