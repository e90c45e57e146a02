//! Modules rewritten against the same modules as they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nigh_proto::module::{self, ModuleLimits};
use proptest::prelude::*;
use wasmtime::{Engine, Instance, Memory, Module, Ref, Store, Table, Trap, UpdateDeadline, Val};

use super::*;
use crate::engine::{Shape, settings};
use crate::http;

/// Pieces so small that everything has many.
const TINY: Piece = Piece { bytes: 7, elements: 3 };
const WHOLE: Piece = Piece { bytes: PIECE_BYTES, elements: PIECE_ELEMENTS };

/// All bulk instructions on two tables and a memory, of any length and of known ones.
const SUBJECT: &str = r#"(module
    (memory (export "memory") 2 5)
    (table $t (export "t") 20 funcref) (table $u (export "u") 40 funcref)
    (data $d "0123456789abcdefghijklmnopqrstuvwxyz") (data $active (i32.const 100000) "active")
    (elem $e func $one $two $three $one $two $three $one $two)
    (elem (table $u) (i32.const 3) func $three $two $one)
    (func $one (export "one") (result i32) i32.const 1)
    (func $two (result i32) i32.const 2)
    (func $three (result i32) i32.const 3)
    (func (export "grow") (param i32 i32 i32) (drop (memory.grow (i32.const 1))))
    (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
    (func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2)))
    (func (export "init") (param i32 i32 i32) (memory.init $d (local.get 0) (local.get 1) (local.get 2)))
    (func (export "init-active") (param i32 i32 i32) (memory.init $active (local.get 0) (local.get 1) (local.get 2)))
    (func (export "drop") (param i32 i32 i32) (data.drop $d))
    (func (export "fill-5") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (i32.const 5)))
    (func (export "copy-70000") (param i32 i32 i32) (local i64)
        (memory.copy (local.get 0) (local.get 1) (i32.const 70000)))
    (func (export "table-fill") (param i32 i32 i32)
        (table.fill $u (local.get 0) (ref.func $one) (local.get 2)))
    (func (export "table-clear") (param i32 i32 i32)
        (table.fill $t (local.get 0) (ref.null func) (local.get 2)))
    (func (export "table-copy") (param i32 i32 i32) (table.copy $u $u (local.get 0) (local.get 1) (local.get 2)))
    (func (export "table-copy-over") (param i32 i32 i32) (table.copy $t $u (local.get 0) (local.get 1) (local.get 2)))
    (func (export "table-init") (param i32 i32 i32) (table.init $u $e (local.get 0) (local.get 1) (local.get 2)))
    (func (export "elem-drop") (param i32 i32 i32) (elem.drop $e))
    (elem declare func $one))"#;

const OPERATIONS: &[&str] = &[
    "grow",
    "fill",
    "copy",
    "init",
    "init-active",
    "drop",
    "fill-5",
    "copy-70000",
    "table-fill",
    "table-clear",
    "table-copy",
    "table-copy-over",
    "table-init",
    "elem-drop",
];

fn engine() -> Engine {
    Engine::new(&settings(Shape::ROOMY)).unwrap()
}

/// A running module.
struct Running {
    store: Store<()>,
    instance: Instance,
    memory: Memory,
    tables: [Table; 2],
}

impl Running {
    fn new(engine: &Engine, module: &[u8]) -> Self {
        let mut store = Store::new(engine, ());
        store.set_epoch_deadline(1);
        let module = Module::new(engine, module).unwrap();
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        let tables = ["t", "u"].map(|name| instance.get_table(&mut store, name).unwrap());
        Self { store, instance, memory, tables }
    }

    fn call(&mut self, function: &str, arguments: [u32; 3]) -> Result<(), Trap> {
        let arguments = arguments.map(|argument| Val::I32(argument.cast_signed()));
        let function = self.instance.get_func(&mut self.store, function).unwrap();
        let result = function.call(&mut self.store, &arguments, &mut []);
        result.map_err(|error| *error.downcast_ref::<Trap>().expect("nothing but traps"))
    }

    /// What each element of the tables returns when it is called.
    fn tables(&mut self) -> Vec<Option<i32>> {
        let mut elements = Vec::new();
        for table in self.tables {
            for at in 0..table.size(&self.store) {
                let Some(Ref::Func(function)) = table.get(&mut self.store, at) else { panic!("no function") };
                elements.push(function.map(|function| {
                    function.typed::<(), i32>(&self.store).unwrap().call(&mut self.store, ()).unwrap()
                }));
            }
        }
        elements
    }
}

