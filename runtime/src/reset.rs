//! Making an instance as new in place, between two calls: its memory and its mutable globals get back what they held
//! right after it was made, before any of its code had run. Cheaper than making one anew, with the same result.
//!
//! The guest has no say in what is restored: either all of the memory is, or all pages that the kernel knows to have
//! been written to (`known`).

mod known;

use std::ops::Range;
use std::sync::LazyLock;

use wasmtime::{AsContextMut, Global, Instance, Linker, Memory, Module, ModuleExport, Store, Val};

use crate::expose;
use crate::pages::{self, Pages};
pub(crate) use known::{Known, Ran};

/// Bytes that a memory may begin with for its instances to be reset.
pub(crate) const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Up to this size all of a memory is restored without asking which pages were written to: writing them is quicker. Measured
/// (EPYC, Linux 6.18, 2 cores): asking takes 1.0 µs and the restoring of 2 to 16 pages up to 1.1 µs more, writing 64 KiB
/// 0.6 µs, 128 KiB 1.1 µs, 256 KiB 2.2 µs.
const WHOLE_BYTES_MAX: usize = 64 << 10;
/// The same where the kernel cannot tell which pages were written to.
const WHOLE_UNTOLD_BYTES_MAX: usize = 256 << 10;
/// Bytes of written pages that are restored at most; an instance with more is not worth the memory that it keeps. Restoring
/// that much, page by page, was measured to take 30 µs.
const WRITTEN_BYTES_MAX: usize = 1 << 20;

static PAGES: LazyLock<Option<Pages>> = LazyLock::new(|| {
    let pages = Pages::open();
    tracing::info!(can_tell_written_pages = pages.is_some(), "instances are reset in place");
    pages
});

thread_local! {
    /// This thread's own, if it could be opened.
    static OWN_PAGES: Option<Pages> = PAGES.as_ref().and_then(Pages::reopen);
}

/// What a new instance of a module is like.
pub(crate) struct Pristine {
    memory: ModuleExport,
    globals: Vec<(ModuleExport, Val)>,
    image: Image,
}

/// What the memory of a new instance holds.
pub(crate) struct Image {
    memory_bytes: usize,
    contents: Contents,
}

/// One instance's state: all that its module's code can change.
pub(crate) struct State {
    memory: Memory,
    globals: Vec<Global>,
    known: Known,
}

/// A memory's first contents: these bytes from `start` on, zeros elsewhere.
struct Contents {
    start: usize,
    bytes: Box<[u8]>,
}

impl Pristine {
    /// Looks at a new instance of the module. Nothing where its instances cannot be reset: the module does not expose
    /// its state, its memory is large, or there is no room for an instance to look at.
    pub(crate) fn of(module: &Module) -> Option<Self> {
        let memory = module.get_export_index(expose::MEMORY)?;
        let exports = (0..).map_while(|number| module.get_export_index(&expose::global(number)));
        let exports: Vec<_> = exports.collect();
        let mut linker = Linker::new(module.engine());
        // A module that exposes its state runs no code while it is instantiated, so nothing calls these.
        linker.define_unknown_imports_as_traps(module).ok()?;
        let mut store = Store::new(module.engine(), ());
        let instance = linker.instantiate(&mut store, module).ok()?;
        let state = State::find(&mut store, instance, &memory, exports.iter())?;
        let image = Image::of(state.memory.data(&store))?;
        // The next instance will most likely have this one's memory.
        if let Err(error) = pages::give_back(state.memory.data_mut(&mut store)) {
            tracing::debug!(%error, "the memory that was looked at keeps its pages");
        }
        let globals = exports.into_iter().zip(&state.globals).map(|(export, global)| (export, global.get(&mut store)));
        let globals = globals.collect();
        Some(Self { memory, globals, image })
    }

    /// The state of an instance of the module.
    pub(crate) fn state_of(&self, store: impl AsContextMut, instance: Instance) -> Option<State> {
        State::find(store, instance, &self.memory, self.globals.iter().map(|(export, _)| export))
    }

