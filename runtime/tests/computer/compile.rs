//! Compiling in a process of its own: what it may take, and what happens to the others meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nigh_proto::module::ModuleError;
use nigh_proto::{Deployment, Digest, Kind, Reason};
use nigh_runtime::{CompilerProgram, Computer, Config, PrepareError};

use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction, MemArg, MemorySection, MemoryType,
    Module, TypeSection, ValType,
};

use crate::guests;
use crate::set_up::*;

fn config() -> Config {
    Config { compiler: Some(compiler()), ..crate::set_up::config() }
}

/// A module that takes a compiler long: functions of many values, most of them alive at once.
fn bomb(functions: u32, values: u32) -> Bytes {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    types.ty().function([ValType::I32, ValType::I32], [ValType::I32]);
    let (mut declared, mut code) = (FunctionSection::new(), CodeSection::new());
    for function in 0..functions {
        // The last one is the handler, the one before it makes room.
        let is_last = function + 1 == functions;
        declared.function(u32::from(is_last));
        code.function(&busy(function, values, if is_last { 2 } else { 1 }));
    }
    let mut memories = MemorySection::new();
    let (minimum, maximum) = (1, None);
    memories.memory(MemoryType { minimum, maximum, memory64: false, shared: false, page_size_log2: None });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("nigh_alloc_v1", ExportKind::Func, functions - 2);
    exports.export("nigh_handle_v1", ExportKind::Func, functions - 1);
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&memories).section(&exports).section(&code);
    module.finish().into()
}

/// A function that computes with 64 locals for long.
fn busy(seed: u32, values: u32, parameters: u32) -> Function {
    let mut function = Function::new([(64, ValType::I64)]);
    let local = |n: u32| parameters + n % 64;
    for n in 0..values {
        let constant = i64::from(n.wrapping_mul(7919).wrapping_add(seed));
        function
            .instruction(&Instruction::LocalGet(local(n * 31 + 5)))
            .instruction(&Instruction::I64Const(constant))
            .instruction(&Instruction::I64Add)
            .instruction(&Instruction::LocalGet(local(n + seed)))
            .instruction(&Instruction::I64Mul)
            .instruction(&Instruction::LocalSet(local(n)));
    }
    for n in 0..64 {
        function.instruction(&Instruction::I32Const(0)).instruction(&Instruction::LocalGet(local(n)));
        function.instruction(&Instruction::I64Store(MemArg { offset: u64::from(8 * n), align: 3, memory_index: 0 }));
    }
    function.instruction(&Instruction::I32Const(0)).instruction(&Instruction::End);
    function
}

async fn try_deploy_module(computer: &Computer, module: Bytes) -> Result<(), PrepareError> {
    let (digest, bytes) = (Digest::of(&module), module.len() as u64);
    let name = "bomb".parse().unwrap();
    computer.deploy(Deployment::new(name, digest, bytes, Kind::Native, limits(), Vec::new()), module).await
}

#[tokio::test]
async fn what_a_child_has_compiled_runs() {
    let computer = Computer::new(config()).unwrap();
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    assert_eq!(answer(&computer, "echo", "from a child").await, b"from a child");
    let program = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
    deploy(&computer, "program", program, limits()).await;
    assert_eq!(answer(&computer, "program", "").await, b"");
}

#[tokio::test]
async fn a_module_that_takes_too_long_is_given_up_and_others_go_on() {
    let short = Config { compile_cpu_max: Duration::from_secs(1), compiles_max: 1, ..config() };
    let computer = Computer::new(short).unwrap();
    let bombs = computer.clone();
    let slow = tokio::spawn(async move { try_deploy_module(&bombs, bomb(60, 20_000)).await });
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    assert_eq!(answer(&computer, "echo", "meanwhile").await, b"meanwhile");
    assert_eq!(slow.await.unwrap().unwrap_err(), PrepareError::CompileTime { limit_ms: 1000 });
    let (reason, error) = refusal(&computer, call("bomb", "")).await;
    assert_eq!(reason, Reason::NotReady);
    assert!(error.message.contains("1000 ms"), "{error}");
}

#[tokio::test]
async fn waiting_for_a_core_has_an_end_too() {
    let computer = Computer::new(Config { compile_timeout: Duration::from_millis(1), ..config() }).unwrap();
    let refused = try_deploy(&computer, "echo", &guests::echo(), limits()).await;
    assert_eq!(refused.unwrap_err(), PrepareError::CompileTime { limit_ms: 1 });
}

#[tokio::test]
async fn a_module_that_takes_too_much_memory_is_given_up() {
    let small = Config { compile_memory_bytes_max: 48 << 20, ..config() };
    let computer = Computer::new(small).unwrap();
    let refused = try_deploy_module(&computer, bomb(2, 60_000)).await.unwrap_err();
    // Where the stack of the compiling thread finds no room, the child says so in words.
    let is_told = matches!(&refused, PrepareError::CompileMemory { limit } if *limit == 48 << 20)
        || matches!(&refused, PrepareError::Compiler(said) if said.contains("memory") || said.contains("resource"));
    assert!(is_told, "{refused}");
    deploy(&computer, "echo", &guests::echo(), limits()).await;
    assert_eq!(answer(&computer, "echo", "small ones compile").await, b"small ones compile");
}

#[tokio::test]
async fn a_compiler_that_does_not_work_is_told_as_the_operators_matter() {
    for (path, arguments) in [("/no/such/program", vec![]), ("/bin/false", vec![]), ("/bin/echo", vec!["hello".into()])]
    {
        let program = CompilerProgram { path: path.into(), arguments };
        let computer = Computer::new(Config { compiler: Some(program), ..config() }).unwrap();
        let refused = try_deploy(&computer, "echo", &guests::echo(), limits()).await.unwrap_err();
        assert!(matches!(refused, PrepareError::Compiler(_)), "{path}: {refused}");
    }
}

#[tokio::test]
async fn the_same_module_is_compiled_once_however_many_ask() {
    let folder = tempfile::tempdir().unwrap();
    let computer = Computer::new(Config { cache: Some(folder.path().to_owned()), ..config() }).unwrap();
    let deploys: Vec<_> = (0..20)
        .map(|n| {
            let computer: Arc<Computer> = computer.clone();
            tokio::spawn(async move { deploy(&computer, &format!("echo-{n}"), &guests::echo(), limits()).await })
        })
        .collect();
    for deployed in deploys {
        deployed.await.unwrap();
    }
    assert_eq!(answer(&computer, "echo-19", "x").await, b"x");
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1 + 1, "one module and the key");
}

#[tokio::test]
async fn what_intake_refuses_reaches_no_compiler() {
    let unused = CompilerProgram { path: "/no/such/program".into(), arguments: Vec::new() };
    let computer = Computer::new(Config { compiler: Some(unused), ..config() }).unwrap();
    let refused = try_deploy(&computer, "nothing", "(module)", limits()).await.unwrap_err();
    assert_eq!(refused, PrepareError::Module(ModuleError::NoEntry));
}
