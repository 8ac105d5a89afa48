//! The text of metrics: OpenMetrics, the older form for those who do not ask
//! for it, and what the documentation says of each metric.

/// The content type of OpenMetrics text.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of the form that every scraper reads.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// OpenMetrics text in the older form: there a counter's family is named as
/// its samples are, and there are neither units nor an end.
pub fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    for (name, family) in families(openmetrics) {
        let (suffix, kind) = match family.kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            kind => ("", kind),
        };
        text += &format!("# HELP {name}{suffix} {}\n", family.help);
        text += &format!("# TYPE {name}{suffix} {kind}\n");
        for sample in family.samples {
            text += sample;
            text.push('\n');
        }
    }
    text
}

/// What the documentation says of a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Its name, as in a query.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// What it says.
    pub help: String,
    /// Its labels, without those of histograms' buckets.
    pub labels: Vec<String>,
}

/// Every metric of an OpenMetrics text, in its order.
pub fn describe(openmetrics: &str) -> Vec<Described> {
    let families = families(openmetrics).into_iter();
    families
        .map(|(name, family)| {
            let suffix = match family.kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let mut labels: Vec<String> = Vec::new();
            for sample in &family.samples {
                for label in label_names(sample) {
                    if label != "le" && !labels.iter().any(|l| l == label) {
                        labels.push(label.to_owned());
                    }
                }
            }
            Described {
                name: format!("{name}{suffix}"),
                kind: family.kind.to_owned(),
                help: family.help.trim_end_matches('.').to_owned(),
                labels,
            }
        })
        .collect()
}

/// A family of the text.
#[derive(Default)]
struct Lines<'a> {
    kind: &'a str,
    help: &'a str,
    samples: Vec<&'a str>,
}

fn families(text: &str) -> Vec<(&str, Lines<'_>)> {
    let mut families: Vec<(&str, Lines<'_>)> = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let parts = (words.next(), words.next(), words.next(), words.next());
        match parts {
            (Some("#"), Some("HELP"), Some(name), help) => {
                let help = help.unwrap_or_default();
                families.push((
                    name,
                    Lines {
                        help,
                        ..Lines::default()
                    },
                ));
            }
            (Some("#"), Some("TYPE"), Some(_), kind) => {
                if let Some((_, family)) = families.last_mut() {
                    family.kind = kind.unwrap_or_default();
                }
            }
            (Some("#"), ..) => {}
            _ => {
                if let Some((_, family)) = families.last_mut() {
                    family.samples.push(line);
                }
            }
        }
    }
    families
}

/// The names of a sample's labels. Values may hold any sign; a name is what
/// comes before `="` at the start or after a closed value.
fn label_names(sample: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let Some((_, mut rest)) = sample.split_once('{') else {
        return names;
    };
    while let Some((name, value)) = rest.split_once("=\"") {
        names.push(name);
        let mut escaped = false;
        let end = value.char_indices().find(|(_, c)| {
            let closes = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            closes
        });
        let Some((end, _)) = end else { break };
        match value[end + 1..].strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP l2lb_writes Writes by kind.\n# TYPE l2lb_writes counter\n\
        l2lb_writes_total{kind=\"a\\\"}=\\\\\",verb=\"b\"} 1\n\
        # HELP l2lb_time_seconds Time.\n# TYPE l2lb_time_seconds histogram\n# UNIT l2lb_time_seconds seconds\n\
        l2lb_time_seconds_sum 0.5\nl2lb_time_seconds_bucket{le=\"+Inf\"} 1\n\
        # HELP l2lb_build Version.\n# TYPE l2lb_build info\nl2lb_build_info{version=\"1\"} 1\n# EOF\n";

    #[test]
    fn the_older_form_names_families_as_samples() {
        let wanted = "# HELP l2lb_writes_total Writes by kind.\n# TYPE l2lb_writes_total counter\n\
            l2lb_writes_total{kind=\"a\\\"}=\\\\\",verb=\"b\"} 1\n\
            # HELP l2lb_time_seconds Time.\n# TYPE l2lb_time_seconds histogram\n\
            l2lb_time_seconds_sum 0.5\nl2lb_time_seconds_bucket{le=\"+Inf\"} 1\n\
            # HELP l2lb_build_info Version.\n# TYPE l2lb_build_info gauge\nl2lb_build_info{version=\"1\"} 1\n";
        assert_eq!(classic(TEXT), wanted);
    }

    #[test]
    fn metrics_are_described_by_their_samples() {
        let described = describe(TEXT);
        let names: Vec<&str> = described.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(
            names,
            ["l2lb_writes_total", "l2lb_time_seconds", "l2lb_build_info"]
        );
        assert_eq!(described[0].labels, ["kind", "verb"]);
        assert!(described[1].labels.is_empty());
        assert_eq!(described[0].help, "Writes by kind");
    }
}