    /// Makes an instance as new that a call ran in; says whether it is. One that is not must not be used again.
    pub(crate) fn restore(&self, state: &mut State, ran: Ran, mut store: impl AsContextMut) -> bool {
        self.image.restore(state.memory.data_mut(store.as_context_mut()), &mut state.known, ran)
            && state
                .globals
                .iter()
                .zip(&self.globals)
                .all(|(global, (_, value))| global.set(&mut store, *value).is_ok())
    }
}

impl Image {
    /// That of this memory; nothing where it is too large to be restored.
    pub(crate) fn of(memory: &[u8]) -> Option<Self> {
        let memory_bytes = memory.len();
        let can_be_restored =
            memory_bytes <= MEMORY_BYTES_MAX && (PAGES.is_some() || memory_bytes <= WHOLE_UNTOLD_BYTES_MAX);
        can_be_restored.then(|| Self { memory_bytes, contents: Contents::of(memory) })
    }

    /// Gives a memory what it held at first; says whether that was possible.
    pub(crate) fn restore(&self, memory: &mut [u8], known: &mut Known, ran: Ran) -> bool {
        // A memory that has grown cannot shrink again.
        if memory.len() != self.memory_bytes {
            return false;
        }
        let whole = 0..memory.len();
        let Some(shared) = PAGES.as_ref().filter(|_| memory.len() > WHOLE_BYTES_MAX) else {
            self.contents.restore(memory, whole);
            return true;
        };
        let restored = OWN_PAGES.with(|own| {
            let pages = own.as_ref().unwrap_or(shared);
            known.written(pages, memory, ran, WRITTEN_BYTES_MAX, |memory, range| self.contents.restore(memory, range))
        });
        restored.unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel does not tell which pages were written to; the instance is dropped");
            false
        })
    }
}

impl State {
    fn find<'a>(
        mut store: impl AsContextMut,
        instance: Instance,
        memory: &ModuleExport,
        globals: impl Iterator<Item = &'a ModuleExport>,
    ) -> Option<Self> {
        let memory = instance.get_module_export(&mut store, memory)?.into_memory()?;
        let globals = globals.map(|global| instance.get_module_export(&mut store, global)?.into_global());
        Some(Self { memory, globals: globals.collect::<Option<_>>()?, known: Known::default() })
    }
}

impl Contents {
    fn of(memory: &[u8]) -> Self {
        let start = memory.iter().position(|byte| *byte != 0).unwrap_or(0);
        let end = memory.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Self { start, bytes: memory[start..end.max(start)].into() }
    }

