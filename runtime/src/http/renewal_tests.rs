//! Instances made as new against newly made ones.

use std::sync::LazyLock;

use proptest::prelude::*;
use wasmtime::Engine;
use wasmtime::component::{Instance, Resource, ResourceTable, ResourceType};

use super::*;
use crate::config::Config;
use crate::expose::expose_component;
use crate::http::engine;
use crate::reset::{Known, Ran};

const WASM_PAGE: usize = 64 << 10;

/// A component whose `step` does what it is told: it can reach every kind of state that is made as new in place.
fn guest(pages: usize, data: &[(usize, Vec<u8>)], items: &str) -> String {
    let data: String = data
        .iter()
        .map(|(at, bytes)| {
            let text: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
            format!("(data (i32.const {}) \"{text}\")", at % (pages * WASM_PAGE - bytes.len()))
        })
        .collect();
    component(pages, &data, items, "")
}

/// The same with these initial contents, items of the second core module, and items of the component itself.
fn component(pages: usize, data: &str, items: &str, around: &str) -> String {
    format!(
        r#"(component {around}
        (import "test:things/things" (instance $things
            (export "thing" (type $thing (sub resource)))
            (export "give" (func (result (own $thing))))))
        (alias export $things "thing" (type $thing))
        (core func $give (canon lower (func $things "give")))
        (core func $drop (canon resource.drop $thing))
        (core module $main
            (memory (export "memory") {pages}) {data}
            (global $a (mut i32) (i32.const 1)) (global i32 (i32.const 7)) (global $b (mut i64) (i64.const -2))
            (global $c (mut f32) (f32.const 3.5)) (global $d (mut f64) (f64.const nan))
            (global $e (export "e") (mut v128) (v128.const i64x2 5 6))
            (func $size (result i32) (i32.mul (memory.size) (i32.const 65536)))
            (func $in (param $at i32) (result i32) (i32.rem_u (local.get $at) (i32.sub (call $size) (i32.const 4096))))
            (func (export "change") (param $what i32) (param $x i32) (param $y i32)
                (block $globals (block $copy (block $grow (block $fill (block $store
                    (br_table $store $fill $grow $copy $globals (local.get $what)))
                (i32.store8 (call $in (local.get $x)) (local.get $y)) (return))
                (memory.fill (call $in (local.get $x)) (local.get $y) (i32.and (local.get $y) (i32.const 4095))) (return))
                (drop (memory.grow (i32.and (local.get $x) (i32.const 1)))) (return))
                (memory.copy (call $in (local.get $x)) (call $in (local.get $y)) (i32.and (local.get $y) (i32.const 4095))) (return))
                (global.set $a (i32.xor (global.get $a) (local.get $x)))
                (global.set $b (i64.add (global.get $b) (i64.extend_i32_u (local.get $y))))
                (global.set $c (f32.convert_i32_s (local.get $x)))
                (global.set $d (f64.convert_i32_s (local.get $y)))
                (global.set $e (i32x4.splat (local.get $x))))
            ;; A number made of all that code can see.
            (func (export "sum") (result i64) (local $at i32) (local $sum i64)
                (loop $on
                    (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 31)) (i64.load (local.get $at))))
                    (br_if $on (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (call $size))))
                (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 31)) (i64.extend_i32_u (global.get $a))))
                (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 31)) (global.get $b)))
                (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 31)) (i64.extend_i32_u (i32.reinterpret_f32 (global.get $c)))))
                (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 31)) (i64.reinterpret_f64 (global.get $d))))
                (i64.add (i64.mul (local.get $sum) (i64.const 31)) (i64x2.extract_lane 1 (global.get $e)))))
        ;; As what toolchains put beside a program: of the other's memory, with a table for calls and globals of its own.
        (core module $beside
            (import "main" "memory" (memory 1)) (import "main" "e" (global $e (mut v128)))
            (import "main" "change" (func $change (param i32 i32 i32))) (import "main" "sum" (func $sum (result i64)))
            (import "host" "give" (func $give (result i32))) (import "host" "drop" (func $drop (param i32)))
            (type $number (func (result i64)))
            (table 2 funcref) (elem (i32.const 1) $sum)
            (global $steps (mut i32) (i32.const 0)) {items}
            (func (export "step") (param $what i32) (param $x i32) (param $y i32) (result i64)
                (global.set $steps (i32.add (global.get $steps) (i32.const 1)))
                (global.set $e (i64x2.add (global.get $e) (v128.const i64x2 1 2)))
                (if (i32.eq (local.get $what) (i32.const 5)) (then (return (i64.extend_i32_u (call $give)))))
                (if (i32.eq (local.get $what) (i32.const 6)) (then (call $drop (local.get $x)) (return (i64.const 0))))
                (call $change (local.get $what) (local.get $x) (local.get $y))
                (i64.add (call_indirect (type $number) (i32.const 1)) (i64.extend_i32_u (global.get $steps)))))
        (core instance $main (instantiate $main))
        (core instance $beside (instantiate $beside (with "main" (instance $main))
            (with "host" (instance (export "give" (func $give)) (export "drop" (func $drop))))))
        (func (export "step") (param "what" u32) (param "x" u32) (param "y" u32) (result s64)
            (canon lift (core func $beside "step"))))"#
    )
}

