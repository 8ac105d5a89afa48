//! What docs/cli.md shows the plugin print is what it prints: each command
//! there that testdata/cli has an answer to is shown with that answer.

use std::collections::BTreeMap;

use crate::pages;

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
    let mut compared = 0;
    for block in page.blocks.iter().filter(|b| b.what.language == "console") {
        for shown in answers(&block.what.text) {
            let command = shown.lines().next().unwrap_or_default();
            let Some(answers) = known.get(command) else {
                continue;
            };
            assert!(
                answers.contains(&shown),
                "docs/cli.md:{}: {command} prints something else; testdata/cli has it",
                block.line
            );
            compared += 1;
        }
    }
    assert!(compared > 5, "only {compared} answers were compared");
}
