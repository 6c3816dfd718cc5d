//! What people mean who type a command of another tool, or of none: the command that does it here.

/// Options whose value is an argument of its own.
const VALUED: [&str; 8] =
    ["--config", "--environment", "--set", "--store", "--backend", "--path", "-o", "--output"];

/// What of this program does what these arguments ask for, where that is known. The first one is the program's
/// name.
pub(crate) fn advice(arguments: &[String]) -> Option<String> {
    if asks_for_yaml(arguments) {
        return Some("`-o json` prints what readers of YAML read, too: JSON is YAML".to_owned());
    }
    let words = words(arguments);
    let words: Vec<&str> = words.iter().map(|word| word.as_str()).collect();
    let advice = match *words.as_slice() {
        [verb @ ("show" | "get" | "create" | "delete"), noun, ..] => {
            return Some(format!("the noun comes first: `gwstore {noun} {verb} …`"));
        }
        ["preauthkey" | "preauthkeys", "create", _] if !names_user(arguments) => {
            "a key's owner is an option: `gwstore preauthkey create --user NAME`"
        }
        ["setting" | "settings", "set", ..] => {
            "a setting is a field of network, dns or derp-map: `gwstore setting set dns magic_dns=true`; \
             `gwstore setting get dns` shows the fields"
        }
        ["export" | "backup" | "dump"] => {
            "name the file: `gwstore export FILE`, or `-` for standard output"
        }
        ["log-level" | "loglevel", ..] => {
            "`gwstore log level LEVEL` changes what a served store logs"
        }
        ["reload", ..] => "`gwstore config reload` has the configuration read again",
        ["shutdown" | "stop", ..] => {
            "SIGTERM ends the process that has the store open, in order: `systemctl stop`, or `kill PID`"
        }
        ["audit"] => "`gwstore audit list` prints the trail",
        ["configtest", ..] => {
            "`gwstore config show` reads the configuration, `gwstore doctor` checks all of it"
        }
        _ => return None,
    };
    Some(advice.to_owned())
}

fn asks_for_yaml(arguments: &[String]) -> bool {
    let is_yaml = |value: &str| ["yaml", "yml"].contains(&value);
    let joined = |it: &String| {
        it.strip_prefix("--output=").or_else(|| it.strip_prefix("-o")).is_some_and(is_yaml)
    };
    let apart = |pair: &[String]| match pair {
        [option, value] => ["-o", "--output"].contains(&option.as_str()) && is_yaml(value),
        _ => false,
    };
    arguments.iter().any(joined) || arguments.windows(2).any(apart)
}

fn names_user(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument == "-u" || argument.starts_with("--user"))
}

/// The arguments that are no options.
fn words(arguments: &[String]) -> Vec<&String> {
    let mut words = Vec::new();
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        if VALUED.contains(&argument.as_str()) {
            rest.next();
        } else if !argument.starts_with('-') {
            words.push(argument);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_told_whatever_options_there_are() {
        let told = |line: &str| {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            advice(&arguments).unwrap_or_default()
        };
        assert!(
            told("gwstore --path show.db show node laptop -o json")
                .contains("`gwstore node show …`")
        );
        assert!(told("gwstore preauthkey create alice").contains("--user NAME"));
        assert!(told("gwstore --quiet reload").contains("config reload"));
        for line in
            ["gwstore node list -o yaml", "gwstore --output=yaml status", "gwstore status -oyaml"]
        {
            assert!(told(line).contains("-o json"), "{line}");
        }
        assert!(told("gwstore export").contains("gwstore export FILE"));
        assert_eq!(told("gwstore user create"), "");
    }
}
