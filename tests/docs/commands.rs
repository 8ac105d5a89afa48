//! Commands in the documentation can be given: those of our programs are read
//! by the programs' own parsers, and what is said to helm, make and cargo
//! names values, targets and tests that exist.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde_json::Value;

use crate::{pages, shell};

/// What commands are held against.
struct Known {
    /// Our programs, by the name that they are called by.
    programs: BTreeMap<&'static str, clap::Command>,
    /// The chart's values.
    values: Value,
    /// The Makefile's targets.
    targets: BTreeSet<String>,
}

impl Known {
    fn load() -> Self {
        let read = |path: &str| std::fs::read_to_string(pages::root().join(path)).unwrap();
        let makefile = read("Makefile");
        let targets = makefile.lines().filter_map(|line| {
            let (target, _) = line.split_once(':')?;
            let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
            (!target.is_empty() && target.chars().all(is_name)).then(|| target.to_owned())
        });
        Self {
            programs: BTreeMap::from([
                ("kubectl-l2lb", l2lb::cli::command()),
                ("l2lb-controller", l2lb::controller::Args::command()),
                ("l2lb-webhook", l2lb_webhook::Args::command()),
            ]),
            values: serde_saphyr::from_str(&read("charts/l2lb/values.yaml")).unwrap(),
            targets: targets.collect(),
        }
    }

    /// What is wrong with a command; the program whose command was right; or
    /// nothing, for a program that is not ours to know. A mention in a
    /// sentence may leave out what a command needs.
    fn judge(&self, words: &[String], mention: bool) -> Result<Option<&'static str>, String> {
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        if words.starts_with(&["kubectl", "l2lb"]) {
            words.splice(..2, ["kubectl-l2lb"]);
        }
        let Some(name) = words.first().copied() else {
            return Ok(None);
        };
        if let Some((name, program)) = self.programs.get_key_value(name) {
            return parse(program, &words, mention).map(|()| Some(*name));
        }
        match name {
            "helm" => self.helm(&words[1..]).map(|()| Some("helm")),
            "make" => self.make(&words[1..]).map(|()| Some("make")),
            "cargo" => cargo(&words[1..]).map(|()| Some("cargo")),
            _ => Ok(None),
        }
    }

    /// Charts are there, and values that are set exist.
    fn helm(&self, words: &[&str]) -> Result<(), String> {
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            if word.starts_with("charts/") && !pages::root().join(word).exists() {
                return Err(format!("there is no {word}"));
            }
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word, None),
            };
            if !["--set", "--set-string", "--set-json", "--set-file"].contains(&flag) {
                continue;
            }
            let assignment = value.or_else(|| words.next()).unwrap_or_default();
            let (path, _) = assignment
                .split_once('=')
                .ok_or_else(|| format!("{flag} {assignment} sets nothing"))?;
            if !self.has_value(path) {
                return Err(format!("the chart has no value {path}"));
            }
        }
        Ok(())
    }

    /// Whether the chart has a value. What is below an empty one is its user's.
    fn has_value(&self, path: &str) -> bool {
        let mut value = &self.values;
        for key in path.split(['.', '[']) {
            let is_free =
                value.as_object().is_some_and(serde_json::Map::is_empty) || value.is_array();
            if is_free {
                return true;
            }
            match value.get(key) {
                Some(below) => value = below,
                None => return false,
            }
        }
        true
    }

    fn make(&self, words: &[&str]) -> Result<(), String> {
        let targets = words
            .iter()
            .filter(|w| !w.starts_with('-') && !w.contains('='));
        for target in targets {
            if !self.targets.contains(*target) {
                return Err(format!("the Makefile has no target {target}"));
            }
        }
        Ok(())
    }
}

/// Tests that are named exist.
fn cargo(words: &[&str]) -> Result<(), String> {
    for pair in words.windows(2).filter(|pair| pair[0] == "--test") {
        let tests = pages::root().join("tests");
        let files = [format!("{}.rs", pair[1]), format!("{}/main.rs", pair[1])];
        if !files.iter().any(|file| tests.join(file).exists()) {
            return Err(format!("there is no test {}", pair[1]));
        }
    }
    Ok(())
}

/// Whether a word stands for something that the reader knows: NODE, FILE.
fn is_placeholder(word: &str) -> bool {
    let word = word.trim_end_matches('.');
    !word.is_empty()
        && word
            .chars()
            .all(|c| c.is_ascii_uppercase() || c == '_' || c == '-')
}

