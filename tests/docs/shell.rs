//! As much of a shell's grammar as the commands in the documentation use.

/// The commands of a script, each in words: what pipes, `;`, `&`, `&&`, `||`
/// and line ends part, and what stands in `$(...)`. Redirections, assignments
/// before a command and comments are left out.
pub fn commands(script: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    read(&mut script.chars().peekable(), &mut found, false);
    found
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// What has been read of one command.
#[derive(Default)]
struct Reading {
    words: Vec<String>,
    word: Option<String>,
    /// The next word is the file of a redirection.
    redirected: bool,
}

impl Reading {
    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        if std::mem::take(&mut self.redirected) {
            return;
        }
        let is_assignment = self.words.is_empty()
            && word.split_once('=').is_some_and(|(name, _)| {
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            });
        if !is_assignment {
            self.words.push(word);
        }
    }

    fn end_command(&mut self, found: &mut Vec<Vec<String>>) {
        self.end_word();
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            found.push(words);
        }
    }
}

/// Reads to the end, or to the parenthesis that ends a `$(...)`.
fn read(chars: &mut Chars, found: &mut Vec<Vec<String>>, nested: bool) {
    let mut now = Reading::default();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                None | Some('\n') => {}
                Some(next) => now.push(next),
            },
            '\'' => {
                now.word.get_or_insert_default();
                chars
                    .by_ref()
                    .take_while(|c| *c != '\'')
                    .for_each(|c| now.push(c));
            }
            '"' => {
                now.word.get_or_insert_default();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    let c = if c == '\\' { chars.next() } else { Some(c) };
                    c.into_iter().for_each(|c| now.push(c));
                }
            }
            '$' if chars.peek() == Some(&'(') => {
                chars.next();
                read(chars, found, true);
                now.push('$');
            }
            ')' if nested => break,
            '#' if now.word.is_none() => {
                chars.by_ref().take_while(|c| *c != '\n').for_each(drop);
                now.end_command(found);
            }
            '>' | '<' => {
                // 2> is a redirection too.
                if now.word.as_ref().is_some_and(|w| w.parse::<u8>().is_ok()) {
                    now.word = None;
                }
                now.end_word();
                now.redirected = true;
            }
            '|' | ';' | '&' | '\n' => now.end_command(found),
            c if c.is_whitespace() => now.end_word(),
            c => now.push(c),
        }
    }
    now.end_command(found);
}

#[test]
fn commands_are_taken_apart() {
    let all = |script: &str| -> Vec<String> {
        let commands = commands(script).into_iter();
        commands.map(|words| words.join("|")).collect()
    };
    assert_eq!(all("a -b 'c d' \"e f\" # g"), ["a|-b|c d|e f"]);
    assert_eq!(all("A=1 a b=2 | c && d; e"), ["a|b=2", "c", "d", "e"]);
    assert_eq!(all("a > b 2> c\nd \\\n  e"), ["a", "d|e"]);
    assert_eq!(all("ln -s $(which a) b"), ["which|a", "ln|-s|$|b"]);
    assert_eq!(all("a --b='{.c}' d#e"), ["a|--b={.c}|d#e"]);
}
