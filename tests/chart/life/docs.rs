//! What the documentation has people say to kubectl, said to it: in blocks, and
//! in sentences where it is more than a verb. What would write is a dry run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use l2lb_lab::place;

use super::Life;
use super::manifests::{POOL, web};
use crate::pages;
use crate::rights::NAMESPACE;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Verbs that only read.
const READS: [&str; 5] = ["describe", "explain", "get", "logs", "wait"];
/// Verbs that write; each knows a dry run.
const WRITES: [&str; 10] = [
    "annotate", "apply", "cordon", "create", "delete", "drain", "label", "patch", "replace",
    "uncordon",
];

/// Plugins: `tests/docs` judges ours, and nobody those of others.
const PLUGINS: [&str; 2] = ["krew", "l2lb"];

/// What stands for something that the reader knows, besides `POD`.
const VALUES: [(&str, &str); 2] = [("NAME", "web"), ("NAME-0", "web-0")];

/// Commands that end with an error here: with what in it, and why.
const ERRORS: [(&str, &str, &str); 4] = [
    (
        "kubectl create namespace l2lb-system",
        "(AlreadyExists)",
        "the release is in it",
    ),
    (
        "kubectl --namespace l2lb-system logs deployment/l2lb-controller",
        LOGS,
        NO_LOGS,
    ),
    (
        "kubectl --namespace l2lb-system logs deployment/l2lb-webhook",
        LOGS,
        NO_LOGS,
    ),
    (
        "kubectl --namespace l2lb-system logs --previous POD",
        LOGS,
        NO_LOGS,
    ),
];
/// In the address by which the API server asks a kubelet for a log that exists.
const LOGS: &str = "/containerLogs/";
const NO_LOGS: &str = "the lab's kubelets hand out no logs";

/// Commands that are given with one flag more, and why.
const FLAGS: [(&str, &str, &str); 1] = [(
    "kubectl apply --server-side -f l2lb.yaml",
    "--force-conflicts",
    "helm has made the same objects here, with other values",
)];

/// Commands that may find nothing here, and why.
const EMPTY: [(&str, &str); 1] = [(
    "kubectl get events --namespace default --field-selector involvedObject.kind=L2AddressPool",
    "nothing happened to the pool that a person should know",
)];

/// How a command of a sentence may end that leaves out what goes without saying
/// there: a namespace, or the name of an object.
const UNFINISHED: [&str; 2] = ["(NotFound)", "no name was specified"];

/// Each of these has a mistake.
const WRONG: [&str; 12] = [
    "kubectl get l2bl",
    "kubectl gte l2lb",
    "kubectl get l2lb --all-namespace",
    "kubectl --namespace shop describe l2lb wbe",
    "kubectl --namespace shop get l2lb web -o jsonpath={.status.publicAdresses}",
    "kubectl get services --all-namespaces -l l2lb.io/pool=edgy",
    "kubectl annotate node node-1 l2lb.io/drian=true",
    "kubectl annotate node node-11 l2lb.io/drain=true",
    "kubectl drain node-1 --ignore-daemonset --delete-emptydir-data",
    "kubectl --namespace l2lb-system logs deployment/l2lb-controler",
    "kubectl apply -f pools.yaml",
    "kubectl create clusterrolebinding a --clusterrole=l2lb-operators --group=net",
];