#[derive(Default)]
struct Host {
    table: ResourceTable,
    shown: Option<Shown>,
}

impl Remembers for Host {
    fn shown(&mut self) -> &mut Option<Shown> {
        &mut self.shown
    }
}

struct Thing;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let config = Config { instances_max: 16, ..Config::new("computer-1".parse().unwrap()) };
    engine::start(&config).unwrap().engine
});

/// What a component is compiled to, once its state is exposed; nothing where it is left as it is.
fn compiled(text: &str) -> Option<Component> {
    let bytes = wat::parse_str(text).unwrap();
    let exposed = expose_component(&bytes).unwrap();
    let component = Component::new(&ENGINE, &exposed).unwrap();
    assert_eq!(export_of(&component).is_some(), *exposed != *bytes);
    export_of(&component).is_some().then_some(component)
}

fn linker() -> Linker<Host> {
    let mut linker = Linker::new(&ENGINE);
    define(&mut linker).unwrap();
    let mut things = linker.instance("test:things/things").unwrap();
    things
        .resource("thing", ResourceType::host::<Thing>(), |mut store, rep| {
            let thing: Resource<Thing> = Resource::new_own(rep);
            StoreContextMut::<'_, Host>::data_mut(&mut store).table.delete(thing)?;
            Ok(())
        })
        .unwrap();
    things
        .func_wrap("give", |mut store: StoreContextMut<'_, Host>, ()| Ok((store.data_mut().table.push(Thing)?,)))
        .unwrap();
    linker
}

struct Case {
    store: Store<Host>,
    renew: Renew,
    step: TypedFunc<(u32, u32, u32), (i64,)>,
    held: Vec<u32>,
    held_max: u32,
    known: Known,
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing here waits"),
    }
}

fn case(component: &Component) -> Case {
    let mut store = Store::new(&ENGINE, Host::default());
    store.set_epoch_deadline(1 << 40);
    let instance: Instance = ready(linker().instantiate_async(&mut store, component)).unwrap();
    let renew: Renew = instance.get_typed_func(&mut store, RENEW).unwrap();
    let step = instance.get_typed_func(&mut store, "step").unwrap();
    assert_eq!(ready(renew.call_async(&mut store, (0,))).unwrap(), (1,));
    Case { store, renew, step, held: Vec::new(), held_max: 0, known: Known::default() }
}

impl Case {
    fn step(&mut self, step: (u32, u32, u32)) -> i64 {
        ready(self.step.call_async(&mut self.store, step)).unwrap().0
    }

    /// Takes these steps; the guest gives some handles back on the way, and the others at the end, in any order.
    fn call(&mut self, steps: &[(u32, u32, u32)]) -> Vec<i64> {
        let mut seen = Vec::new();
        for &(what, x, y) in steps {
            if what < 6 {
                seen.push(self.step((what, x, y)));
            }
            if what == 5 {
                self.held.push(u32::try_from(*seen.last().unwrap()).unwrap());
                self.held_max = self.held_max.max(u32::try_from(self.held.len()).unwrap());
            }
            if what == 6 && !self.held.is_empty() {
                self.give_back(x);
            }
        }
        for &(_, x, _) in steps.iter().cycle().take(self.held.len() * steps.len().min(1)) {
            self.give_back(x);
        }
        seen
    }

