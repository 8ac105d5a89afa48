use super::*;

/// The answer, in a cluster that has one of each thing, and names what it was asked.
fn of(words: &[&str]) -> String {
    let mut command = crate::cli::command();
    command.build();
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    answer(&command, &words, |thing, _| vec![format!("{thing:?}")])
}

#[test]
fn words_are_completed_by_what_is_there_already() {
    assert_eq!(of(&["st"]), "status\n:4\n");
    assert!(of(&[""]).contains("undrain\n"));
    assert!(of(&["status", "--wa"]).contains("--watch\n"));
    assert_eq!(of(&["status", "-o", "w"]), "wide\n:4\n");
    assert_eq!(of(&["completion", "ba"]), "bash\n:4\n");
    assert_eq!(of(&["why", "203"]), ":4\n");
}

#[test]
fn values_are_completed_behind_an_equals_sign() {
    for option in ["--output=", "-o="] {
        assert_eq!(of(&["status", &format!("{option}w")]), "wide\n:4\n");
        let all = of(&["status", option]);
        assert_eq!(all, "table\nwide\njson\nyaml\n:4\n");
    }
    assert_eq!(of(&["diff", "--filename=a"]), ":0\n");
    assert_eq!(of(&["status", "--nothing=w"]), ":4\n");
}

#[test]
fn files_are_completed_as_long_as_an_option_takes_them() {
    for before in [&["-f"][..], &["-f", "a"], &["-f", "a", "b"], &["-f", "-"]] {
        let words = [&["lint"], before, &[""]].concat();
        assert_eq!(of(&words), ":0\n", "{words:?}");
    }
    assert!(of(&["lint", "-f", "a", "--from"]).contains("--from-cluster\n"));
    assert_eq!(of(&["lint", "-f", "a", "-o", "s"]), "sarif\n:4\n");
    assert_eq!(of(&["lint", "-f", "a", "-o", "json", ""]), ":4\n");
    // One file at a time, or none.
    assert_eq!(of(&["render", "-f", "a", ""]), ":4\n");
    assert_eq!(of(&["status", "-A", "--kubeconfig", ""]), ":0\n");
}

#[test]
fn things_of_the_cluster_are_offered() {
    assert_eq!(of(&["drain", "N"]), "Node\n:4\n");
    assert_eq!(of(&["undrain", "--timeout", "9", ""]), "Node\n:4\n");
    assert_eq!(of(&["drain", "node-1", ""]), ":4\n");
    assert_eq!(of(&["why", ""]), "Address\n:4\n");
    assert_eq!(of(&["status", "-n", "shop", ""]), "LoadBalancer\n:4\n");
    assert_eq!(of(&["export", ""]), "LoadBalancer\n:4\n");
    for option in ["-n", "--namespace", "--metallb-namespace"] {
        assert_eq!(of(&["status", option, ""]), "Namespace\n:4\n");
    }
    assert_eq!(of(&["why", "--context=C"]), "Context\n:4\n");
}
