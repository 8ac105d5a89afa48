//! Completion of `kubectl l2lb ...`: kubectl asks a program of the name
//! `kubectl_complete-l2lb` (here a link to this one) what may come next, with
//! the words so far as arguments, and reads a candidate a line and, last, a
//! colon with a number. Source: `k8s.io/kubectl/pkg/cmd/plugin`.

use clap::{Arg, Command};

/// The name that kubectl calls.
pub(super) const NAME: &str = "kubectl_complete-l2lb";

/// Shells complete files then.
const FILES: &str = ":0";
/// Shells complete nothing else.
const NOTHING_ELSE: &str = ":4";

/// The answer to kubectl; the last word is the one to complete.
pub(super) fn answer(command: &Command, words: &[String]) -> String {
    let (so_far, current) = match words.split_last() {
        Some((current, so_far)) => (so_far, current.as_str()),
        None => (&[][..], ""),
    };
    let sub = so_far
        .iter()
        .find_map(|word| command.find_subcommand(word.as_str()));
    let previous = so_far.last().and_then(|word| option(sub?, word));
    let mut directive = NOTHING_ELSE;
    let candidates: Vec<String> = if let Some(option) = previous {
        let values = option.get_possible_values();
        if values.is_empty() && is_file(option) {
            directive = FILES;
        }
        values.iter().map(|v| v.get_name().to_owned()).collect()
    } else if current.starts_with('-') {
        let arguments = sub.unwrap_or(command).get_arguments();
        arguments
            .filter_map(|a| a.get_long())
            .map(|long| format!("--{long}"))
            .collect()
    } else {
        match sub {
            None => command
                .get_subcommands()
                .map(|c| c.get_name().to_owned())
                .collect(),
            Some(sub) => sub
                .get_positionals()
                .flat_map(Arg::get_possible_values)
                .map(|v| v.get_name().to_owned())
                .collect(),
        }
    };
    let mut text = String::new();
    for candidate in candidates.iter().filter(|c| c.starts_with(current)) {
        text += &format!("{candidate}\n");
    }
    text + directive + "\n"
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

fn is_file(option: &Arg) -> bool {
    let names = option.get_value_names().unwrap_or_default();
    names.iter().any(|n| n.as_str().contains("FILE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> String {
        let mut command = crate::cli::command();
        command.build();
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        answer(&command, &words)
    }

    #[test]
    fn words_are_completed_by_what_is_there_already() {
        assert_eq!(of(&["st"]), "status\n:4\n");
        assert!(of(&[""]).contains("undrain\n"));
        assert!(of(&["status", "--wa"]).contains("--watch\n"));
        assert_eq!(of(&["status", "-o", "w"]), "wide\n:4\n");
        assert_eq!(of(&["diff", "-f", ""]), ":0\n");
        assert_eq!(of(&["completion", "ba"]), "bash\n:4\n");
        assert_eq!(of(&["why", "203"]), ":4\n");
    }
}