/// A place or a length: small, about the size of the memory or a table, or anything.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..50u32,
        2 => (0..4u32, 0..30u32).prop_map(|(pages, more)| (pages * 65536 + more).saturating_sub(15)),
        1 => 0..200_000u32,
        1 => (0..30u32).prop_map(|less| u32::MAX - less),
        1 => any::<u32>(),
    ]
}

fn operations() -> impl Strategy<Value = Vec<(&'static str, [u32; 3])>> {
    prop::collection::vec((prop::sample::select(OPERATIONS), [number(), number(), number()]), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_done_in_pieces_is_as_if_done_at_once(operations in operations(), is_tiny: bool) {
        let engine = engine();
        let module = wat::parse_str(SUBJECT).unwrap();
        let rewritten = rewrite(&module, if is_tiny { TINY } else { WHOLE }).unwrap();
        prop_assert!(matches!(rewritten, Cow::Owned(_)));
        let (mut whole, mut pieces) = (Running::new(&engine, &module), Running::new(&engine, &rewritten));
        for (operation, arguments) in operations {
            let ended = pieces.call(operation, arguments);
            prop_assert_eq!(whole.call(operation, arguments), ended, "{} {:?}", operation, arguments);
            // Where it did not fit, nothing of it was done.
            let is_same = whole.memory.data(&whole.store) == pieces.memory.data(&pieces.store);
            prop_assert!(is_same, "after {operation} {arguments:?}, which ended with {ended:?}");
            prop_assert_eq!(whole.tables(), pieces.tables(), "after {} {:?}", operation, arguments);
        }
    }

    #[test]
    fn any_module_that_is_let_in_is_still_valid(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let config = wasm_smith::Config {
            reference_types_enabled: true,
            bulk_memory_enabled: true,
            gc_enabled: false,
            exceptions_enabled: false,
            max_memories: 1,
            min_funcs: 3,
            ..wasm_smith::Config::default()
        };
        let made = wasm_smith::Module::new(config, &mut arbitrary::Unstructured::new(&bytes));
        let module = made.map_err(|_| TestCaseError::reject("too few bytes"))?.to_bytes();
        let mut judge = wasmparser::Validator::new_with_features(module::features());
        prop_assume!(judge.validate_all(&module).is_ok());
        let rewritten = rewrite(&module, TINY).unwrap();
        judge.reset();
        let judged = judge.validate_all(&rewritten).map(|_| ());
        prop_assert!(judged.is_ok(), "{judged:?}");
        prop_assert!(rewrite(&rewritten, TINY).is_ok());
    }
}

/// How often the engine looked up during a call, where every look is counted.
fn looks(module: &[u8], function: &str, arguments: [u32; 3]) -> u64 {
    let engine = engine();
    let looks = Arc::new(AtomicU64::new(0));
    let mut running = Running::new(&engine, module);
    let counted = looks.clone();
    running.store.epoch_deadline_callback(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        // Due again at once.
        Ok(UpdateDeadline::Continue(0))
    });
    running.store.set_epoch_deadline(0);
    running.call(function, arguments).unwrap();
    looks.load(Ordering::Relaxed)
}

#[test]
fn a_long_one_is_looked_in_on_at_each_piece() {
    let module = wat::parse_str(SUBJECT).unwrap();
    let rewritten = in_pieces(&module).unwrap();
    let tiny = rewrite(&module, TINY).unwrap();
    for (function, arguments) in [("fill", [0, 7, 131_072]), ("copy", [0, 1, 131_071]), ("copy", [1, 0, 131_071])] {
        assert!(looks(&module, function, arguments) < 4, "the engine looks up within {function} by itself");
        let [two, all] = [&rewritten, &tiny].map(|module| looks(module, function, arguments));
        assert!(
            two > looks(&module, function, arguments) && all >= u64::from(131_071 / TINY.bytes),
            "{function}: {all}"
        );
    }
    for (function, arguments) in [("init", [0, 0, 36]), ("table-fill", [0, 0, 40]), ("table-copy", [1, 0, 39])] {
        assert!(looks(&tiny, function, arguments) >= 36 / 7, "{function}");
    }
    assert!(looks(&tiny, "table-init", [0, 0, 8]) > looks(&module, "table-init", [0, 0, 8]));
}

#[test]
fn what_is_short_is_done_where_it_stands() {
    let module = wat::parse_str(SUBJECT).unwrap();
    let rewritten = in_pieces(&module).unwrap();
    assert_eq!(looks(&rewritten, "fill", [0, 7, PIECE_BYTES]), looks(&module, "fill", [0, 7, PIECE_BYTES]));
    let known = "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536))))";
    let known = wat::parse_str(known).unwrap();
    assert!(matches!(in_pieces(&known).unwrap(), Cow::Borrowed(_)));
    let plain = wat::parse_str("(module (func))").unwrap();
    assert!(matches!(in_pieces(&plain).unwrap(), Cow::Borrowed(_)));
}

