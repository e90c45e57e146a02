//! Compiling a module, within bounds on time and memory whatever the module is: in a process of its own, which is killed
//! when it is over them. What comes back is taken from that process's own pipe, whole or not at all.
//!
//! A module that takes long steps aside: it goes on in one of the places for slow ones, so that those behind it need not
//! wait for its end.

pub(crate) mod child;

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nigh_proto::{Digest, Kind};
use nigh_telemetry::Histogram;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmparser::BinaryReaderError;

use crate::bulk::in_pieces;
use crate::config::{CompilerProgram, Config};
use crate::engine::{Shape, Started};
use crate::error::PrepareError;
use crate::expose::{expose, expose_component};

use child::{ANSWER_CODE, Order};

/// What is done to a module before it is compiled: code of another number is compiled anew.
pub(crate) const RECIPE: u32 = 3;
/// Time after which a module that still compiles makes way for others.
const BRIEF_MAX: Duration = Duration::from_secs(2);
/// Bytes of compiled code at most; more is not worth keeping, and no honest module comes near.
pub(crate) const CODE_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a refusal or complaint that are read.
const WORDS_BYTES_MAX: u64 = 4 << 10;
/// Stack of a thread that compiles; the compiler recurses over deeply nested blocks.
const STACK_BYTES: usize = 16 << 20;

/// Who compiles.
#[derive(Debug)]
pub(crate) struct Compiler {
    modules: Target,
    components: Target,
    program: Option<CompilerProgram>,
    bounds: Bounds,
    brief: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    times: Histogram,
}

/// What code is compiled for.
#[derive(Debug)]
struct Target {
    engine: wasmtime::Engine,
    shape: Shape,
}

impl Target {
    fn of(started: &Started) -> Self {
        Self { engine: started.engine.clone(), shape: started.shape }
    }
}

/// What compiling one module may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    cpu: Duration,
    wall: Duration,
    memory_bytes: u64,
}

impl Compiler {
    pub(crate) fn new(modules: &Started, components: &Started, config: &Config) -> Self {
        if config.compiler.is_none() {
            tracing::info!("modules are compiled in this process, without bounds on time and memory");
        }
        let places = || Arc::new(Semaphore::new(config.compiles_max.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            modules: Target::of(modules),
            components: Target::of(components),
            program: config.compiler.clone(),
            bounds: Bounds {
                cpu: config.compile_cpu_max,
                wall: config.compile_timeout,
                memory_bytes: config.compile_memory_bytes_max,
            },
            brief: places(),
            slow: places(),
            times: Histogram::default(),
        }
    }

    /// The machine code of a module that has been judged.
    pub(crate) async fn compile(&self, digest: &Digest, kind: Kind, module: Bytes) -> Result<Vec<u8>, PrepareError> {
        let place = self.brief.clone().acquire_owned().await.map_err(|_| PrepareError::Stopping)?;
        let began = Instant::now();
        let work = async {
            match &self.program {
                Some(program) => self.in_child(program, kind, &module).await,
                None => in_this_process(&self.target(kind).engine, kind, module.clone()).await,
            }
        };
        let code = self.stepping_aside(place, work).await?;
        let took = began.elapsed();
        self.times.record(took);
        tracing::info!(module = %digest.short(), ms = took.as_millis(), "compiled");
        Ok(code)
    }

    fn target(&self, kind: Kind) -> &Target {
        if kind == Kind::Http { &self.components } else { &self.modules }
    }

    /// How long modules took to compile.
    pub(crate) fn times(&self) -> &Histogram {
        &self.times
    }

    /// Holds the place until the work ends, or until it has shown to be slow and a place for slow ones is free.
    async fn stepping_aside<T>(&self, place: OwnedSemaphorePermit, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let step_aside = async {
            tokio::time::sleep(BRIEF_MAX).await;
            self.slow.clone().acquire_owned().await
        };
        tokio::select! {
            // Work that is over is over, whatever the time.
            biased;
            done = &mut work => done,
            _slow = step_aside => {
                drop(place);
                work.await
            }
        }
    }

    async fn in_child(&self, program: &CompilerProgram, kind: Kind, module: &[u8]) -> Result<Vec<u8>, PrepareError> {
        let order = Order {
            kind,
            shape: self.target(kind).shape,
            cpu_seconds: self.bounds.cpu.as_secs().max(1),
            memory_bytes: self.bounds.memory_bytes,
            module_bytes: module.len() as u64,
        };
        // Nothing of this process's surroundings is needed to compile, so nothing of it is handed on.
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env_clear().current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let broken = |error: std::io::Error| {
            PrepareError::Compiler(format!("{} cannot be used: {error}", program.path.display()))
        };
        let mut child = command.spawn().map_err(broken)?;
        let (Some(mut orders), Some(answers), Some(words)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(PrepareError::Compiler("its pipes are missing".to_owned()));
        };
        let hand_over = async {
            // A child that ends early says why in its own way. The pipe stays open until it has: its end would tell the
            // child that nobody waits any more.
            if orders.write_all(&order.to_bytes()).await.is_ok() && orders.write_all(module).await.is_ok() {
                let _ = orders.flush().await;
            }
            orders
        };
        let talk = async {
            let (_orders, answer, said) = tokio::join!(hand_over, read_answer(answers), read_words(words));
            (answer, said, child.wait().await)
        };
        let Ok((answer, said, status)) = tokio::time::timeout(self.bounds.wall, talk).await else {
            return Err(PrepareError::CompileTime { limit_ms: millis(self.bounds.wall) });
        };
        self.judge(answer, &said, status.map_err(broken)?)
    }

    /// What the child's answer is worth: it counts only from one that ended well.
    fn judge(&self, answer: Option<Answer>, said: &str, status: ExitStatus) -> Result<Vec<u8>, PrepareError> {
        match (answer, status.code(), status.signal().and_then(rustix::process::Signal::from_named_raw)) {
            (Some(Answer::Code(code)), Some(0), _) => Ok(code),
            (Some(Answer::Refusal(why)), Some(0), _) => Err(PrepareError::Compile(why)),
            (_, _, Some(rustix::process::Signal::XCPU)) => {
                Err(PrepareError::CompileTime { limit_ms: millis(self.bounds.cpu) })
            }
            (_, _, Some(rustix::process::Signal::ABORT)) if said.contains("memory allocation of") => {
                Err(PrepareError::CompileMemory { limit: self.bounds.memory_bytes })
            }
            _ => Err(PrepareError::Compiler(format!("it ended with {status} and said {:?}", said.trim_end()))),
        }
    }
}

/// What a child answers.
#[derive(Debug)]
enum Answer {
    Code(Vec<u8>),
    Refusal(String),
}

/// A whole answer with nothing behind it, or nothing.
async fn read_answer(mut from: impl AsyncRead + Unpin) -> Option<Answer> {
    let tag = from.read_u8().await.ok()?;
    let len = from.read_u64_le().await.ok()?;
    let len_max = if tag == ANSWER_CODE { CODE_BYTES_MAX } else { WORDS_BYTES_MAX };
    if len > len_max {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).ok()?);
    (&mut from).take(len).read_to_end(&mut bytes).await.ok()?;
    let is_whole = bytes.len() as u64 == len && from.read_u8().await.is_err();
    let answer = if tag == ANSWER_CODE {
        Answer::Code(bytes)
    } else {
        Answer::Refusal(String::from_utf8_lossy(&bytes).into_owned())
    };
    is_whole.then_some(answer)
}