    fn restore(&self, memory: &mut [u8], range: Range<usize>) {
        let Range { start, end } = range;
        let from = self.start.clamp(start, end);
        let to = (self.start + self.bytes.len()).clamp(from, end);
        memory[start..from].fill(0);
        if from < to {
            memory[from..to].copy_from_slice(&self.bytes[from - self.start..to - self.start]);
        }
        memory[to..end].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmtime::{Engine, TypedFunc};

    use super::*;
    use crate::config::Config;
    use crate::engine;
    use crate::expose::expose;

    const WASM_PAGE: usize = 64 << 10;

    fn engine() -> Engine {
        let config = Config { instances_max: 16, ..Config::new("computer-1".parse().unwrap()) };
        engine::start(&config).unwrap()
    }

    /// A guest whose `step` does what it is told: it can reach every kind of state. A native one by its exports.
    fn guest(pages: usize, data: &[(usize, Vec<u8>)], items: &str) -> Vec<u8> {
        let data: String = data
            .iter()
            .map(|(at, bytes)| {
                let text: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
                format!("(data (i32.const {}) \"{text}\")", at % (pages * WASM_PAGE - bytes.len()))
            })
            .collect();
        let text = format!(
            r#"(module
            (import "nigh" "log_v1" (func $log (param i32 i32 i32)))
            (memory (export "memory") {pages})
            (table 4 funcref) (elem (i32.const 1) $one $two) (data $passive "some passive bytes") {data}
            (type $number (func (result i32)))
            (func $one (result i32) (i32.const 1)) (func $two (result i32) (i32.const 2))
            (global $a (mut i32) (i32.const 1)) (global $b (mut i64) (i64.const -2)) (global i32 (i32.const 7))
            (global $c (mut f32) (f32.const 3.5)) (global $d (mut f64) (f64.const nan))
            (global $e (mut v128) (v128.const i64x2 5 6))
            (func (export "nigh_alloc_v1") (param i32) (result i32) (i32.const 0))
            (func (export "nigh_handle_v1") (param i32 i32) (result i32) (i32.const 0))
            {items}
            (func $size (result i32) (i32.mul (memory.size) (i32.const 65536)))
            (func $in (param $at i32) (result i32) (i32.rem_u (local.get $at) (i32.sub (call $size) (i32.const 4096))))
            (func (export "step") (param $what i32) (param $x i32) (param $y i32) (result i64)
                (block $globals (block $copy (block $init (block $grow (block $fill (block $store
                    (br_table $store $fill $grow $init $copy $globals (local.get $what)))
                (i32.store8 (call $in (local.get $x)) (local.get $y))
                (return (i64.load (call $in (local.get $y)))))
                (memory.fill (call $in (local.get $x)) (local.get $y) (i32.and (local.get $y) (i32.const 4095)))
                (return (i64.load (call $in (local.get $y)))))
                (return (i64.extend_i32_s (memory.grow (i32.and (local.get $x) (i32.const 1))))))
                (memory.init $passive (call $in (local.get $x)) (i32.const 3) (i32.const 9))
                (return (i64.extend_i32_s (call_indirect (type $number) (i32.add (i32.const 1) (i32.and (local.get $y) (i32.const 1)))))))
                (memory.copy (call $in (local.get $x)) (call $in (local.get $y)) (i32.and (local.get $y) (i32.const 4095)))
                (return (i64.load (call $in (local.get $x)))))
                (global.set $a (i32.xor (global.get $a) (local.get $x)))
                (global.set $b (i64.add (global.get $b) (i64.extend_i32_u (local.get $y))))
                (global.set $c (f32.convert_i32_s (local.get $x)))
                (global.set $d (f64.add (global.get $d) (f64.const 1)))
                (global.set $e (i32x4.splat (local.get $x)))
                (i64.add (global.get $b) (i64.extend_i32_u (global.get $a)))))"#
        );
        wat::parse_str(text).unwrap()
    }

    struct Case {
        store: Store<()>,
        state: State,
        step: TypedFunc<(u32, u32, u32), i64>,
    }

    fn case(engine: &Engine, module: &Module, pristine: &Pristine) -> Case {
        let mut linker = Linker::new(engine);
        linker.define_unknown_imports_as_traps(module).unwrap();
        let mut store = Store::new(engine, ());
        store.set_epoch_deadline(1 << 40);
        let instance = linker.instantiate(&mut store, module).unwrap();
        let state = pristine.state_of(&mut store, instance).unwrap();
        let step = instance.get_typed_func(&mut store, "step").unwrap();
        Case { store, state, step }
    }

    impl Case {
        /// Everything that its code could see.
        fn whole(&mut self) -> (Vec<u8>, Vec<u128>) {
            let bits = |value: Val| match value {
                Val::I32(value) => u128::from(value.cast_unsigned()),
                Val::I64(value) => u128::from(value.cast_unsigned()),
                Val::F32(bits) => u128::from(bits),
                Val::F64(bits) => u128::from(bits),
                Val::V128(value) => value.as_u128(),
                _ => panic!("no number"),
            };
            let globals = self.state.globals.iter().map(|global| bits(global.get(&mut self.store))).collect();
            (self.state.memory.data(&self.store).to_vec(), globals)
        }