fn parse(program: &clap::Command, words: &[&str], mention: bool) -> Result<(), String> {
    // "..." is for more of the same.
    let words = words.iter().filter(|w| **w != "...");
    let Err(error) = program.clone().try_get_matches_from(words) else {
        return Ok(());
    };
    let said_of = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => word.as_str(),
        _ => "",
    };
    let is_fine = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::InvalidSubcommand => is_placeholder(said_of(ContextKind::InvalidSubcommand)),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            is_placeholder(said_of(ContextKind::InvalidValue))
        }
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => mention,
        _ => false,
    };
    if is_fine {
        Ok(())
    } else {
        Err(error.to_string())
    }
}

#[test]
fn commands_can_be_given() {
    let known = Known::load();
    let (mut wrong, mut right) = (Vec::new(), BTreeMap::new());
    for page in pages::all() {
        for (line, words, mention) in pages::commands_of(&page) {
            match known.judge(&words, mention) {
                Ok(Some(program)) => *right.entry(program).or_insert(0) += 1,
                Ok(None) => {}
                Err(why) => wrong.push(format!(
                    "{}:{line}: {}: {why}",
                    page.path.display(),
                    words.join(" ")
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (program, least) in [("kubectl-l2lb", 30), ("helm", 8), ("make", 10)] {
        let count = right.get(program).copied().unwrap_or(0);
        assert!(count >= least, "only {count} commands of {program}");
    }
}

/// The chart's value that a sentence names, as `webhook.hostNetwork` or
/// `crds.install=false`, by its first part.
fn value_named<'a>(known: &Known, code: &'a str) -> Option<&'a str> {
    let path = code.split('=').next()?;
    let (first, rest) = path.split_once('.')?;
    let is_path = rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    // metallb.io is a group of the API.
    (is_path && rest != "io" && known.values.get(first).is_some()).then_some(path)
}

#[test]
fn values_that_are_named_exist() {
    let known = Known::load();
    let mut count = 0;
    for page in pages::all() {
        for code in &page.code {
            let Some(path) = value_named(&known, &code.what) else {
                continue;
            };
            count += 1;
            assert!(
                known.has_value(path),
                "{}:{}: the chart has no value {path}",
                page.path.display(),
                code.line
            );
        }
    }
    assert!(count > 20, "only {count} values are named");
    let wrong = value_named(&known, "webhook.hostNetwrk=true").unwrap();
    assert!(!known.has_value(wrong));
}

#[test]
fn what_is_wrong_is_found() {
    let known = Known::load();
    let judge = |line: &str| {
        let commands = shell::commands(&pages::typed(line));
        assert!(!commands.is_empty(), "{line}");
        commands
            .iter()
            .try_for_each(|words| known.judge(words, false).map(drop))
    };
    for right in [
        "$ kubectl l2lb drain NODE",
        "$ kubectl l2lb COMMAND --help",
        "$ kubectl get nodes -o yaml | kubectl-l2lb render -f - -f FILE > l2lb.yaml",
        "$ kubectl l2lb status -A --interval SECONDS\nNODE --flag\n",
        "$ l2lb-controller --metallb-namespace metallb-system",
        "$ helm install l2lb charts/l2lb --set monitoring.podMonitor.labels.release=a",
        "$ make -j2 test",
    ] {
        assert_eq!(judge(right), Ok(()), "{right}");
    }
    for wrong in [
        "$ kubectl l2lb drian NODE",
        "$ kubectl l2lb drain",
        "$ kubectl get nodes | kubectl l2lb render --flie -",
        "$ kubectl l2lb status -A --interval soon",
        "$ kubectl l2lb status \\\n  --al",
        "$ l2lb-controller --metalb-namespace metallb-system",
        "$ l2lb-webhook --secert=a",
        "$ helm upgrade l2lb charts/l2lb --set monitoring.podmonitor.enabled=true",
        "$ helm upgrade l2lb charts/l2lb --set=holdDwon=3s",
        "$ helm upgrade l2lb chart/../charts/l3lb charts/l3lb",
        "$ make tset",
        "$ cargo test --test gloden",
    ] {
        assert!(judge(wrong).is_err(), "{wrong}");
    }
}
