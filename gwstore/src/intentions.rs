//! What people mean who type a command of another tool, or of none: the command that does it here.

use clap::Command;
use clap::error::{ContextKind, ContextValue};

/// Options whose value is an argument of its own.
const VALUED: [&str; 8] =
    ["--config", "--environment", "--set", "--store", "--backend", "--path", "-o", "--output"];

/// What of this program does what these arguments ask for, where that is known. The first one is the program's
/// name.
pub(crate) fn advice(arguments: &[String]) -> Option<String> {
    if asks_for(arguments, &["yaml", "yml"]) {
        return Some("`-o json` prints what readers of YAML read, too: JSON is YAML".to_owned());
    }
    if asks_for(arguments, &["wide"]) {
        return Some(
            "`--columns TITLES` says which columns of a listing, `-o json` has all".to_owned(),
        );
    }
    let words = words(arguments);
    let words: Vec<&str> = words.iter().map(|word| word.as_str()).collect();
    let advice = match *words.as_slice() {
        ["describe", noun, ..] => return Some(format!("`gwstore {noun} show …` shows all of it")),
        [noun, "describe" | "inspect", ..] => {
            return Some(format!("`gwstore {noun} show …` shows all of it"));
        }
        [verb @ ("show" | "get" | "create" | "delete"), noun, ..] => {
            return Some(format!("the noun comes first: `gwstore {noun} {verb} …`"));
        }
        ["preauthkey" | "preauthkeys", "create", _] if !names_user(arguments) => {
            "a key's owner is an option: `gwstore preauthkey create --user NAME`"
        }
        ["node" | "nodes", "untag" | "remove-tags", ..] => {
            "`gwstore node tag NODE TAG… --remove` takes tags away"
        }
        ["node" | "nodes", "set-tags" | "retag", ..] => {
            "`gwstore node tag NODE TAG…` replaces a node's tags; --add and --remove leave the others"
        }
        ["node" | "nodes", "list" | "ls", _] if !has_options(arguments) => {
            "`gwstore node show NODE` shows one; a listing is narrowed by options, such as --user"
        }
        ["route" | "routes", "list" | "ls", _] if !has_options(arguments) => {
            "`gwstore route list --node NODE` lists the routes of a node; `gwstore route show PREFIX` shows one"
        }
        ["node" | "nodes" | "list", ..] if has(arguments, &["--last-seen", "--stale"]) => {
            "`--not-seen-since 90d` selects the nodes that have been away for so long"
        }
        ["dns", "nameservers" | "nameserver" | "resolvers", ..] => {
            "`gwstore setting set dns nameservers=9.9.9.9,1.1.1.1` sets them; `gwstore setting get dns` shows them"
        }
        ["policy" | "policies", "diff", ..] => {
            "`gwstore policy list` has the versions, `gwstore policy get N` prints one: compare two with `diff`"
        }
        ["setting" | "settings", "set", ..] => {
            "a setting is a field of network, dns or derp-map: `gwstore setting set dns magic_dns=true`; \
             `gwstore setting get dns` shows the fields"
        }
        ["export" | "backup" | "dump"] => {
            "name the file: `gwstore export FILE`, or `-` for standard output"
        }
        ["export" | "backup" | "dump", "portable", ..] => {
            "there is one format: `gwstore export FILE`"
        }
        ["undo" | "restore", ..] => {
            "`gwstore import portable FILE` brings back what an export or --save wrote, and `gwstore policy rollback` \
             a policy"
        }
        ["import", what, ..] if !["headscale", "portable", "help"].contains(&what) => {
            "`gwstore import portable FILE` reads an export, `gwstore import headscale FILE` a database of Headscale"
        }
        ["log-level" | "loglevel", ..] => {
            "`gwstore log level LEVEL` changes what a served store logs"
        }
        ["log", "level"] => {
            "name the level; `gwstore config show` has the one that is configured, as log.level"
        }
        ["log", level @ ("off" | "error" | "warn" | "info" | "debug" | "trace"), ..] => {
            return Some(format!("`gwstore log level {level}` changes what a served store logs"));
        }
        ["reload", ..] => "`gwstore config reload` has the configuration read again",
        ["shutdown" | "stop", ..] => {
            "SIGTERM ends the process that has the store open, in order: `systemctl stop`, or `kill PID`"
        }
        ["audit", what, ..] if ["list", "ls", "show", "help"].contains(&what) => return None,
        ["audit", ..] => "`gwstore audit list` prints the trail",
        ["configtest", ..] | ["config", "check" | "test" | "validate", ..] => {
            "`gwstore config show` reads the configuration, `gwstore doctor` checks all of it"
        }
        ["keys", "status" | "show", ..] => {
            "`gwstore keys list` lists the keys' versions and the recipients"
        }
        ["consumers" | "consumer", "list" | "ls", ..] => {
            "`gwstore consumers show` lists them, and how far each is"
        }
        ["health", what @ ("live" | "ready"), ..] => {
            return Some(format!("it is an option: `gwstore health --{what}`"));
        }
        ["live" | "livez", ..] => "`gwstore health --live` says it of a served store",
        ["ready" | "readyz", ..] => "`gwstore health` says it of a served store",
        ["up" | "start", ..] => "`gwstore serve` serves the configured store",
        ["tail" | "events", ..] => {
            "`gwstore watch` prints each commit as it comes, `gwstore audit list` who did what"
        }
        ["fsck", ..] => {
            "`gwstore verify` checks everything stored, `gwstore doctor` all around it, too"
        }
        ["vacuum", ..] => "`gwstore compact` gives free pages of the file back to the disk",
        ["repair", ..] => {
            "`gwstore doctor` says what is wrong and what to do; `gwstore clock repair` corrects times"
        }
        _ => return None,
    };
    Some(advice.to_owned())
}

