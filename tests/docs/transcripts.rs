//! What docs/cli.md shows the plugin print is what it prints: each command
//! there is shown with an answer that testdata/cli has to it, but for those
//! that are shown where they wait for a cluster.

use std::collections::BTreeMap;

use crate::pages;

/// Commands that wait for what a cluster does, or ask its segment. Their
/// answers depend on it; `tests/integration/plugin.rs` and
/// `tests/neighbours/probe.rs` give them.
const WAITING: [&str; 3] = [
    "$ kubectl l2lb check --probe --probe-limit 500",
    "$ kubectl l2lb drain node-1",
    "$ kubectl l2lb undrain node-1",
];

/// Commands and answers of a transcript, with the prompt.
fn answers(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for line in text.lines() {
        match all.last_mut() {
            Some(last) if !line.starts_with("$ ") => {
                last.push('\n');
                last.push_str(line);
            }
            _ => all.push(line.to_owned()),
        }
    }
    all.into_iter().map(|a| a.trim_end().to_owned()).collect()
}

#[test]
fn the_plugin_prints_what_its_page_shows() {
    let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for case in std::fs::read_dir(pages::root().join("testdata/cli")).unwrap() {
        let path = case.unwrap().path().join("expected.txt");
        for answer in answers(&std::fs::read_to_string(path).unwrap()) {
            let command = answer.lines().next().unwrap_or_default().to_owned();
            known.entry(command).or_default().push(answer);
        }
    }
    let page = pages::read("docs/cli.md".into());
    let (mut compared, mut waiting) = (0, Vec::new());
    for block in page.blocks.iter().filter(|b| b.what.language == "console") {
        for shown in answers(&block.what.text) {
            let command = shown.lines().next().unwrap_or_default();
            if WAITING.contains(&command) {
                waiting.push(command.to_owned());
                continue;
            }
            let Some(answers) = known.get(command) else {
                panic!(
                    "docs/cli.md:{}: nothing in testdata/cli says what {command} prints",
                    block.line
                );
            };
            assert!(
                answers.contains(&shown),
                "docs/cli.md:{}: {command} prints something else; testdata/cli has it",
                block.line
            );
            compared += 1;
        }
    }
    assert_eq!(waiting, WAITING, "commands that are not compared");
    assert!(compared > 5, "only {compared} answers were compared");
}