        /// Overwrites all that can be overwritten.
        fn poison(&mut self) {
            self.state.memory.data_mut(&mut self.store).fill(0xa5);
            for global in &self.state.globals {
                let value = match global.get(&mut self.store) {
                    Val::I32(_) => Val::I32(-1),
                    Val::I64(_) => Val::I64(-1),
                    Val::F32(_) => Val::F32(u32::MAX),
                    Val::F64(_) => Val::F64(u64::MAX),
                    _ => Val::V128(u128::MAX.into()),
                };
                global.set(&mut self.store, value).unwrap();
            }
        }

        /// Makes it as new on this thread, where all of its steps are taken.
        fn reset(&mut self, pristine: &Pristine) -> bool {
            pristine.restore(&mut self.state, Ran::here(), &mut self.store)
        }

        fn run(&mut self, steps: &[(u32, u32, u32)]) -> Vec<i64> {
            steps.iter().map(|step| self.step.call(&mut self.store, *step).unwrap()).collect()
        }
    }

    fn steps() -> impl Strategy<Value = Vec<(u32, u32, u32)>> {
        // Growing is rare, as it ends what there is to see.
        let what = prop_oneof![4 => 0u32..2, 1 => Just(2u32), 6 => 3u32..6];
        prop::collection::vec((what, any::<u32>(), any::<u32>()), 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn an_instance_reset_is_as_one_newly_made(
            pages in 1usize..12,
            data in prop::collection::vec((any::<usize>(), prop::collection::vec(any::<u8>(), 1..5000)), 0..3),
            calls in prop::collection::vec((steps(), any::<bool>()), 1..4),
        ) {
            static ENGINE: LazyLock<Engine> = LazyLock::new(engine);
            let module = Module::new(&ENGINE, expose(&guest(pages, &data, "")).unwrap()).unwrap();
            let Some(pristine) = Pristine::of(&module) else {
                prop_assert!(PAGES.is_none(), "this module can be reset");
                return Ok(());
            };
            let mut kept = case(&ENGINE, &module, &pristine);
            for (steps, is_poisoned) in calls {
                let mut new = case(&ENGINE, &module, &pristine);
                prop_assert_eq!(kept.whole(), new.whole());
                prop_assert_eq!(kept.run(&steps), new.run(&steps));
                prop_assert_eq!(kept.whole(), new.whole());
                if is_poisoned {
                    kept.poison();
                }
                let has_grown = kept.state.memory.size(&kept.store) > pages as u64;
                prop_assert_eq!(kept.reset(&pristine), !has_grown);
                if has_grown {
                    return Ok(());
                }
            }
            prop_assert_eq!(kept.whole(), case(&ENGINE, &module, &pristine).whole());
        }
    }

    #[test]
    fn an_instance_with_too_much_written_is_not_kept() {
        let engine = engine();
        let module = Module::new(&engine, expose(&guest(20, &[], "")).unwrap()).unwrap();
        let Some(pristine) = Pristine::of(&module) else { return };
        let mut kept = case(&engine, &module, &pristine);
        assert!(kept.reset(&pristine));
        kept.state.memory.data_mut(&mut kept.store)[..WRITTEN_BYTES_MAX].fill(1);
        assert!(kept.reset(&pristine));
        assert_eq!(kept.whole(), case(&engine, &module, &pristine).whole());
        kept.poison();
        assert!(!kept.reset(&pristine));
    }

    #[test]
    fn modules_with_other_state_or_a_large_memory_are_not_reset() {
        let engine = engine();
        let pristine = |module: &[u8]| Pristine::of(&Module::new(&engine, expose(module).unwrap()).unwrap());
        assert!(pristine(&guest(1, &[], "")).is_some());
        assert!(pristine(&guest(1, &[], "(func (data.drop $passive))")).is_none());
        assert!(
            pristine(&guest(1, &[], "(func $s (call $log (i32.const 0) (i32.const 0) (i32.const 0))) (start $s)"))
                .is_none()
        );
        assert!(pristine(&guest(MEMORY_BYTES_MAX / WASM_PAGE + 1, &[], "")).is_none());
    }
}
