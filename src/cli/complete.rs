//! Completion of `kubectl l2lb ...`: kubectl asks a program of the name
//! `kubectl_complete-l2lb` (here a link to this one) what may come next, with
//! the words so far as arguments, and reads a candidate a line and, last, a
//! colon with a number. Source: `k8s.io/kubectl/pkg/cmd/plugin`.

mod live;

use clap::{Arg, Command};

use live::Thing;
pub(super) use live::ask;

/// The name that kubectl calls.
pub(super) const NAME: &str = "kubectl_complete-l2lb";

/// Shells complete files then.
const FILES: &str = ":0";
/// Shells complete nothing else.
const NOTHING_ELSE: &str = ":4";

/// The answer to kubectl; the last word is the one to complete. `ask` names the
/// things of a cluster, with the words so far.
pub(super) fn answer(
    command: &Command,
    words: &[String],
    ask: impl Fn(Thing, &[String]) -> Vec<String>,
) -> String {
    let (so_far, current) = match words.split_last() {
        Some((current, so_far)) => (so_far, current.as_str()),
        None => (&[][..], ""),
    };
    let place = Place::after(command, so_far);
    let sub = place.command;
    let mut wanted = current;
    let mut directive = NOTHING_ELSE;
    let mut values = |argument: &Arg| {
        if is_file(argument) {
            directive = FILES;
        }
        match live::thing(sub.map_or("", Command::get_name), argument) {
            Some(thing) => ask(thing, so_far),
            None => possible(argument),
        }
    };
    let candidates: Vec<String> = if let Some(option) = place.must_be_of {
        values(option)
    } else if let Some((name, value)) = current.split_once('=')
        && let Some(option) = sub.and_then(|sub| option(sub, name))
    {
        // Shells put the option back in front.
        wanted = value;
        values(option)
    } else if current.starts_with('-') {
        options(sub.unwrap_or(command))
    } else if let Some(option) = place.may_be_of {
        values(option)
    } else {
        match sub {
            None => commands(command),
            Some(sub) => sub
                .get_positionals()
                .nth(place.positionals)
                .map_or_else(Vec::new, values),
        }
    };
    let mut text = String::new();
    for candidate in candidates.iter().filter(|c| c.starts_with(wanted)) {
        text += &format!("{candidate}\n");
    }
    text + directive + "\n"
}

/// What the words so far leave to say.
#[derive(Default)]
struct Place<'a> {
    command: Option<&'a Command>,
    /// The option that has no value yet, and needs one.
    must_be_of: Option<&'a Arg>,
    /// The option that has one, and takes more.
    may_be_of: Option<&'a Arg>,
    /// How many arguments were given that belong to no option.
    positionals: usize,
}

impl<'a> Place<'a> {
    fn after(command: &'a Command, words: &[String]) -> Self {
        let mut place = Self::default();
        for word in words {
            let Some(sub) = place.command else {
                place.command = command.find_subcommand(word);
                continue;
            };
            // A lone dash is standard input.
            if word.starts_with('-') && word != "-" {
                place.must_be_of = option(sub, word);
                place.may_be_of = None;
            } else if let Some(option) = place.must_be_of.take() {
                place.may_be_of = Some(option).filter(|o| takes_several(o));
            } else if place.may_be_of.is_none() {
                place.positionals += 1;
            }
        }
        place
    }
}

fn commands(command: &Command) -> Vec<String> {
    let names = command.get_subcommands().map(Command::get_name);
    names.map(str::to_owned).collect()
}

fn options(command: &Command) -> Vec<String> {
    let names = command.get_arguments().filter_map(Arg::get_long);
    names.map(|long| format!("--{long}")).collect()
}

/// The values of an argument that the program knows by itself.
fn possible(argument: &Arg) -> Vec<String> {
    let values = argument.get_possible_values();
    values.iter().map(|v| v.get_name().to_owned()).collect()
}

/// The option that a word names, if it takes a value.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .filter(|a| a.get_action().takes_values() && !a.is_positional())
        .find(|a| {
            let long = a.get_long().is_some_and(|l| word == format!("--{l}"));
            long || a.get_short().is_some_and(|s| word == format!("-{s}"))
        })
}

/// Whether an option takes several values in a row.
fn takes_several(option: &Arg) -> bool {
    option.get_num_args().is_some_and(|n| n.max_values() > 1)
}

fn is_file(argument: &Arg) -> bool {
    let names = argument.get_value_names().unwrap_or_default();
    names.iter().any(|n| n.as_str().contains("FILE"))
}

#[cfg(test)]
mod tests;
