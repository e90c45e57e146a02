//! Bulk instructions in pieces. The engine looks up before an instruction, not within, and one `memory.fill` may take
//! milliseconds: nobody else has the core meanwhile, and no limit of time holds. So before a module is compiled, each
//! such instruction that may be long is led through a function of our own, appended to the module, which does the same a
//! piece at a time in a loop; at its head the engine looks up. What is shorter than a piece is done where it stood.
//!
//! Nothing else changes: what is appended shifts no index, and what does not fit traps before anything is written, as
//! the whole would. Only what is compiled is rewritten; the module itself stays as it was deployed.

use std::borrow::Cow;
use std::collections::HashMap;

use wasm_encoder::{
    BlockType, CodeSection, Encode, Function, FunctionSection, InstructionSink, RawSection, SectionId, ValType,
};
use wasmparser::{
    BinaryReader, BinaryReaderError, CompositeInnerType, FunctionBody, Operator, Parser, Payload, TypeRef,
};

use crate::sections::taken_over;

/// A piece of memory: some microseconds, and some tens of them where the kernel has to find the pages.
const PIECE_BYTES: u32 = 64 << 10;
/// A piece of a table.
const PIECE_ELEMENTS: u32 = 4 << 10;
/// Instructions of one function that are judged where they stand; further ones are led away whatever their length, so that
/// a function made of nothing else grows by little.
const IN_PLACE_MAX: u32 = 1024;
/// Locals of a function at most, by the rules of WebAssembly's implementations.
const LOCALS_MAX: u32 = 50_000;
/// The first byte of a function's type.
const FUNCTION_TYPE: u8 = 0x60;

/// How much is done between two looks.
#[derive(Debug, Clone, Copy)]
struct Piece {
    bytes: u32,
    elements: u32,
}

/// The module or component as it is to be compiled.
///
/// # Errors
/// Where it is not valid.
pub fn in_pieces(module: &[u8]) -> Result<Cow<'_, [u8]>, BinaryReaderError> {
    rewrite(module, Piece { bytes: PIECE_BYTES, elements: PIECE_ELEMENTS })
}

fn rewrite(module: &[u8], piece: Piece) -> Result<Cow<'_, [u8]>, BinaryReaderError> {
    if Parser::is_component(module) { rewrite_component(module, piece) } else { Rewriter::new(piece).rewrite(module) }
}

/// Rewrites the modules within a component, and within the components in it.
fn rewrite_component(component: &[u8], piece: Piece) -> Result<Cow<'_, [u8]>, BinaryReaderError> {
    let rewritten = taken_over(component, |payload, data| match payload {
        Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => rewrite(data, piece),
        _ => Ok(Cow::Borrowed(data)),
    })?;
    Ok(Cow::Owned(rewritten.finish()))
}

/// An instruction of a length that is known only when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bulk {
    MemoryFill { memory: u32 },
    MemoryCopy { to: u32, from: u32 },
    MemoryInit { memory: u32, data: u32 },
    TableFill { table: u32 },
    TableCopy { to: u32, from: u32 },
    TableInit { table: u32, elements: u32 },
}

impl Bulk {
    fn of(operator: &Operator<'_>) -> Option<Self> {
        Some(match *operator {
            Operator::MemoryFill { mem } => Self::MemoryFill { memory: mem },
            Operator::MemoryCopy { dst_mem, src_mem } => Self::MemoryCopy { to: dst_mem, from: src_mem },
            Operator::MemoryInit { data_index, mem } => Self::MemoryInit { memory: mem, data: data_index },
            Operator::TableFill { table } => Self::TableFill { table },
            Operator::TableCopy { dst_table, src_table } => Self::TableCopy { to: dst_table, from: src_table },
            Operator::TableInit { elem_index, table } => Self::TableInit { table, elements: elem_index },
            _ => return None,
        })
    }

    /// The instruction itself.
    fn write(self, code: &mut InstructionSink<'_>) {
        match self {
            Self::MemoryFill { memory } => code.memory_fill(memory),
            Self::MemoryCopy { to, from } => code.memory_copy(to, from),
            Self::MemoryInit { memory, data } => code.memory_init(memory, data),
            Self::TableFill { table } => code.table_fill(table),
            Self::TableCopy { to, from } => code.table_copy(to, from),
            Self::TableInit { table, elements } => code.table_init(table, elements),
        };
    }

    /// It writes one value everywhere, so that it has no place to read from.
    fn fills(self) -> bool {
        matches!(self, Self::MemoryFill { .. } | Self::TableFill { .. })
    }

    /// It may read where it writes.
    fn copies(self) -> bool {
        matches!(self, Self::MemoryCopy { .. } | Self::TableCopy { .. })
    }

    fn piece(self, piece: Piece) -> u32 {
        match self {
            Self::MemoryFill { .. } | Self::MemoryCopy { .. } | Self::MemoryInit { .. } => piece.bytes,
            Self::TableFill { .. } | Self::TableCopy { .. } | Self::TableInit { .. } => piece.elements,
        }
    }