/// The begin of what a child complains about; the rest is read and dropped, so that it never waits for a reader.
async fn read_words(mut from: impl AsyncRead + Unpin) -> String {
    let mut words = Vec::new();
    let _ = (&mut from).take(WORDS_BYTES_MAX).read_to_end(&mut words).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    crate::logs::printable(&words)
}

/// Compiles with nothing but the compiler's own care, on a thread of its own.
async fn in_this_process(engine: &wasmtime::Engine, kind: Kind, module: Bytes) -> Result<Vec<u8>, PrepareError> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    let engine = engine.clone();
    let work = move || {
        // Fails only where nobody waits any more.
        let _ = sender.send(machine_code(&engine, kind, &module));
    };
    let thread = std::thread::Builder::new().name("nigh-compile".into()).stack_size(STACK_BYTES);
    thread.spawn(work).map_err(|error| PrepareError::Compiler(format!("no thread for it: {error}")))?;
    // A compiler that panics takes its thread with it, and no other module.
    let gave_up = |_| PrepareError::Compile("the compiler gave up on this module".to_owned());
    answer.await.map_err(gave_up)?.map_err(PrepareError::Compile)
}

/// What the compiler makes of a module, or why it refuses.
fn machine_code(engine: &wasmtime::Engine, kind: Kind, module: &[u8]) -> Result<Vec<u8>, String> {
    let invalid = |error: BinaryReaderError| error.to_string();
    let refused = |error: wasmtime::Error| format!("{error:#}");
    match kind {
        Kind::Native | Kind::Command => {
            let exposed = expose(module).map_err(invalid)?;
            engine.precompile_module(&in_pieces(&exposed).map_err(invalid)?).map_err(refused)
        }
        Kind::Http => {
            let exposed = expose_component(module).map_err(|error| error.to_string())?;
            engine.precompile_component(&in_pieces(&exposed).map_err(invalid)?).map_err(refused)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(bytes: &[u8]) -> Option<Answer> {
        read_answer(bytes).await
    }

    #[tokio::test]
    async fn only_a_whole_answer_counts() {
        let whole = [&[ANSWER_CODE][..], &4u64.to_le_bytes(), b"code"].concat();
        assert!(matches!(answer(&whole).await, Some(Answer::Code(code)) if code == b"code"));
        for cut in 0..whole.len() {
            assert!(answer(&whole[..cut]).await.is_none(), "cut at {cut}");
        }
        assert!(answer(&[&whole[..], b"x"].concat()).await.is_none(), "more than was announced");
        let endless = [&[ANSWER_CODE][..], &u64::MAX.to_le_bytes(), b"code"].concat();
        assert!(answer(&endless).await.is_none());
        let refusal = [&[ANSWER_CODE + 1][..], &2u64.to_le_bytes(), b"no"].concat();
        assert!(matches!(answer(&refusal).await, Some(Answer::Refusal(why)) if why == "no"));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_work_makes_way() {
        let config = Config { compiles_max: 1, ..Config::new("computer-1".parse().unwrap()) };
        let started = Started { engine: wasmtime::Engine::default(), shape: Shape::ROOMY, places: 1 };
        let compiler = Compiler::new(&started, &started, &config);
        let place = || compiler.brief.clone().acquire_owned();
        let slow = compiler.stepping_aside(place().await.unwrap(), tokio::time::sleep(100 * BRIEF_MAX));
        tokio::pin!(slow);
        let began = tokio::time::Instant::now();
        tokio::select! {
            () = &mut slow => panic!("the slow one is not over"),
            place = place() => assert!(place.is_ok()),
        }
        assert_eq!(began.elapsed(), BRIEF_MAX);
        // With the only place for slow ones taken, a second slow one keeps its own.
        let second = compiler.stepping_aside(place().await.unwrap(), tokio::time::sleep(50 * BRIEF_MAX));
        tokio::pin!(second);
        tokio::select! {
            () = &mut slow => panic!("the first is not over"),
            () = &mut second => {}
            _ = place() => panic!("nobody made way"),
        }
    }
}