    fn give_back(&mut self, which: u32) {
        let handle = self.held.swap_remove(which as usize % self.held.len());
        self.step((6, handle, 0));
    }

    /// Makes it as new on this thread, where all of its steps are taken.
    fn renew_with(&mut self, handles: u32, image: &Image) -> bool {
        let restore = |memory: &mut [u8]| image.restore(memory, &mut self.known, Ran::here());
        renew(&mut self.store, &self.renew, handles, restore)
    }

    fn renew(&mut self, image: &Image) -> bool {
        self.renew_with(self.held_max, image)
    }
}

fn image(component: &Component) -> Option<Image> {
    image_of(case(component).store)
}

fn steps() -> impl Strategy<Value = Vec<(u32, u32, u32)>> {
    // Growing is rare, as it ends what there is to see.
    let what = prop_oneof![4 => 0u32..2, 1 => Just(2u32), 4 => 3u32..5, 8 => 5u32..7];
    prop::collection::vec((what, any::<u32>(), any::<u32>()), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn an_instance_renewed_is_as_one_newly_made(
        pages in 1usize..6,
        data in prop::collection::vec((any::<usize>(), prop::collection::vec(any::<u8>(), 1..5000)), 0..3),
        calls in prop::collection::vec(steps(), 1..5),
    ) {
        let component = compiled(&guest(pages, &data, "")).unwrap();
        // The kernel may not tell what was written.
        let Some(image) = image(&component) else { return Ok(()) };
        let mut kept = case(&component);
        for steps in calls {
            let mut new = case(&component);
            prop_assert_eq!(kept.call(&steps), new.call(&steps));
            prop_assert_eq!(kept.step((3, 0, 0)), new.step((3, 0, 0)));
            let has_grown = steps.iter().any(|(what, x, _)| *what == 2 && x % 2 == 1);
            prop_assert_eq!(kept.renew(&image), !has_grown);
            if has_grown {
                return Ok(());
            }
        }
        prop_assert_eq!(kept.step((3, 0, 0)), case(&component).step((3, 0, 0)));
    }
}

/// Eight handles taken and given back in this order; then the numbers of the next eight.
fn numbers_after(order: [u32; 8], renew_with: Option<u32>) -> Option<Vec<i64>> {
    let component = compiled(&guest(1, &[], "")).unwrap();
    let image = image(&component).unwrap();
    let mut case = case(&component);
    for _ in 0..8 {
        case.step((5, 0, 0));
    }
    for handle in order {
        case.step((6, handle, 0));
    }
    if let Some(handles) = renew_with
        && !case.renew_with(handles, &image)
    {
        return None;
    }
    Some((0..8).map(|_| case.step((5, 0, 0))).collect())
}

#[test]
fn handles_do_not_tell_in_which_order_those_before_were_given_back() {
    let order = [3, 1, 7, 2, 8, 6, 4, 5];
    assert_ne!(numbers_after(order, None).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8], "they do where nothing is renewed");
    assert_eq!(numbers_after(order, Some(8)).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(numbers_after(order, Some(HANDLES_MAX)).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(numbers_after(order, Some(4)), None, "one that has had more is not as new");
}

#[test]
fn an_instance_that_still_holds_a_handle_is_not_renewed() {
    let component = compiled(&guest(1, &[], "")).unwrap();
    let image = image(&component).unwrap();
    let mut case = case(&component);
    case.step((5, 0, 0));
    assert!(!case.renew_with(1, &image));
}

#[test]
fn a_component_with_other_state_is_left_as_it_is() {
    assert!(compiled(&guest(1, &[], "")).is_some());
    for items in [
        "(func (table.set 0 (i32.const 0) (ref.null func)))",
        "(func (drop (table.grow 0 (ref.null func) (i32.const 1))))",
        "(elem funcref) (func (elem.drop 1))",
        "(global (mut funcref) (ref.null func))",
        "(global $x (mut i32) (i32.const 0)) (export \"nigh:state/globals\" (global $x))",
        &"(global (mut i32) (i32.const 0))".repeat(100),
    ] {
        assert!(compiled(&guest(1, &[], items)).is_none(), "{items}");
    }
    let own_resource = r#"(component
        (core module $main (memory (export "memory") 1)) (core instance $main (instantiate $main))
        (type $own (resource (rep i32))) (core func $new (canon resource.new $own)))"#;
    let within = r#"(component
        (core module $main (memory (export "memory") 1)) (core instance $main (instantiate $main))
        (component $inner (core module $m (global (mut i32) (i32.const 0))) (core instance (instantiate $m)))
        (instance (instantiate $inner)))"#;
    let memories = r#"(component (core module $main (memory (export "memory") 1))
        (core instance (instantiate $main)) (core instance (instantiate $main)))"#;
    let no_memory = "(component (core module $main) (core instance (instantiate $main)))";
    for text in [own_resource, within, memories, no_memory, "(component)"] {
        assert!(compiled(text).is_none(), "{text}");
    }
}