/// Whether the output shall have one of these forms.
fn asks_for(arguments: &[String], forms: &[&str]) -> bool {
    let is_meant = |value: &str| forms.contains(&value);
    let joined = |it: &String| {
        it.strip_prefix("--output=").or_else(|| it.strip_prefix("-o")).is_some_and(is_meant)
    };
    let apart = |pair: &[String]| match pair {
        [option, value] => ["-o", "--output"].contains(&option.as_str()) && is_meant(value),
        _ => false,
    };
    arguments.iter().any(joined) || arguments.windows(2).any(apart)
}

fn names_user(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument == "-u" || argument.starts_with("--user"))
}

fn has(arguments: &[String], options: &[&str]) -> bool {
    let name = |argument: &String| argument.split('=').next().map(str::to_owned);
    arguments.iter().filter_map(name).any(|name| options.contains(&name.as_str()))
}

/// Whether there are options of which it is not known whether a value follows.
fn has_options(arguments: &[String]) -> bool {
    let is_own = |argument: &&String| argument.starts_with('-') && argument.len() > 1;
    !arguments.iter().skip(1).filter(is_own).all(|it| VALUED.contains(&it.as_str()))
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

/// Leaves out of an error what is proposed instead and misleads: names that are there for those who know other tools,
/// and are in no help, and what is hardly like what was typed.
pub(crate) fn without_misleading_tips(error: &mut clap::Error, command: &Command) {
    if let Some(ContextValue::Strings(names)) = error.remove(ContextKind::SuggestedSubcommand) {
        let names: Vec<_> = names.into_iter().filter(|name| is_told(command, name)).collect();
        if !names.is_empty() {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(names));
        }
    }
    let typed = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(typed)) => typed.clone(),
        _ => return,
    };
    if let Some(ContextValue::String(option)) = error.remove(ContextKind::SuggestedArg) {
        let typed = typed.split('=').next().unwrap_or_default();
        let is_like = strsim::osa_distance(typed, &option) * 2 <= option.len();
        match told_option(command, &option).filter(|_| is_like) {
            Some(option) => {
                error.insert(ContextKind::SuggestedArg, ContextValue::String(option));
            }
            // The usage shows what was proposed.
            None => drop(error.remove(ContextKind::Usage)),
        }
    }
}

