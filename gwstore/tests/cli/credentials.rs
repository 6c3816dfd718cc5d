//! A credential that is given whole names its key, and is repeated nowhere.

use crate::support::stores;

#[test]
fn a_credential_names_its_key_and_is_not_repeated() {
    for (backend, place) in stores() {
        let on = |arguments: &str| place.on(backend, arguments);
        on("user create alice").ok();
        for (noun, create) in
            [("apikey", "apikey create"), ("preauthkey", "preauthkey create --user alice")]
        {
            let made = on(create).ok().out;
            let key = made.trim();
            let (public, secret) = key.rsplit_once('-').unwrap();
            let part = public.rsplit_once('-').unwrap().1;
            for name in [key, public, part] {
                on(&format!("{noun} show {name}")).ok().hides(&[secret]);
                let found =
                    on(&format!("{noun} list --prefix {name} --json")).ok().hides(&[secret]);
                assert_eq!(found.items().len(), 1, "{name}");
            }
            on(&format!("{noun} expire {key}")).ok().hides(&[secret]);
            on(&format!("{noun} delete --prefix {key} --yes")).ok().hides(&[secret]);
            // Now there is none.
            for gone in [
                format!("{noun} show {key}"),
                format!("{noun} expire {key}"),
                format!("{noun} expire {key} --json"),
                format!("{noun} expire --prefix {key}"),
                format!("{noun} list --user {key}"),
                format!("node show {key}"),
                format!("{noun} delete {key} --yes"),
                format!("{noun} delete {key}"),
            ] {
                on(&gone).ended(4).hides(&[secret]).warns(&[part]);
            }
            for misplaced in [
                format!("{noun} {key}"),
                format!("{noun} list {key}"),
                format!("{noun} list --limit={key}"),
                format!("{noun} create --expiration {key}"),
            ] {
                on(&misplaced).ended(2).hides(&[secret]);
            }
        }
        // Those of Headscale, and what may be one.
        let digits = "0123456789abcdef".repeat(3);
        for (name, shown) in [
            (format!("hskey-api-a_0-Zbcdefgh-{digits}"), "a_0-Zbcdefgh"),
            (format!("abcdefg.{digits}"), "abcdefg"),
            (digits.clone(), "0123"),
            (format!("gwsession-abc-{digits}"), "abc"),
        ] {
            on(&format!("apikey expire {name}")).ended(4).hides(&[&digits]).warns(&[shown]);
        }
    }
}

#[test]
fn an_option_that_names_one_names_one_that_is_there() {
    for (backend, place) in stores() {
        let on = |arguments: &str| place.on(backend, arguments);
        on("user create alice").ok();
        for command in [
            "apikey expire --prefix abc",
            "preauthkey delete --prefix abc --yes",
            "preauthkey delete --prefix abc",
            "user delete --name zzz --yes",
            "user delete --email z@example.com --yes",
            "dns delete --name z.example --yes",
            "route approve --prefix 10.0.0.0/8",
        ] {
            on(command).ended(4).warns(&["does not exist", "option: --"]);
        }
        // What only describes may be nobody's.
        on("apikey expire --active").ok().warns(&["nothing to do"]);
        on("user delete --name alice --role owner --yes").ok().warns(&["nothing to do"]);
    }
}

#[test]
fn numbers_are_ids_of_headscale() {
    for (backend, place) in stores() {
        for (noun, list) in [("user", "gwstore user list"), ("node", "gwstore node list")] {
            let ran = place.on(backend, &format!("{noun} show 17")).ended(4);
            ran.warns(&["Headscale's", "not kept", list]);
        }
    }
}