    /// The function that does the same in pieces: of where to, where from or what, and how much.
    fn function(self, piece: Piece) -> Function {
        let piece = self.piece(piece).cast_signed();
        let mut function = Function::new([(2, ValType::I32)]);
        let mut code = function.instructions();
        self.check(&mut code);
        if self.copies() {
            // What lies further on is written first, as it may be what is read first.
            code.local_get(TO).local_get(FROM).i32_gt_u().if_(BlockType::Empty);
            code.loop_(BlockType::Empty);
            self.last_piece(&mut code, piece);
            code.local_get(LENGTH).i32_const(piece).i32_sub().local_set(LENGTH);
            code.local_get(TO).local_get(LENGTH).i32_add().local_get(FROM).local_get(LENGTH).i32_add().i32_const(piece);
            self.write(&mut code);
            code.br(0).end().end();
        }
        code.loop_(BlockType::Empty);
        self.last_piece(&mut code, piece);
        code.local_get(TO).local_get(FROM).i32_const(piece);
        self.write(&mut code);
        code.local_get(TO).i32_const(piece).i32_add().local_set(TO);
        if !self.fills() {
            code.local_get(FROM).i32_const(piece).i32_add().local_set(FROM);
        }
        code.local_get(LENGTH).i32_const(piece).i32_sub().local_set(LENGTH);
        code.br(0).end().end();
        function
    }

    /// Traps where the whole does not fit: an instruction of no length at both ends traps just where that would.
    fn check(self, code: &mut InstructionSink<'_>) {
        code.local_get(TO).local_get(LENGTH).i32_add().local_tee(TO_END).local_get(TO).i32_lt_u();
        if !self.fills() {
            code.local_get(FROM).local_get(LENGTH).i32_add().local_tee(FROM_END).local_get(FROM).i32_lt_u().i32_or();
        }
        // An end that is beyond all numbers is beyond all memories too, but for one of just so many bytes.
        code.if_(BlockType::Empty).local_get(TO).local_get(FROM).local_get(LENGTH);
        self.write(code);
        code.return_().end();
        code.local_get(TO_END).local_get(if self.fills() { FROM } else { FROM_END }).i32_const(0);
        self.write(code);
    }

    /// Does all that is left and returns, where that is no more than a piece.
    fn last_piece(self, code: &mut InstructionSink<'_>, piece: i32) {
        code.local_get(LENGTH).i32_const(piece).i32_le_u().if_(BlockType::Empty);
        code.local_get(TO).local_get(FROM).local_get(LENGTH);
        self.write(code);
        code.return_().end();
    }
}

// Parameters of the functions appended, then their locals. For those that fill, `FROM` is what they fill with.
const TO: u32 = 0;
const FROM: u32 = 1;
const LENGTH: u32 = 2;
const TO_END: u32 = 3;
const FROM_END: u32 = 4;

/// Rewrites one module.
#[derive(Debug)]
struct Rewriter {
    piece: Piece,
    /// Parameters of each type.
    parameters: Vec<u32>,
    functions_imported: u32,
    /// The types of the functions defined.
    functions: Vec<u32>,
    /// How many of them have their code already.
    functions_done: usize,
    code: CodeSection,
    /// What is led through functions appended, in the order of those.
    led: Vec<Bulk>,
    /// Where each stands among them.
    places: HashMap<Bulk, usize>,
}

impl Rewriter {
    fn new(piece: Piece) -> Self {
        Self {
            piece,
            parameters: Vec::new(),
            functions_imported: 0,
            functions: Vec::new(),
            functions_done: 0,
            code: CodeSection::new(),
            led: Vec::new(),
            places: HashMap::new(),
        }
    }