/// Whether the help of any command names it.
fn is_told(command: &Command, name: &str) -> bool {
    command.get_subcommands().any(|inner| {
        let is_named = inner.get_name() == name || inner.get_visible_aliases().any(|it| it == name);
        is_named && !inner.is_hide_set() || is_told(inner, name)
    })
}

/// The option by the name under which a help has it.
fn told_option(command: &Command, option: &str) -> Option<String> {
    let name = option.trim_start_matches('-');
    let told = command.get_arguments().find_map(|argument| {
        let long = argument.get_long().filter(|_| !argument.is_hide_set())?;
        let aliases = argument.get_all_aliases().unwrap_or_default();
        (long == name || aliases.contains(&name)).then(|| format!("--{long}"))
    });
    told.or_else(|| command.get_subcommands().find_map(|inner| told_option(inner, option)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
        for (line, wanted) in [
            ("nodes untag laptop tag:a", "node tag NODE TAG… --remove"),
            ("nodes set-tags laptop tag:a", "node tag NODE TAG…"),
            ("undo", "import portable FILE"),
            ("restore copy.jsonl", "import portable FILE"),
            ("import copy.jsonl", "import portable FILE"),
            ("dns nameservers 9.9.9.9", "setting set dns nameservers="),
            ("policy diff 1 2", "policy get N"),
            ("node describe laptop", "gwstore node show"),
            ("describe node laptop", "gwstore node show"),
            ("config check", "gwstore doctor"),
            ("keys status", "keys list"),
            ("consumers list", "consumers show"),
            ("log debug", "log level debug"),
            ("log level", "config show"),
            ("health live", "health --live"),
            ("export portable copy.jsonl", "gwstore export FILE"),
            ("nodes list -o wide", "--columns"),
            ("nodes list --last-seen 90d", "--not-seen-since"),
            ("node delete --stale=90d", "--not-seen-since"),
            ("nodes list laptop", "node show NODE"),
            ("routes list --path a.db server", "route list --node NODE"),
            ("nodes list --user alice --colour", ""),
            ("fsck", "gwstore verify"),
            ("vacuum", "gwstore compact"),
            ("repair", "gwstore doctor"),
            ("audit --since 24h", "audit list"),
            ("audit list --colour", ""),
            ("import portable", ""),
        ] {
            let told = told(&format!("gwstore {line}"));
            assert!(
                told.contains(wanted) && told.is_empty() == wanted.is_empty(),
                "{line}: {told}"
            );
        }
        assert!(told("gwstore export").contains("gwstore export FILE"));
        assert_eq!(told("gwstore user create"), "");
    }

    #[test]
    fn what_is_proposed_is_in_a_help_and_like_what_was_typed() {
        use clap::{CommandFactory, Parser};
        let said = |line: &str| {
            let mut error = crate::cli::Cli::try_parse_from(line.split(' ')).unwrap_err();
            without_misleading_tips(&mut error, &crate::cli::Cli::command());
            error.render().to_string()
        };
        for (line, misleading) in [
            ("gwstore up", "setup-keys"),
            ("gwstore tail", "acl"),
            ("gwstore events", "peers"),
            ("gwstore ready", "record"),
            ("gwstore policy set f --revision 1", "expect-version"),
            ("gwstore audit list --target x", "--store"),
        ] {
            assert!(!said(line).contains(misleading), "{}", said(line));
        }
        for (line, proposed) in [
            ("gwstore statu", "'status'"),
            ("gwstore polices list", "'polic"),
            ("gwstore node list --onlin", "'--online'"),
            ("gwstore policy set f --expect-versio 1", "'--expect-revision'"),
        ] {
            assert!(said(line).contains(proposed), "{}", said(line));
        }
    }
}