#[test]
fn what_runs_to_begin_with_is_part_of_a_new_instance() {
    let items =
        "(func $begin (global.set $steps (i32.const 77)) (i32.store (i32.const 600) (i32.const 5))) (start $begin)";
    let component = compiled(&guest(2, &[], items)).unwrap();
    let Some(image) = image(&component) else { return };
    let mut kept = case(&component);
    let first = kept.step((0, 600, 9));
    assert!(kept.renew(&image));
    assert_eq!(kept.step((0, 600, 9)), first);
    assert_eq!(case(&component).step((0, 600, 9)), first);
}

/// What components may have beside what is looked at, so that the numbers of all else are others. Each has a number of its own.
fn around(kind: u32, number: usize) -> String {
    match kind {
        0 => format!("(type $r{number} (record (field \"a\" u8)))"),
        1 => format!("(type $f{number} (func (param \"a\" string) (result u8)))"),
        2 => format!("(component $c{number} (type (list u8)) (export \"l\" (type 0)))"),
        3 => format!("(component $d{number} (type (list u8)) (export \"l\" (type 0))) (instance $j{number} (instantiate $d{number}))"),
        4 => format!("(core module $m{number} (func (export \"f\")) (memory 3)) "),
        5 => format!("(core module $n{number} (func (export \"f\")) (global (mut i64) (i64.const 5))) (core instance $k{number} (instantiate $n{number}))"),
        6 => format!("(core module $o{number} (func (export \"f\"))) (core instance $o{number} (instantiate $o{number})) (alias core export $o{number} \"f\" (core func $g{number}))
            (func $h{number} (canon lift (core func $g{number}))) (export \"h{number}\" (func $h{number}))"),
        7 => format!("(core module $p{number} (import \"a\" \"f\" (func)) (func) (global (export \"g\") (mut f32) (f32.const 1)))
            (core module $q{number} (func (export \"f\"))) (core instance $q{number} (instantiate $q{number}))
            (core instance $b{number} (export \"f\" (func $q{number} \"f\"))) (core instance $p{number} (instantiate $p{number} (with \"a\" (instance $b{number}))))"),
        _ => format!("(core type $t{number} (func (param i32)))"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_else_there_is_a_component_stays_valid_and_does_the_same(kinds in prop::collection::vec(0u32..9, 0..12)) {
        let around: String = kinds.iter().enumerate().map(|(number, kind)| around(*kind, number)).collect();
        let component = compiled(&component(1, "", "", &around)).unwrap();
        let Some(image) = image(&component) else { return Ok(()) };
        let mut kept = case(&component);
        let steps = [(0, 5, 6), (4, 7, 8), (5, 0, 0), (5, 0, 0), (6, 0, 0), (3, 1, 2)];
        let first = kept.call(&steps);
        prop_assert!(kept.renew(&image));
        prop_assert_eq!(kept.call(&steps), first);
    }
}

#[test]
fn names_of_the_platform_are_refused() {
    let text = format!(
        r#"(component
        (core module $m (func (export "f") (param i32) (result i32) (i32.const 1))) (core instance $i (instantiate $m))
        (func (export "{RENEW}") (param "handles" u32) (result u32) (canon lift (core func $i "f"))))"#
    );
    let refusal = expose_component(&wat::parse_str(text).unwrap()).unwrap_err().to_string();
    assert!(refusal.contains(RENEW) && refusal.contains("build it with another"), "{refusal}");
}