impl Life {
    /// Each command can be given, and what differs here is what is listed above.
    pub(super) async fn docs_are_right(&self) -> Result<()> {
        let reader = Reader::new(self).await?;
        let (mut wrong, mut judged) = (Vec::new(), BTreeSet::new());
        for page in pages::all() {
            for (line, words, mention) in pages::commands_of(&page) {
                let verb = words.get(1).map(String::as_str);
                if words[0] != "kubectl" || verb.is_none_or(|verb| PLUGINS.contains(&verb)) {
                    continue;
                }
                if !judged.insert((words.clone(), mention)) {
                    continue;
                }
                if let Err(error) = reader.judge(&words, mention).await {
                    let (page, command) = (page.path.display(), words.join(" "));
                    wrong.push(format!("{page}:{line}: {command}: {error:#}"));
                }
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        let in_blocks = judged.iter().filter(|(_, mention)| !mention).count();
        ensure!(in_blocks > 25, "only {in_blocks} commands of kubectl");
        ensure_all_occur(&judged)?;
        for command in WRONG {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            let judgement = reader.judge(&words, false).await;
            ensure!(judgement.is_err(), "{command} is let pass");
        }
        eprintln!("{} commands of kubectl were given", judged.len());
        Ok(())
    }
}

/// Fails if something that is listed above does not occur any more.
fn ensure_all_occur(judged: &BTreeSet<(Vec<String>, bool)>) -> Result<()> {
    let commands: BTreeSet<String> = judged.iter().map(|(words, _)| words.join(" ")).collect();
    let errors = ERRORS.iter().map(|(command, ..)| *command);
    let flags = FLAGS.iter().map(|(command, ..)| *command);
    let empty = EMPTY.iter().map(|(command, _)| *command);
    for command in errors.chain(flags).chain(empty) {
        ensure!(commands.contains(command), "nothing says {command}");
    }
    let words: BTreeSet<&str> = judged
        .iter()
        .flat_map(|(words, _)| words.iter().map(String::as_str))
        .collect();
    let values = VALUES.iter().map(|(value, _)| *value);
    for word in values.chain(["POD"]).chain(FILES) {
        ensure!(words.contains(word), "nothing names {word}");
    }
    Ok(())
}

/// The files that a reader has.
const FILES: [&str; 3] = ["l2lb.yaml", "pool.yaml", "web.yaml"];

/// Somebody who does what the documentation says.
struct Reader<'a> {
    life: &'a Life,
    /// What stands for words in capitals.
    values: BTreeMap<&'static str, String>,
    files: BTreeMap<&'static str, PathBuf>,
    /// All of `src`, which knows the labels and annotations.
    sources: String,
}

impl<'a> Reader<'a> {
    async fn new(life: &'a Life) -> Result<Self> {
        // As docs/install.md renders it, but for the port of the release that is there.
        let registry = "--set=image.registry=registry.example.org/l2lb";
        let flags = ["--no-hooks", registry, super::PORTS];
        let rendered = life.lab.render_chart(&flags).await?;
        let mut files = BTreeMap::new();
        for (name, text) in FILES.into_iter().zip([rendered, POOL.into(), web(80, 60)]) {
            let path = Path::new("/run/lab").join(format!("docs-{name}"));
            std::fs::write(&path, text)?;
            files.insert(name, path);
        }
        let by_age = "--sort-by=.metadata.creationTimestamp";
        let pods = life
            .kubectl(&["get", "pods", "-n", NAMESPACE, "--no-headers", by_age])
            .await?;
        // The youngest: an older one may be about to go.
        let pod = pods.lines().next_back().and_then(|p| p.split(' ').next());
        let mut values = BTreeMap::from(VALUES.map(|(word, value)| (word, value.to_owned())));
        values.insert("POD", pod.context("the release has no pod")?.to_owned());
        let mut sources = String::new();
        read_sources(&place::workspace().join("src"), &mut sources)?;
        Ok(Self {
            life,
            values,
            files,
            sources,
        })
    }

