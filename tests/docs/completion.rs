//! The completion scripts that docs/install.md installs: bash reads its own,
//! and completes by it; the others name every command and every flag, and are
//! read by their shells where these are installed.

use std::path::PathBuf;
use std::process::Command;

use crate::pages;

fn script(shell: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-l2lb"));
    let output = program.args(["completion", shell]).output().unwrap();
    assert!(output.status.success(), "{shell}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a shell prints of a script, which it must read to the end; nothing if
/// it is not installed.
fn run(shell: &str, args: &[&str], script: &str) -> Option<String> {
    let name = format!("completion-{shell}-{}-{}", args.len(), std::process::id());
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, script).unwrap();
    let output = Command::new(shell).args(args).arg(&file).output();
    std::fs::remove_file(&file).unwrap();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        other => other.unwrap(),
    };
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{shell}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn bash_completes_by_the_script() {
    let page = pages::read("docs/install.md".into());
    assert!(page.text.contains("kubectl l2lb completion bash >"));
    let script = script("bash");
    run("bash", &["-n"], &script).unwrap();
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
        run("bash", &[], &format!("{script}\n{asked}")).unwrap(),
        "status\n--watch\n"
    );
}

/// How the scripts for zsh and fish offer a command and a flag of it.
struct Form {
    shell: &'static str,
    /// By which the shell reads a script and does nothing.
    reads: &'static str,
    command: fn(&str) -> String,
    /// Without a value, and with one.
    flag: fn(&str) -> [String; 2],
}

#[test]
fn scripts_name_every_command_and_flag() {
    let forms = [
        Form {
            shell: "zsh",
            reads: "-n",
            command: |name| format!("({name})\n"),
            flag: |name| [format!("--{name}["), format!("--{name}=[")],
        },
        Form {
            shell: "fish",
            reads: "--no-execute",
            command: |name| format!(" -a \"{name}\""),
            flag: |name| [format!(" -l {name}\n"), format!(" -l {name} ")],
        },
    ];
    let program = l2lb::cli::command();
    for form in forms {
        let script = script(form.shell);
        assert!(script.contains("kubectl-l2lb"), "{script}");
        let mut flags = 0;
        for command in program.get_subcommands() {
            let wanted = (form.command)(command.get_name());
            assert!(script.contains(&wanted), "{}: {wanted}", form.shell);
            for argument in command.get_arguments() {
                let Some(name) = argument.get_long() else {
                    continue;
                };
                let wanted = (form.flag)(name);
                assert!(
                    wanted.iter().any(|form| script.contains(form)),
                    "{}: --{name}",
                    form.shell
                );
                flags += 1;
            }
        }
        assert!(flags > 40, "only {flags} flags");
        if run(form.shell, &[form.reads], &script).is_none() {
            eprintln!("{} is not installed, and has not read it", form.shell);
        }
    }
}
