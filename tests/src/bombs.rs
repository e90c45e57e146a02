//! Modules made to be a burden for whoever compiles them. Each may be refused or take its time, but must not hold anybody else.

use bytes::Bytes;
use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction, MemorySection, MemoryType, Module,
    TypeSection, ValType,
};

use crate::guests;
use crate::hostile::ANSWER;

/// One of them.
#[derive(Debug, Clone)]
pub struct Bomb {
    /// What makes it one.
    pub name: &'static str,
    /// The module itself.
    pub module: Bytes,
    /// What its refusal says, where it cannot but be refused by a computer that gives a module a second of processor time.
    pub refusal: Option<&'static str>,
}

/// Bytes of a function that no compiler is given.
const OVER_LONG: u32 = (2 << 20) + 1;

/// All of them.
pub fn all() -> Vec<Bomb> {
    let bomb = |name, module, refusal| Bomb { name, module, refusal };
    let mut all = vec![
        bomb(
            "over-long",
            with_functions(1, |function| (0..OVER_LONG).for_each(|_| push(function, &Instruction::Nop))),
            Some("bytes"),
        ),
        bomb(
            "much-work",
            with_functions(60, |function| (0..20_000).for_each(|n| compute(function, n))),
            Some("compile"),
        ),
    ];
    all.extend(of_text().into_iter().map(|(name, module)| bomb(name, module, None)));
    all
}

/// Those that need no more than a few thousand words of text.
fn of_text() -> [(&'static str, Bytes); 6] {
    let text = |fields: String| guests::native(&fields, ANSWER);
    let repeated = |count: usize, what: &str| what.repeat(count);
    let local =
        "(local.set $x (i64.add (i64.mul (local.get $x) (local.get $x)) (i64.load (i32.wrap_i64 (local.get $x)))))";
    let nested =
        |depth: usize| format!("{} local.get $x br_if 0 {}", repeated(depth, "block "), repeated(depth, "end "));
    let targets = repeated(20_000, "0 ");
    [
        ("a-huge-function", text(format!("(func (local $x i64) {})", repeated(4_000, local)))),
        (
            "many-locals",
            text(repeated(4, &format!("(func (local {}) (local.set 7 (i64.const 1)))", repeated(40_000, "i64 ")))),
        ),
        (
            "giant-tables-of-branches",
            text(repeated(2, &format!("(func (param i32) (block (br_table {targets} (local.get 0))))"))),
        ),
        ("deep-nesting", text(format!("(func (param $x i32) {})", nested(20_000)))),
        ("many-types", text((0..5_000).map(type_of_15).collect())),
        ("many-functions", text(repeated(8_000, "(func (result i32) i32.const 7)"))),
    ]
}

/// A type that no other number has.
fn type_of_15(number: u32) -> String {
    let params: String = (0..15).map(|bit| if number >> bit & 1 == 0 { " i32" } else { " i64" }).collect();
    format!("(type (func (param{params})))")
}

fn push(function: &mut Function, instruction: &Instruction<'_>) {
    function.instruction(instruction);
}

/// Values that are alive for long, which is what a compiler takes its time for.
fn compute(function: &mut Function, n: u32) {
    let local = |n: u32| Instruction::LocalGet(2 + n % 64);
    push(function, &local(n * 31 + 5));
    push(function, &Instruction::I64Const(i64::from(n.wrapping_mul(7919))));
    push(function, &Instruction::I64Add);
    push(function, &local(n));
    push(function, &Instruction::I64Mul);
    push(function, &Instruction::LocalSet(2 + n % 64));
}

/// A native function with so many others beside it, each with 64 numbers to compute with.
fn with_functions(count: u32, body: impl Fn(&mut Function)) -> Bytes {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    types.ty().function([ValType::I32, ValType::I32], [ValType::I32]);
    let (mut declared, mut code) = (FunctionSection::new(), CodeSection::new());
    for kind in std::iter::repeat_n(1, count as usize).chain([0, 1]) {
        declared.function(kind);
        let mut function = Function::new([(64, ValType::I64)]);
        if declared.len() <= count {
            body(&mut function);
        }
        push(&mut function, &Instruction::I32Const(1024));
        push(&mut function, &Instruction::End);
        code.function(&function);
    }
    let mut memories = MemorySection::new();
    let (minimum, maximum) = (1, None);
    memories.memory(MemoryType { minimum, maximum, memory64: false, shared: false, page_size_log2: None });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("nigh_alloc_v1", ExportKind::Func, count);
    exports.export("nigh_handle_v1", ExportKind::Func, count + 1);
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&memories).section(&exports).section(&code);
    module.finish().into()
}
