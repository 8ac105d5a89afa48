//! The Markdown files of the repository, taken apart.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::shell;

/// Something on a page, and the line that it begins on.
#[derive(Debug)]
pub struct At<T> {
    pub line: usize,
    pub what: T,
}

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    pub language: String,
    pub text: String,
}

/// A Markdown file.
#[derive(Debug)]
pub struct Page {
    /// Below the repository.
    pub path: PathBuf,
    pub text: String,
    pub links: Vec<At<String>>,
    pub blocks: Vec<At<Block>>,
    /// Code within a line.
    pub code: Vec<At<String>>,
    /// What a link's `#` may name.
    pub anchors: BTreeSet<String>,
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page for people who use or change this repository.
pub fn all() -> Vec<Page> {
    let mut paths = Vec::new();
    for folder in ["", "docs", "charts/l2lb"] {
        let Ok(entries) = std::fs::read_dir(root().join(folder)) else {
            continue;
        };
        let names = entries.map(|e| PathBuf::from(e.unwrap().file_name()));
        paths.extend(
            names
                .filter(|n| n.extension().is_some_and(|e| e == "md"))
                .map(|n| Path::new(folder).join(n)),
        );
    }
    paths.sort();
    let pages: Vec<Page> = paths.into_iter().map(read).collect();
    assert!(pages.len() > 10, "only {} pages were found", pages.len());
    pages
}

/// One page.
pub fn read(path: PathBuf) -> Page {
    let text = std::fs::read_to_string(root().join(&path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut page = Page {
        path,
        links: Vec::new(),
        blocks: Vec::new(),
        code: Vec::new(),
        anchors: BTreeSet::new(),
        text: String::new(),
    };
    let mut slugs: HashMap<String, usize> = HashMap::new();
    let (mut heading, mut block): (Option<String>, Option<Block>) = (None, None);
    let mut start = 0;
    for (event, range) in Parser::new_ext(&text, Options::ENABLE_TABLES).into_offset_iter() {
        let line = text[..range.start].lines().count().max(1);
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(At {
                    line,
                    what: dest_url.into_string(),
                });
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let slug = slug(&heading.take().unwrap_or_default());
                let seen = slugs.entry(slug.clone()).or_default();
                page.anchors.insert(match *seen {
                    0 => slug,
                    n => format!("{slug}-{n}"),
                });
                *seen += 1;
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                start = line;
                block = Some(Block {
                    language: match kind {
                        CodeBlockKind::Fenced(language) => language.into_string(),
                        CodeBlockKind::Indented => String::new(),
                    },
                    text: String::new(),
                });
            }
            Event::End(TagEnd::CodeBlock) => {
                page.blocks
                    .extend(block.take().map(|what| At { line: start, what }));
            }
            Event::Text(text) => {
                if let Some(block) = &mut block {
                    block.text.push_str(&text);
                } else if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::Code(code) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&code);
                }
                page.code.push(At {
                    line,
                    // A line break in code is a space to a reader.
                    what: code.split_whitespace().collect::<Vec<_>>().join(" "),
                });
            }
            _ => {}
        }
    }
    page.text = text;
    page
}

/// Every command on a page: its line, its words, and whether a sentence
/// mentions it.
pub fn commands_of(page: &Page) -> Vec<(usize, Vec<String>, bool)> {
    let mut found = Vec::new();
    for block in &page.blocks {
        let script = match block.what.language.as_str() {
            "console" => typed(&block.what.text),
            "sh" | "bash" => block.what.text.clone(),
            _ => continue,
        };
        found.extend(
            shell::commands(&script)
                .into_iter()
                .map(|words| (block.line, words, false)),
        );
    }
    for code in &page.code {
        found.extend(
            shell::commands(&code.what)
                .into_iter()
                .map(|words| (code.line, words, true)),
        );
    }
    found
}

/// What is typed in a console, without the answers.
pub fn typed(console: &str) -> String {
    let mut script = String::new();
    let mut goes_on = false;
    for line in console.lines() {
        let command = line.strip_prefix("$ ").or(goes_on.then_some(line));
        goes_on = command.is_some_and(|c| c.ends_with('\\'));
        script.extend(command.into_iter().flat_map(|c| [c, "\n"]));
    }
    script
}

/// The anchor of a heading, as forges make it.
fn slug(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn slugs_are_those_of_forges() {
    assert_eq!(slug("MetalLB before 0.16.2"), "metallb-before-0162");
    assert_eq!(slug("Each state of a node"), "each-state-of-a-node");
    assert_eq!(slug("`Pinned` is False"), "pinned-is-false");
}
