//! The lines of the contract that there are to prove, read from the document itself.

/// The contract, in Markdown: `docs/contract.md` of the repository.
pub const TEXT: &str = include_str!("../contract.md");

/// The names of its rules, in order: what stands in bold code at the beginning of a list item.
pub fn rules() -> impl Iterator<Item = &'static str> {
    TEXT.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("- **`")?.split_once("`**")?;
        Some(name)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let mut rules: Vec<_> = super::rules().collect();
        let all = rules.len();
        assert!(all > 80, "{all}");
        rules.sort_unstable();
        rules.dedup();
        assert_eq!(rules.len(), all);
    }
}
