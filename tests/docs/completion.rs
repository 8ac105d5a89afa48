//! The completion script that docs/install.md installs: bash reads it, and
//! completes by it.

use std::process::Command;

use crate::pages;

fn script() -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-l2lb"));
    let output = program.args(["completion", "bash"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What bash prints of a script, which it must read to the end.
fn bash(args: &[&str], script: &str) -> String {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "completion-{}-{}",
        args.len(),
        std::process::id()
    ));
    std::fs::write(&file, script).unwrap();
    let mut bash = Command::new("bash");
    let output = bash.args(args).arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "bash: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_by_the_script() {
    let page = pages::read("docs/install.md".into());
    assert!(page.text.contains("kubectl l2lb completion bash >"));
    let script = script();
    bash(&["-n"], &script);
    // Typed: kubectl-l2lb st<TAB>, and kubectl-l2lb status --wat<TAB>.
    let asked = r#"
        typed() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            rule=($(complete -p kubectl-l2lb))
            while [[ ${rule[0]} != -F ]]; do rule=("${rule[@]:1}"); done
            "${rule[1]}" kubectl-l2lb "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[@]}"
        }
        typed kubectl-l2lb st
        typed kubectl-l2lb status --wat
    "#;
    assert_eq!(
        bash(&[], &format!("{script}\n{asked}")),
        "status\n--watch\n"
    );
}