    fn rewrite(mut self, module: &[u8]) -> Result<Cow<'_, [u8]>, BinaryReaderError> {
        let mut sections = Vec::new();
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload?;
            sections.extend(payload.as_section());
            self.take(payload)?;
        }
        if self.led.is_empty() {
            return Ok(Cow::Borrowed(module));
        }
        let mut rewritten = wasm_encoder::Module::new();
        for (id, range) in sections {
            let data = &module[range];
            if id == SectionId::Type as u8 {
                rewritten.section(&RawSection { id, data: &self.types(data)? });
            } else if id == SectionId::Function as u8 {
                rewritten.section(&self.function_section());
            } else if id == SectionId::Code as u8 {
                for bulk in &self.led {
                    self.code.function(&bulk.function(self.piece));
                }
                rewritten.section(&self.code);
            } else {
                rewritten.section(&RawSection { id, data });
            }
        }
        Ok(Cow::Owned(rewritten.finish()))
    }

    fn take(&mut self, payload: Payload<'_>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group?.into_types() {
                        let parameters = match &ty.composite_type.inner {
                            CompositeInnerType::Func(function) => function.params().len(),
                            _ => 0,
                        };
                        self.parameters.push(u32::try_from(parameters).unwrap_or(u32::MAX));
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.functions_imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::FunctionSection(section) => self.functions = section.into_iter().collect::<Result<_, _>>()?,
            Payload::CodeSectionEntry(body) => {
                match self.body(&body)? {
                    Some(rewritten) => self.code.raw(&rewritten),
                    None => self.code.raw(body.as_bytes()),
                };
                self.functions_done += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// The body of the next function, where anything in it is to be led away.
    fn body(&mut self, body: &FunctionBody<'_>) -> Result<Option<Vec<u8>>, BinaryReaderError> {
        let (bytes, begin) = (body.as_bytes(), body.range().start);
        let mut operators = body.get_operators_reader()?;
        let mut copied = operators.original_position() - begin;
        let (mut code, mut known_length) = (Vec::new(), None);
        let mut spare: Option<Spare> = None;
        while !operators.eof() {
            let at = operators.original_position() - begin;
            let operator = operators.read()?;
            if let Some(bulk) = Bulk::of(&operator)
                && known_length.is_none_or(|length| length > bulk.piece(self.piece))
            {
                let spare = match &mut spare {
                    Some(spare) => spare,
                    None => spare.insert(self.spare(body)?),
                };
                code.extend_from_slice(&bytes[copied..at]);
                copied = operators.original_position() - begin;
                self.lead(bulk, spare.take(known_length), &mut InstructionSink::new(&mut code));
            }
            known_length = match operator {
                Operator::I32Const { value } => Some(value.cast_unsigned()),
                _ => None,
            };
        }
        let Some(spare) = spare else { return Ok(None) };
        code.extend_from_slice(&bytes[copied..]);
        let mut rewritten = spare.locals;
        rewritten.extend(code);
        Ok(Some(rewritten))
    }

    /// Writes what stands for the instruction: where there is a local to hold its length, that is looked at first.
    fn lead(&mut self, bulk: Bulk, local: Option<u32>, code: &mut InstructionSink<'_>) {
        let led = *self.places.entry(bulk).or_insert_with(|| {
            self.led.push(bulk);
            self.led.len() - 1
        });
        let function = self.functions_imported + index(self.functions.len() + led);
        let Some(local) = local else {
            code.call(function);
            return;
        };
        code.local_tee(local).local_get(local).i32_const(bulk.piece(self.piece).cast_signed()).i32_le_u();
        code.if_(BlockType::FunctionType(self.type_of(bulk)));
        bulk.write(code);
        code.else_().call(function).end();
    }

    /// A local for the next function, where it may have one more.
    fn spare(&self, body: &FunctionBody<'_>) -> Result<Spare, BinaryReaderError> {
        let mut reader = body.get_locals_reader()?;
        let groups = reader.get_count();
        let begin = reader.original_position();
        let ty = self.functions.get(self.functions_done).copied().unwrap_or(u32::MAX);
        let mut local = self.parameters.get(ty as usize).copied().unwrap_or(0);
        for _ in 0..groups {
            local = local.saturating_add(reader.read()?.0);
        }
        let groups_bytes =
            &body.as_bytes()[begin - body.range().start..reader.original_position() - body.range().start];
        let is_room = local < LOCALS_MAX;
        let mut locals = Vec::new();
        (groups + u32::from(is_room)).encode(&mut locals);
        locals.extend_from_slice(groups_bytes);
        if is_room {
            1u32.encode(&mut locals);
            ValType::I32.encode(&mut locals);
        }
        Ok(Spare { locals, local, uses_left: if is_room { IN_PLACE_MAX } else { 0 } })
    }

    /// The module's types, and behind them those of the functions appended.
    fn types(&self, section: &[u8]) -> Result<Vec<u8>, BinaryReaderError> {
        let mut reader = BinaryReader::new(section, 0);
        let groups = reader.read_var_u32()?;
        let mut types = Vec::new();
        (groups + 2).encode(&mut types);
        types.extend_from_slice(&section[reader.original_position()..]);
        for what in [ValType::I32, ValType::FUNCREF] {
            types.push(FUNCTION_TYPE);
            [ValType::I32, what, ValType::I32].as_slice().encode(&mut types);
            [ValType::I32; 0].as_slice().encode(&mut types);
        }
        Ok(types)
    }

    /// The type of the function that an instruction is led through. Tables hold functions: with other references the engine takes none.
    fn type_of(&self, bulk: Bulk) -> u32 {
        index(self.parameters.len()) + u32::from(matches!(bulk, Bulk::TableFill { .. }))
    }

    fn function_section(&self) -> FunctionSection {
        let mut section = FunctionSection::new();
        let appended = self.led.iter().map(|bulk| self.type_of(*bulk));
        self.functions.iter().copied().chain(appended).for_each(|ty| {
            section.function(ty);
        });
        section
    }
}

/// A function's declarations of locals, with one more where there may be one.
#[derive(Debug)]
struct Spare {
    locals: Vec<u8>,
    local: u32,
    uses_left: u32,
}

impl Spare {
    /// The local, for an instruction whose length is to be looked at when it runs.
    fn take(&mut self, known_length: Option<u32>) -> Option<u32> {
        let is_left = known_length.is_none() && self.uses_left > 0;
        self.uses_left -= u32::from(is_left);
        is_left.then_some(self.local)
    }
}

/// An index of a module; there are never more than 32 bits have room for, as each takes a byte of the module or more.
fn index(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod tests;
