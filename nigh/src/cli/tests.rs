//! What the command line understands.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(words(line))
}

/// As a shell splits a line with double or single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let quote = ['"', '\''].into_iter().find(|quote| *quote == first);
        let body = if quote.is_some() { &rest[1..] } else { rest };
        let end = body.find(|c: char| quote.map_or(c.is_whitespace(), |quote| c == quote)).unwrap_or(body.len());
        words.push(body[..end].to_owned());
        rest = body[end..].strip_prefix(|c| Some(c) == quote).unwrap_or(&body[end..]).trim_start();
    }
    words
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_shows_examples_that_parse() {
    let mut shown = 0;
    let mut commands: Vec<clap::Command> = vec![Cli::command()];
    while let Some(command) = commands.pop() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "nigh {}", command.get_name());
        for line in help.lines().filter_map(|line| line.strip_prefix("  nigh ")) {
            // What follows wide space explains; what follows a pipe, `&&` or `>` is the shell's.
            let line = line.split("   ").next().unwrap().split(['|', '&', '>']).next().unwrap();
            match parse(&format!("nigh {line}")) {
                Ok(_) => shown += 1,
                Err(error) => panic!("nigh {line}: {error}"),
            }
        }
        // What is hidden is for programs.
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
    }
    assert!(shown > 30, "{shown} examples");
}

#[test]
fn what_is_not_understood_is_refused_with_the_usage() {
    for (line, kind) in [
        ("nigh", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("nigh fly", ErrorKind::InvalidSubcommand),
        ("nigh invoke --no-such-flag", ErrorKind::UnknownArgument),
        ("nigh invoke", ErrorKind::MissingRequiredArgument),
        ("nigh invoke Odd/Name", ErrorKind::ValueValidation),
        ("nigh invoke echo --data x --file y", ErrorKind::ArgumentConflict),
        ("nigh invoke echo - --data x", ErrorKind::ArgumentConflict),
        ("nigh invoke echo other", ErrorKind::InvalidValue),
        ("nigh invoke echo --timeout 5", ErrorKind::ValueValidation),
        ("nigh invoke echo --header novalue", ErrorKind::ValueValidation),
        ("nigh deploy x.wasm --memory lots", ErrorKind::ValueValidation),
        ("nigh deploy x.wasm --reuse 0", ErrorKind::ValueValidation),
        ("nigh deploy x.wasm --dir a=b", ErrorKind::ValueValidation),
        ("nigh up --computers 0", ErrorKind::ValueValidation),
        ("nigh up --any-ports --http-port 80", ErrorKind::ArgumentConflict),
        ("nigh broker --policy fastest", ErrorKind::ValueValidation),
        ("nigh broker --route echo", ErrorKind::ValueValidation),
        ("nigh rm", ErrorKind::MissingRequiredArgument),
        ("nigh ls --controller nowhere", ErrorKind::ValueValidation),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert!(error.use_stderr() || kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn options_of_every_command_may_stand_anywhere() {
    let cli = parse("nigh ls --json --controller 10.0.0.1:6475").unwrap();
    assert!(cli.global.json);
    assert_eq!(cli.global.controller.unwrap().first().as_str(), "10.0.0.1:6475");
    assert!(parse("nigh --json ls").unwrap().global.json);
}

#[test]
fn the_payload_comes_from_one_place() {
    for line in ["nigh invoke echo -", "nigh invoke echo --data -v", "nigh invoke echo --file p -o q -v"] {
        // A value that looks like an option is refused rather than taken.
        assert_eq!(parse(line).is_ok(), line != "nigh invoke echo --data -v", "{line}");
    }
}