#[test]
fn nothing_else_changes() {
    let text = r#"(module (type (func (param i64))) (import "nigh" "log_v1" (func (param i32 i32 i32)))
        (memory (export "memory") 1) (data $d "x") (@custom "note" "kept") (start $begin)
        (func $begin) (func (export "f") (param i32) (memory.init $d (i32.const 0) (i32.const 0) (local.get 0))))"#;
    let module = wat::parse_str(text).unwrap();
    let rewritten = in_pieces(&module).unwrap();
    wasmparser::validate(&rewritten).unwrap();
    let sections = |module: &[u8]| {
        let payloads = Parser::new(0).parse_all(module).filter_map(|payload| payload.unwrap().as_section());
        payloads.map(|(id, range)| (id, module[range].to_vec())).collect::<Vec<_>>()
    };
    let (before, after) = (sections(&module), sections(&rewritten));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        let is_appended_to =
            [SectionId::Type, SectionId::Function, SectionId::Code].map(|id| id as u8).contains(&before.0);
        assert!(before == after || is_appended_to, "section {}", before.0);
    }
}

#[test]
fn functions_full_of_them_stay_within_what_a_function_may_be() {
    let judge = |text: &str| {
        let module = wat::parse_str(text).unwrap();
        module::inspect(&module, &ModuleLimits::default()).unwrap();
        let rewritten = in_pieces(&module).unwrap();
        assert!(matches!(rewritten, Cow::Owned(_)));
        wasmparser::validate(&rewritten).unwrap();
        (module.len(), rewritten.len())
    };
    let of = |locals: &str, code: &str| {
        let own = "(memory (export \"memory\") 1) (func (export \"_start\")";
        format!("(module {own} {locals} {code}))")
    };
    let fill = "(memory.fill (local.get 0) (local.get 0) (local.get 0))";
    judge(&of(&format!("(local {})", "i32 ".repeat(50_000)), fill));
    judge(&of(&format!("(local {})", "i32 ".repeat(49_999)), fill));
    // Where nothing is reached, an instruction needs no operands.
    let (before, after) = judge(&of("", &format!("unreachable {}", "memory.fill ".repeat(600_000))));
    assert!(after < 2 * before, "{before} bytes became {after}");
}

#[test]
fn the_engine_takes_no_tables_of_other_references() {
    for ty in ["externref", "(ref null extern)", "(ref func)"] {
        let text = format!(
            "(module (memory (export \"memory\") 1) (table 1 {ty}) (func (export \"_start\")) (func $f) (elem declare func $f))"
        );
        let Ok(module) = wat::parse_str(&text) else { continue };
        assert!(module::inspect(&module, &ModuleLimits::default()).is_err(), "{ty}");
    }
}

#[test]
fn modules_within_components_are_rewritten_too() {
    let text = r#"(component
        (component $inner
            (core module $m
                (memory (export "memory") 4)
                (func (export "fill") (param i32) (memory.fill (i32.const 0) (i32.const 1) (local.get 0))))
            (core instance $i (instantiate $m))
            (func (export "fill") (param "bytes" u32) (canon lift (core func $i "fill"))))
        (core module $unused (func))
        (instance $inner (instantiate $inner))
        (export "fill" (func $inner "fill")))"#;
    let component = wat::parse_str(text).unwrap();
    let rewritten = in_pieces(&component).unwrap();
    let engine = Engine::new(&http::engine::settings(Shape::ROOMY)).unwrap();
    let looks = |component: &[u8]| {
        let component = wasmtime::component::Component::new(&engine, component).unwrap();
        let mut store = Store::new(&engine, 0u32);
        store.set_epoch_deadline(1);
        let linker = wasmtime::component::Linker::new(&engine);
        let instance = linker.instantiate(&mut store, &component).unwrap();
        let fill = instance.get_typed_func::<(u32,), ()>(&mut store, "fill").unwrap();
        store.epoch_deadline_callback(|mut store| {
            *store.data_mut() += 1;
            Ok(UpdateDeadline::Continue(0))
        });
        store.set_epoch_deadline(0);
        fill.call(&mut store, (4 * 65536,)).unwrap();
        *store.data()
    };
    assert!(looks(&rewritten) >= looks(&component) + 3, "{} and {}", looks(&rewritten), looks(&component));
}