    /// Says why a command cannot be given.
    async fn judge(&self, words: &[String], mention: bool) -> Result<()> {
        let command = words.join(" ");
        let at = verb_of(words).context("it has no verb")?;
        let verb = words[at].as_str();
        let writes = WRITES.contains(&verb);
        ensure!(
            writes || READS.contains(&verb),
            "whether {verb} writes is not known to this test"
        );
        self.names_exist(words).await?;
        let mut args = self.filled(&words[1..])?;
        if mention && words[at + 1..].iter().all(|word| word.starts_with('-')) {
            // Only its verb and its flags can be judged.
            args.push("--help".to_owned());
            return self.run(&args).await.map(drop);
        }
        if writes {
            args.push(dry_run(verb).to_owned());
        }
        let more = FLAGS.iter().filter(|(of, ..)| *of == command);
        args.extend(more.map(|(_, flag, _)| (*flag).to_owned()));
        let answer = self.run(&args).await;
        if let Some((_, text, _)) = ERRORS.iter().find(|(of, ..)| *of == command) {
            let Err(error) = answer else {
                bail!("it ends well, and not with {text}");
            };
            let error = format!("{error:#}");
            ensure!(error.contains(text), "{error}");
            return Ok(());
        }
        match answer {
            Err(error) => {
                let said = format!("{error:#}");
                let is_unfinished = UNFINISHED.iter().any(|text| said.contains(text));
                ensure!(mention && is_unfinished, "{said}");
            }
            Ok(found) => {
                let may_be_empty = EMPTY.iter().any(|(of, _)| *of == command);
                let is_empty = verb == "get" && found.trim().is_empty();
                ensure!(!is_empty || may_be_empty, "it finds nothing");
            }
        }
        Ok(())
    }

    async fn run(&self, args: &[String]) -> Result<String> {
        let kubectl = self.life.lab.kubectl();
        tokio::time::timeout(LIMIT, kubectl.run(args))
            .await
            .with_context(|| format!("it has not ended after {LIMIT:?}"))?
    }

    /// Labels and annotations of ours that are named are some, and so is a role:
    /// the API server takes any.
    async fn names_exist(&self, words: &[String]) -> Result<()> {
        for word in words {
            let keys = word.split([',', '=']).filter(|k| k.starts_with("l2lb.io/"));
            for key in keys.map(|key| key.trim_end_matches('-')) {
                let is_known = self.sources.contains(&format!("\"{key}\""));
                ensure!(is_known, "there is no label or annotation {key}");
            }
            if let Some(role) = word.strip_prefix("--clusterrole=") {
                self.life.kubectl(&["get", "clusterrole", role]).await?;
            }
        }
        Ok(())
    }

    /// The words with what stands for those in capitals, and for files.
    fn filled(&self, words: &[String]) -> Result<Vec<String>> {
        let mut filled = Vec::new();
        for (index, word) in words.iter().enumerate() {
            let is_file = index > 0 && words[index - 1] == "-f";
            filled.push(if is_file {
                let other = || place::workspace().join(word);
                let path = self.files.get(word.as_str()).cloned();
                let path = path.unwrap_or_else(other);
                ensure!(path.exists(), "there is no file {word}");
                path.display().to_string()
            } else if is_in_capitals(word) {
                let value = self.values.get(word.as_str()).cloned();
                value.with_context(|| format!("nothing stands for {word}"))?
            } else {
                word.clone()
            });
        }
        Ok(filled)
    }
}

/// The flag with which a verb changes nothing.
fn dry_run(verb: &str) -> &'static str {
    match verb {
        // The server counts an eviction against disruption budgets even so, and
        // kubectl waits for them without end.
        "drain" => "--dry-run=client",
        _ => "--dry-run=server",
    }
}

/// Where the verb is among the words: behind flags that all verbs have.
fn verb_of(words: &[String]) -> Option<usize> {
    let mut at = 1;
    loop {
        match words.get(at)?.as_str() {
            "-n" | "--namespace" => at += 2,
            flag if flag.starts_with('-') => at += 1,
            _ => return Some(at),
        }
    }
}

fn is_in_capitals(word: &str) -> bool {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
    word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(fits)
}

/// Every source below a folder, one behind the other.
fn read_sources(folder: &Path, text: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_sources(&path, text)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            text.push_str(&std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
